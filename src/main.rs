//! The `landfall` program: the adapter with the built-in drivers.

use std::process::ExitCode;

fn main() -> ExitCode {
    landfall::Adapter::builder().build().main()
}
