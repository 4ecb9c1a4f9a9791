//! Durable operations: what was accepted gets done, once at a time, and its end is kept.
//!
//! The rest of Landfall hands work to an [`Engine`] and gets a [`Token`]. From then on the work survives the
//! process: it waits in a [`Store`], is leased to a worker, run by the [`Runner`], tried again after a transient
//! failure or a crash, and ends in a state that never changes. What that guarantees:
//!
//! - **Durable before the answer.** [`Engine::submit`] returns after the commit is on disk.
//! - **One at a time, in order.** Tasks that share a component run one after the other, in the order of submission.
//! - **Joined while in flight.** The same request answers the same token for as long as that task would leave the
//!   component as asked: until it ends, is asked to stop, or another request for the component follows it.
//! - **Fenced.** A worker writes under a lease. One that lost its lease, because it hung or was paused, touches no
//!   row; it also stops by its own clock before the lease ends.
//! - **Run at least once, never twice at once.** A run that was cut off is run again from its start; the work must
//!   be idempotent, which is what technologies promise. A task that takes the process down each time is given up.
//! - **Stoppable** in every state, and a stop that comes too late says so by the state it answers.
//!
//! It is not a workflow engine: no steps are journalled and nothing is undone. It knows nothing of descriptors or
//! technologies; payload and outcome are JSON that it stores and hands back, and never logs.
//!
//! Above the engine stand the parts that do know: `service` makes one task of what a contract received (`request` is what is
//! stored of it), `domain` and `work` parse, place and bind, `runner` observes, plans and applies.
//!
//! The parts: `state` is the pure table of transitions, `store` the interface to a database and its promises,
//! `sqlite` the embedded store, `engine` the queue's workers and the public face, `worker` the course of one run, `health`
//! what is told of it all.

mod domain;
mod dry_run;
mod engine;
mod health;
mod import;
mod ledger;
mod migration;
pub mod postgres;
mod repeats;
mod request;
mod runner;
mod schedule;
mod service;
pub mod sqlite;
mod state;
mod store;
mod target_health;
mod task;
pub mod topology;
mod work;
mod worker;

pub use domain::{Domain, ParseSettings};
pub use dry_run::DryRunSettings;
pub use engine::{Drained, Engine, Settings};
pub use health::{Health, Stuck};
pub use import::ImportSettings;
pub use request::Request;
pub use runner::{Report, TechnologyRunner};
pub use service::{ComponentPlace, ComponentPlan, Planned, Service};
pub use state::{Event, IllegalTransition, State, transition};
pub use store::{
    ClaimRequest, Claims, Due, Ending, Expired, Hint, Limits, Settlement, StopScope, Store, Submission,
};
pub use target_health::{TargetFailure, TargetHealth};
pub use task::{
    ClaimedTask, ComponentKey, Counts, Deployment, DeploymentStatus, Lane, Lease, NewTask, NotAToken,
    Operation, Submitted, Task, Token,
};
pub use work::{Document, Placement, Skipped, check_document};
pub use worker::{Deployments, RunError, Runner};

#[cfg(test)]
#[path = "../../../tests/support/postgres.rs"]
#[expect(dead_code, reason = "others use the rest of it")]
mod postgres_server;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;
