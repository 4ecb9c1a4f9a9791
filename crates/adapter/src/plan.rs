//! Plans of a technology, and what it publishes afterwards.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::any::AnyStep;
use crate::descriptor::{Object, Problem};

/// The changes that lead from the observed state to the wanted one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Plan<S = AnyStep> {
    /// In the order of application.
    pub changes: Vec<Change<S>>,
    /// Sentences for the user, whether or not anything changes ("access is recorded, not enforced").
    pub notes: Vec<String>,
    /// What the request asks for and the target cannot do, such as access for an identity that it does not know. The
    /// run applies all changes and then fails with these problems, for good. What may become possible by itself is
    /// not among them: then `plan` returns a retryable error.
    pub unmet: Vec<Problem>,
}

/// A plan without changes, notes or problems.
impl<S> Default for Plan<S> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<S> Plan<S> {
    /// A plan with these changes.
    pub fn new(changes: Vec<Change<S>>) -> Self {
        Self { changes, notes: Vec::new(), unmet: Vec::new() }
    }

    /// The same plan with these notes.
    #[must_use]
    pub fn with_notes(mut self, notes: Vec<String>) -> Self {
        self.notes = notes;
        self
    }

    /// The same plan with these problems, which the run fails with after its changes.
    #[must_use]
    pub fn with_unmet(mut self, unmet: Vec<Problem>) -> Self {
        self.unmet = unmet;
        self
    }

    pub(crate) fn map<T>(self, with: impl Fn(S) -> T) -> Plan<T> {
        let change = |Change { action, resource, summary, destructive, parts, step }| Change {
            action,
            resource,
            summary,
            destructive,
            parts,
            step: with(step),
        };
        Plan { changes: self.changes.into_iter().map(change).collect(), notes: self.notes, unmet: self.unmet }
    }
}

/// One idempotent step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Change<S = AnyStep> {
    /// The verb.
    pub action: Action,
    /// The resource that it changes, in the target's own terms: `table finance_cashflow_0.cashflow_output_port`.
    pub resource: String,
    /// A sentence for logs and dry runs: "add column `amount` decimal(38, 9)".
    pub summary: String,
    /// Whether it deletes data that no later provisioning restores.
    pub destructive: bool,
    /// What the step will do, where a tool applies several changes at once: shown, and not applied one by one.
    pub parts: Vec<Part>,
    /// The input of `apply`: see [`Bound::Step`](crate::Bound::Step).
    pub step: S,
}

impl<S> Change<S> {
    /// A change. [`Action::Drop`] is destructive, and other actions are not unless [`Change::destructive`] is called.
    pub fn new(action: Action, resource: impl Into<String>, summary: impl Into<String>, step: S) -> Self {
        let destructive = action == Action::Drop;
        let (resource, summary) = (resource.into(), summary.into());
        Self { action, resource, summary, destructive, parts: Vec::new(), step }
    }

    /// The same change with these parts. It is destructive if one of them is.
    #[must_use]
    pub fn with_parts(mut self, parts: Vec<Part>) -> Self {
        self.destructive |= parts.iter().any(|part| part.destructive);
        self.parts = parts;
        self
    }

    /// The same change, which deletes data for good.
    #[must_use]
    pub fn destructive(mut self) -> Self {
        self.destructive = true;
        self
    }
}

/// A part of a change, in the words of the tool that applies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The verb: `create`.
    pub action: String,
    /// The resource: `table sales.orders`.
    pub resource: String,
    /// A sentence for logs and dry runs, or nothing.
    pub summary: String,
    /// Whether it deletes data that no later provisioning restores.
    pub destructive: bool,
}

/// The verb of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Create what does not exist.
    Create,
    /// Change what exists.
    Alter,
    /// Load data.
    Load,
    /// Remove from the catalog and keep the data.
    Release,
    /// Restore what an earlier unprovision released.
    Restore,
    /// Remove.
    Drop,
    /// Grant read access.
    Grant,
    /// Revoke read access.
    Revoke,
    /// Run something whose effect Landfall cannot observe: a program, or another system's operation.
    Run,
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
            Self::Run => "run",
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
