//! The interface between Landfall and its technologies, for technologies in this repository and elsewhere.
//!
//! Every operation on every target follows the same steps. A technology *binds* a component, which reads and
//! checks it without I/O. It *plans*: it compares the wanted state with the state that it observes, and only
//! reads. Then it *applies* one idempotent change at a time. There is no step journal and no undo: after a crash,
//! Landfall plans again and applies what is left. An operation with an empty plan completes.
//!
//! A technology guarantees that
//! - `plan` and `describe` change nothing,
//! - every change can be applied twice, and planning converges from the state that a crash between any two
//!   changes leaves,
//! - every resource that it creates carries a mark of its owner (component id and environment) in the target
//!   itself. It never adopts, alters or drops a resource with another mark, or without one: [`Error::conflict`].
//!
//! | module | content |
//! |---|---|
//! | [`Driver`], [`settings`] | from the configuration of a target to a technology |
//! | [`Technology`], [`Bound`], [`Work`], [`Plan`], [`Context`] | the interface between the engine and a technology |
//! | [`any`] | technologies of unknown types, for the engine |
//! | [`access`] | refs, identity sources, and the difference between the current and the wanted access |
//! | [`descriptor`] | YAML in, a typed data product or every problem out |
//! | [`import`] | reverse provisioning: parameters in, updates of an entity out |
//! | [`naming`] | derives resource names from identities |
//! | [`blocking`] | work on blocking threads, and when all of a run's has ended |
//! | [`error`] | why work failed, and whether a retry helps |

pub mod access;
pub mod any;
pub mod blocking;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod conformance;
mod context;
pub mod descriptor;
mod driver;
pub mod error;
pub mod import;
mod journal;
pub mod naming;
mod places;
mod plan;
mod secret;
pub mod settings;
mod technology;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
mod work;

pub use context::{Attempt, Context, Memory, Running};
pub use driver::{Driver, Mistakes, Services};
pub use error::{Error, Result};
pub use import::{Import, ImportParams, Imported, ImportedTable, ReverseRequest};
pub use journal::{Journal, Level, LogLine};
pub use plan::{Action, Change, Info, Part, Plan};
pub use schemars;
pub use secret::Secret;
pub use technology::{AccessMode, Bound, Capabilities, Found, Kinds, Technology};
pub use work::{AccessList, Dependency, Intent, Neighbours, Owner, Work};
