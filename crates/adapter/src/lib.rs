//! What a technology of Landfall is made of: the library that every technology is written with, in Landfall's own
//! repository and elsewhere.
//!
//! Every side effect is the same loop, whatever is asked and wherever it lands: a technology *binds* a component, which
//! reads and checks it (pure), *plans* by comparing what is wanted with what it observes (reads only), and *applies* one
//! idempotent change at a time. There is no step journal and no undo: after a crash the plan is made again and what is left
//! is applied. An empty plan is a no-op that completes.
//!
//! A technology guarantees that
//! - `plan` and `describe` change nothing,
//! - every change may be applied twice, and a crash between any two leaves a state from which planning converges,
//! - what it creates carries a mark of its owner (component id and environment) in the target itself; what carries
//!   no mark, or another owner's, is never adopted, altered or dropped: [`Error::conflict`].
//!
//! | module | what it is for |
//! |---|---|
//! | [`Driver`], [`settings`] | from the configuration of a target to a technology |
//! | [`Technology`], [`Bound`], [`Work`], [`Plan`], [`Context`] | the interface: what is implemented, worked on, returned and called |
//! | [`any`] | technologies whose types are not known, for the engine |
//! | [`access`] | refs, where they are looked up, and the difference between who has access and who should |
//! | [`descriptor`] | YAML in, a typed data product or every problem out |
//! | [`import`] | reverse provisioning: parameters in, updates of an entity out |
//! | [`blocking`] | work on threads that may block, and when all of a run's has ended |
//! | [`error`] | why work failed, and whether trying again helps |

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

pub use context::{Context, Memory, Running};
pub use driver::{Driver, Mistakes, Services};
pub use error::{Error, Result};
pub use import::{Import, ImportParams, Imported, ReverseRequest};
pub use journal::{Journal, Level, LogLine};
pub use plan::{Action, Change, Info, Plan};
pub use schemars;
pub use secret::Secret;
pub use technology::{AccessMode, Bound, Capabilities, Found, Kinds, Technology};
pub use work::{AccessList, Dependency, Intent, Neighbours, Owner, Work};
