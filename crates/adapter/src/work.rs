//! What a technology works on: one component, and what is asked of it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::Info;
use crate::access::Ref;
use crate::descriptor::{Component, DataProduct, Identifier, Object, Sent};
use crate::error::Error;

/// One component to work on, with everything a technology may look at.
#[derive(Debug, Clone)]
pub struct Work {
    /// The data product it belongs to.
    pub product: Arc<DataProduct>,
    /// The component itself (possibly nested in another).
    pub component: Arc<Component>,
    /// Witboost environment name.
    pub environment: String,
    /// The last access list that was asked for this component, if ever one was: survives unprovision, so that
    /// provisioning again restores it.
    pub access: Option<AccessList>,
    /// Components of the same document, for what one of them says of another.
    pub neighbours: Neighbours,
    /// What the components in `dependsOn` published, as far as it is known: a component that was never provisioned published
    /// nothing. A component that depends on another of its task is bound again once that one is provisioned.
    pub dependencies: Vec<Dependency>,
    /// Component and data product as they were sent, as JSON: for technologies that ask for it, see
    /// [`Technology::reads_sent`](crate::Technology::reads_sent), and `None` for others.
    pub sent: Option<Sent>,
}

/// A component that another one depends on, whoever provisions it.
#[derive(Debug, Clone, PartialEq)]
pub struct Dependency {
    /// Component id.
    pub id: Identifier,
    /// What it published: in the same task; else what the descriptor says, where the control plane enriched it; else
    /// `latestEnrichedDescriptor`; else Landfall's own inventory.
    pub info: Info,
}

/// The components of a document that are to be provisioned on one target. Cloning shares them.
#[derive(Clone, Default)]
pub struct Neighbours(Arc<Beside>);

#[derive(Default)]
struct Beside {
    /// Their numbers in the data product.
    numbers: Vec<usize>,
    complete: bool,
    index: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Neighbours {
    /// Those with these numbers in their data product. `complete`: no other component of the document goes there.
    pub fn new(numbers: Vec<usize>, complete: bool) -> Self {
        Self(Arc::new(Beside { numbers, complete, index: OnceLock::new() }))
    }

    /// The components, those that are asked for among them.
    pub fn components<'a>(&self, product: &'a DataProduct) -> impl Iterator<Item = &'a Component> {
        self.0.numbers.iter().filter_map(|number| product.components.get(*number))
    }

    /// Whether these are all: what none of them has, the document does not have for this target.
    pub fn are_complete(&self) -> bool {
        self.0.complete
    }

    /// What a technology makes of them, once for all components of the document; `None` when there are none.
    pub fn index<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        if self.0.numbers.is_empty() {
            return None;
        }
        let index = self.0.index.get_or_init(|| Arc::new(make()));
        Arc::clone(index).downcast::<T>().ok()
    }
}

impl std::fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Neighbours").field("numbers", &self.0.numbers).finish_non_exhaustive()
    }
}

impl Work {
    /// The mark that every resource of this component carries.
    pub fn owner(&self) -> Owner {
        Owner { component: self.component.id.to_string(), environment: self.environment.clone() }
    }
}

/// The wanted access, in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessList {
    /// Who may read: `user:...` and `group:...`, sorted, without repetition.
    pub refs: Vec<Ref>,
    /// `accessControlFields` of the request: untrusted, stored and shown, never interpreted.
    pub fields: Object,
}

/// Whose a resource is; written into the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Component id.
    pub component: String,
    /// Witboost environment name.
    pub environment: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "component `{}` in environment `{}`", self.component, self.environment)
    }
}

impl Owner {
    /// The conflict of an update of access for a component that does not exist. A retry does not help.
    pub fn not_provisioned(&self) -> Error {
        Error::conflict(format!("{self} is not provisioned: provision it first"))
    }
}

/// What is asked of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// It exists as described, with the access last asked for.
    Provision,
    /// It is gone; its data too when `remove_data`.
    Unprovision {
        /// Whether the underlying data goes too. Otherwise it is deregistered and kept.
        remove_data: bool,
    },
    /// Exactly [`Work::access`] may read it.
    UpdateAccess,
}
