//! The input of a technology: one component and its surroundings.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::Info;
use crate::access::Ref;
use crate::descriptor::{Component, DataProduct, Identifier, Object, Sent};
use crate::error::Error;

/// One component to work on, with everything that a technology may use.
#[derive(Debug, Clone)]
pub struct Work {
    /// The data product of the component.
    pub product: Arc<DataProduct>,
    /// The component, possibly nested in another one.
    pub component: Arc<Component>,
    /// Witboost environment name.
    pub environment: String,
    /// The access list that was requested last, if any. It survives an unprovision, so the next provisioning
    /// restores it.
    pub access: Option<AccessList>,
    /// Components of the same document, for checks across components.
    pub neighbours: Neighbours,
    /// The published info of the components in `dependsOn`, as far as it is known; a component that was never
    /// provisioned published nothing. A component that depends on another one in its task is bound again
    /// after that one is provisioned.
    pub dependencies: Vec<Dependency>,
    /// The component and the data product as they were sent, as JSON. `None` unless the technology asks for
    /// it with [`Technology::reads_sent`](crate::Technology::reads_sent).
    pub sent: Option<Sent>,
}

/// A component in `dependsOn`, whichever adapter provisions it.
#[derive(Debug, Clone, PartialEq)]
pub struct Dependency {
    /// Component id.
    pub id: Identifier,
    /// Its published info. The first source with info decides: this task, the descriptor,
    /// `latestEnrichedDescriptor`, Landfall's own inventory.
    pub info: Info,
}

/// The components of a document that are provisioned on one target. Clones share them.
#[derive(Clone, Default)]
pub struct Neighbours(Arc<Beside>);

#[derive(Default)]
struct Beside {
    /// Their positions in the data product.
    numbers: Vec<usize>,
    complete: bool,
    index: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Neighbours {
    /// Components at these positions of the data product. `complete`: no other component of the document goes
    /// to the target.
    pub fn new(numbers: Vec<usize>, complete: bool) -> Self {
        Self(Arc::new(Beside { numbers, complete, index: OnceLock::new() }))
    }

    /// The components, including the one that is worked on.
    pub fn components<'a>(&self, product: &'a DataProduct) -> impl Iterator<Item = &'a Component> {
        self.0.numbers.iter().filter_map(|number| product.components.get(*number))
    }

    /// Whether these are all components of the document on this target.
    pub fn are_complete(&self) -> bool {
        self.0.complete
    }

    /// The index that `make` computes, once for the whole document; `None` if there are no components.
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
    /// The owner that marks every resource of this component.
    pub fn owner(&self) -> Owner {
        Owner { component: self.component.id.to_string(), environment: self.environment.clone() }
    }
}

/// The complete wanted access.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessList {
    /// The refs with read access: `user:...` and `group:...`, sorted, without duplicates.
    pub refs: Vec<Ref>,
    /// `accessControlFields` of the request: untrusted, stored and shown, never interpreted.
    pub fields: Object,
}

/// The owner of a resource, which is stored in the target.
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
    /// The conflict of an access update for a component that does not exist. A retry does not help.
    pub fn not_provisioned(&self) -> Error {
        Error::conflict(format!("{self} is not provisioned: provision it first"))
    }
}

/// The wanted state of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// It exists as described, with the access list that was requested last.
    Provision,
    /// It is deregistered; with `remove_data`, its data is deleted, too.
    Unprovision {
        /// Whether the data is deleted; otherwise it is kept.
        remove_data: bool,
    },
    /// Exactly the identities in [`Work::access`] can read it.
    UpdateAccess,
}
