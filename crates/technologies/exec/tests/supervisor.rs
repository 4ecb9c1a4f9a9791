//! The supervisor as a program of its own, which the tests of this crate start; `landfall` does the same itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    return landfall_exec::supervise();
    #[cfg(not(target_os = "linux"))]
    ExitCode::FAILURE
}
