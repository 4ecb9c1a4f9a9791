//! What a technology is going to do, and what it publishes afterwards.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::descriptor::Object;

/// The way from what is to what is wanted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// In the order of application.
    pub changes: Vec<Change>,
    /// Said to the user, whether or not anything changes ("access is recorded, not enforced").
    pub notes: Vec<String>,
}

/// One idempotent step.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The verb.
    pub action: Action,
    /// What it touches, in the target's own terms: `table finance_cashflow_0.cashflow_output_port`.
    pub resource: String,
    /// A sentence for logs and dry runs: "add column `amount` decimal(38, 9)".
    pub summary: String,
    /// Private to the technology: what `apply` needs. Never a secret, and never shown.
    pub detail: Value,
}

/// The verb of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make what does not exist.
    Create,
    /// Change what exists.
    Alter,
    /// Put data in.
    Load,
    /// Take out of the catalog, keep the data.
    Release,
    /// Take back what an earlier unprovision released.
    Restore,
    /// Remove.
    Drop,
    /// Let somebody in.
    Grant,
    /// Let somebody in no longer.
    Revoke,
}

impl Action {
    /// The verb in lower case: `create`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Alter => "alter",
            Self::Load => "load",
            Self::Release => "release",
            Self::Restore => "restore",
            Self::Drop => "drop",
            Self::Grant => "grant",
            Self::Revoke => "revoke",
        }
    }
}

/// `info` of the contract. Nothing private goes in `public`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Info {
    /// Shown in the Marketplace: `{key: {type, label, value, href?}}`.
    pub public: Object,
    /// Kept in the deployed descriptor, not shown.
    pub private: Object,
}
