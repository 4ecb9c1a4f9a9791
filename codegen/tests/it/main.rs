//! Tests of the generator: its output, its errors, and the behaviour of the generated code.

#![expect(clippy::unwrap_used, reason = "where a helper of a test fails, the test fails")]

#[path = "../golden/mod.rs"]
mod golden;

mod boxes;
mod compile_fail;
mod decode;
mod json;
mod serve;
mod shared;
mod unsupported;
mod write;

/// The implementor of the unchanged contract.
mod here {
    use super::golden;
    use golden::tasks as contract;
    include!("../golden/implementor.rs");
}

/// The same implementor, byte for byte, for the contract with moved paths: it binds by operationId.
mod moved {
    use super::golden;
    use golden::moved as contract;
    include!("../golden/implementor.rs");
}
