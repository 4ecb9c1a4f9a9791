//! Uses of the generated code that the contract does not allow do not compile.

/// trybuild builds its cases, and all that generated code uses, in a target folder of its own: the slow test of this
/// crate, a minute when cold.
#[test]
fn undeclared_responses_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
