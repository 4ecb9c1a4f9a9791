//! The `landfall` program: the adapter with the drivers that are built in.

use std::process::ExitCode;

fn main() -> ExitCode {
    landfall::Adapter::builder().build().main()
}
