//! Durable operations: the engine runs every accepted task, one run at a time, and keeps its result.
//!
//! The rest of Landfall gives work to an [`Engine`] and gets a [`Token`]. From then on the work survives the process:
//! it waits in a [`Store`], a worker leases it, the [`Runner`] runs it, the engine retries it after a transient
//! failure or a crash, and it ends in a state that never changes. The guarantees:
//!
//! - **Durable before the answer.** [`Engine::submit`] returns after the commit is on disk.
//! - **One at a time, in order.** Tasks that share a component run one after the other, in the order of submission.
//! - **Joined while in flight.** The same request gets the same token as long as that task still decides the state of
//!   its components: until it ends, a stop is requested, or another request for one of the components follows it.
//! - **Fenced.** A worker writes under a lease. A worker that lost its lease, because it hung or was paused, changes
//!   no row; it also stops by its own clock before the lease ends.
//! - **Run at least once, never twice at once.** An interrupted run starts again from its beginning, so the work must
//!   be idempotent; technologies promise that. The engine gives up a task that crashes the process each time.
//! - **Stoppable** in every state. When a stop comes too late, the state in the response shows it.
//!
//! It is not a workflow engine: it journals no steps and undoes nothing. It does not know descriptors or
//! technologies; payload and outcome are JSON that it stores and returns, and never logs.
//!
//! The modules of the engine:
//!
//! - `state`: the state transitions, as a pure function;
//! - `store`: the interface to a database, and what it promises;
//! - `sqlite` and `postgres`: the two stores, with `ledger` for what they share;
//! - `engine`: the queue's workers and the public interface;
//! - `worker`: one run of a task;
//! - `health`: whether the engine can accept and run operations.
//!
//! The modules above the engine know descriptors and technologies:
//!
//! - `service`: makes a task from a request; `request` is the stored form of that request;
//! - `domain` and `work`: parse the descriptor, choose the targets and bind the components to technologies;
//! - `runner`: observes, plans and applies.

mod domain;
mod dry_run;
mod engine;
mod health;
mod import;
mod ledger;
mod migration;
mod operation;
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
pub use operation::{Description, Lane, Operation};
pub use request::{ChangeRequest, Request};
pub use runner::{Report, TechnologyRunner};
pub use service::{ComponentPlace, ComponentPlan, Planned, Service};
pub use state::{Event, IllegalTransition, State, transition};
pub use store::{
    ClaimRequest, Claims, Due, Ending, Expired, Hint, Instances, Inventory, Limits, Queue, Settlement,
    StopScope, Store, Submission,
};
pub use target_health::{TargetFailure, TargetHealth};
pub use task::{
    ClaimedTask, ComponentKey, Counts, Deployment, DeploymentStatus, Lease, NewTask, NotAToken, Submitted,
    Task, Token,
};
pub use work::{Document, Placement, Skipped, check_document};
pub use worker::{Deployments, RunError, Runner};

#[cfg(test)]
#[path = "../../../tests/support/postgres.rs"]
#[expect(dead_code, reason = "other crates use the rest of this file")]
mod postgres_server;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;
