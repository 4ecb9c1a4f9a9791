//! The technology `exec`: programs in any language, which speak `landfall.plugin/1`.
//!
//! A plug-in is a program that Landfall starts for each step, with a verb as its last argument, one JSON document on
//! standard input and JSON lines on standard output. protocol.md is the specification for authors.
//!
//! | module | content |
//! |---|---|
//! | [`protocol`] | the documents |
//! | `driver` | `[targets.CODE] driver = "exec"` |
//! | `schema` | JSON Schemas of a plug-in, and their errors as problems |
//! | `plugin` | a component bound to a plug-in: which verb runs when, and what is remembered |
//! | `run` | one run: input, output, time and limits |
//! | `verdict` | what a run means |
//! | `supervisor` | the process that leaves no process behind |
//! | `tools` | `landfall plugin new`, `check` and `run` |

#![cfg(target_os = "linux")]

mod driver;
mod lines;
mod plugin;
pub mod protocol;
mod run;
mod schema;
mod supervisor;
mod tools;
mod verdict;

pub use driver::{ExecDriver, Settings};
pub use plugin::{BoundPlugin, Plugin};
pub use supervisor::{ARGUMENT as SUPERVISE, supervise};
