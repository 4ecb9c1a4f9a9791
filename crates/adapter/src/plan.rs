//! What a technology is going to do, and what it publishes afterwards.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::any::AnyStep;
use crate::descriptor::Object;

/// The way from what is to what is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<S = AnyStep> {
    /// In the order of application.
    pub changes: Vec<Change<S>>,
    /// Said to the user, whether or not anything changes ("access is recorded, not enforced").
    pub notes: Vec<String>,
}

/// Nothing to change, and nothing to say.
impl<S> Default for Plan<S> {
    fn default() -> Self {
        Self { changes: Vec::new(), notes: Vec::new() }
    }
}

impl<S> Plan<S> {
    pub(crate) fn map<T>(self, with: impl Fn(S) -> T) -> Plan<T> {
        let change = |Change { action, resource, summary, step }| Change {
            action,
            resource,
            summary,
            step: with(step),
        };
        Plan { changes: self.changes.into_iter().map(change).collect(), notes: self.notes }
    }
}

/// One idempotent step.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<S = AnyStep> {
    /// The verb.
    pub action: Action,
    /// What it touches, in the target's own terms: `table finance_cashflow_0.cashflow_output_port`.
    pub resource: String,
    /// A sentence for logs and dry runs: "add column `amount` decimal(38, 9)".
    pub summary: String,
    /// What `apply` needs: see [`Bound::Step`](crate::Bound::Step).
    pub step: S,
}

impl<S> Change<S> {
    /// A change.
    pub fn new(action: Action, resource: impl Into<String>, summary: impl Into<String>, step: S) -> Self {
        Self { action, resource: resource.into(), summary: summary.into(), step }
    }
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

impl Info {
    /// With a text in `public`.
    #[must_use]
    pub fn text(mut self, key: &str, label: &str, value: impl ToString) -> Self {
        let entry = json!({ "type": "string", "label": label, "value": value.to_string() });
        self.public.insert(key.to_owned(), entry);
        self
    }

    /// With a link in `public`, which shows `value` and leads to `href`.
    #[must_use]
    pub fn link(mut self, key: &str, label: &str, value: impl ToString, href: impl ToString) -> Self {
        let entry =
            json!({ "type": "link", "label": label, "value": value.to_string(), "href": href.to_string() });
        self.public.insert(key.to_owned(), entry);
        self
    }

    /// With a value in `private`.
    #[must_use]
    pub fn private(mut self, key: &str, value: impl Serialize) -> Self {
        self.private.insert(key.to_owned(), json!(value));
        self
    }
}
