//! The `landfall` program: reads its arguments and hands over.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    landfall::cli::run(landfall::cli::Arguments::parse())
}
