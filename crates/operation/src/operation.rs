//! The operations, and what differs between them.
//!
//! A new operation is a variant of [`Operation`], its [`Description`], and a stored form in `request`. The compiler
//! then names the places that have to act on it.

use std::fmt;

use landfall_adapter::Intent;

/// The kind of work that a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Report what is wrong with a descriptor.
    Validate,
    /// Create or update components as described.
    Provision,
    /// Remove components.
    Unprovision,
    /// Give read access to a component to exactly the listed identities.
    UpdateAccess,
    /// Read an existing resource into catalog updates.
    Reverse,
}

/// Everything that differs between operations, except the work itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// The persisted name, which is also the tag of the stored request.
    pub name: &'static str,
    /// The lane whose workers run it. Documents are read under the permits of the lane.
    pub lane: Lane,
    /// The configuration key of the operation's own run limit.
    pub run_limit: &'static str,
    /// The `operationId` by which `pluginOperations` of an instance allow it. `None` where the operation works on
    /// what was provisioned: the instance cannot forbid it.
    pub plugin_operation: Option<&'static str>,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 5] =
        [Self::Validate, Self::Provision, Self::Unprovision, Self::UpdateAccess, Self::Reverse];

    /// What differs from other operations.
    pub const fn description(self) -> Description {
        match self {
            Self::Validate => Description {
                name: "validate",
                lane: Lane::Validation,
                run_limit: "operations.run_limits.validate",
                plugin_operation: Some("provision"),
            },
            Self::Provision => Description {
                name: "provision",
                lane: Lane::Change,
                run_limit: "operations.run_limits.provision",
                plugin_operation: Some("provision"),
            },
            Self::Unprovision => Description {
                name: "unprovision",
                lane: Lane::Change,
                run_limit: "operations.run_limits.unprovision",
                plugin_operation: None,
            },
            Self::UpdateAccess => Description {
                name: "update-access",
                lane: Lane::Change,
                run_limit: "operations.run_limits.updateacl",
                plugin_operation: None,
            },
            Self::Reverse => Description {
                name: "reverse",
                lane: Lane::Import,
                run_limit: "operations.run_limits.reverse",
                plugin_operation: Some("reverseProvision"),
            },
        }
    }

    /// The persisted name.
    pub const fn as_str(self) -> &'static str {
        self.description().name
    }

    /// Reads a persisted name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == text)
    }

    /// The lane whose workers run it.
    pub const fn lane(self) -> Lane {
        self.description().lane
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The operation that applies an intent.
impl From<Intent> for Operation {
    fn from(intent: Intent) -> Self {
        match intent {
            Intent::Provision => Self::Provision,
            Intent::Unprovision { .. } => Self::Unprovision,
            Intent::UpdateAccess => Self::UpdateAccess,
        }
    }
}

/// A queue with its own workers, so that interactive requests never wait for long work. A client polls the tasks of
/// each lane with a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Operations that change targets.
    Change,
    /// Validations: pure and fast.
    Validation,
    /// Reverse provisioning: it reads from targets, so it is slower than a validation and must not delay one.
    Import,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 3] = [Self::Change, Self::Validation, Self::Import];

    /// The persisted name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Validation => "validation",
            Self::Import => "import",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn operations_have_distinct_names_and_limits() {
        let of = |field: fn(Description) -> &'static str| {
            Operation::ALL.map(|it| field(it.description())).into_iter().collect::<HashSet<_>>().len()
        };
        assert_eq!(of(|it| it.name), Operation::ALL.len());
        assert_eq!(of(|it| it.run_limit), Operation::ALL.len());
        for operation in Operation::ALL {
            assert_eq!(Operation::parse(operation.as_str()), Some(operation));
        }
        assert_eq!(Operation::parse("Validate"), None);
    }
}
