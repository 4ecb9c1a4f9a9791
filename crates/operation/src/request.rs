//! What a task is to do, as it is stored, and what makes two requests the same.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use landfall_adapter::descriptor::Object;
use landfall_adapter::{AccessList, ReverseRequest};

use super::Operation;
use super::work::{Document, Placement};

/// A document of so many bytes is read on the thread that got it, in well under a millisecond: another thread would cost
/// as much again. It takes little memory, and so no permit, either.
pub(super) const SMALL: usize = 8 * 1024;

/// What a task is to do; its payload in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Request {
    /// Say whether the document could be provisioned.
    Validate {
        /// What to look at.
        document: Document,
    },
    /// Make it exist.
    Provision {
        /// What to provision.
        document: Document,
        /// Where.
        placements: Vec<Placement>,
    },
    /// Make it go.
    Unprovision {
        /// What to unprovision.
        document: Document,
        /// Where.
        placements: Vec<Placement>,
        /// Whether the data goes too.
        remove_data: bool,
    },
    /// Let exactly these in.
    UpdateAccess {
        /// What to open.
        document: Document,
        /// Where.
        placements: Vec<Placement>,
        /// To whom.
        access: AccessList,
    },
    /// Read what exists.
    Reverse {
        /// What to read.
        request: ReverseRequest,
        /// Code of the target to read from.
        target: String,
    },
}

impl Request {
    /// What the engine files it under.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Validate { .. } => Operation::Validate,
            Self::Provision { .. } => Operation::Provision,
            Self::Unprovision { .. } => Operation::Unprovision,
            Self::UpdateAccess { .. } => Operation::UpdateAccess,
            Self::Reverse { .. } => Operation::Reverse,
        }
    }

    pub(super) fn placements(&self) -> &[Placement] {
        match self {
            Self::Provision { placements, .. }
            | Self::Unprovision { placements, .. }
            | Self::UpdateAccess { placements, .. } => placements,
            Self::Validate { .. } | Self::Reverse { .. } => &[],
        }
    }

    /// Whether it is serialised and hashed in well under a millisecond.
    pub(super) fn is_small(&self) -> bool {
        match self {
            Self::Validate { document }
            | Self::Provision { document, .. }
            | Self::Unprovision { document, .. } => document.text.len() <= SMALL,
            Self::UpdateAccess { document, access, .. } => {
                document.text.len() <= SMALL && access.refs.len() <= 100 && access.fields.is_empty()
            }
            Self::Reverse { .. } => false,
        }
    }

    /// The same for two requests that ask for the same, whatever process makes it. `digest` is that of the document's
    /// content, where it was read.
    pub(super) fn fingerprint(&self, digest: Option<[u8; 32]>) -> String {
        let mut parts = Parts(Sha256::new());
        parts.text(self.operation().as_str());
        match self {
            Self::Validate { document }
            | Self::Provision { document, .. }
            | Self::Unprovision { document, .. }
            | Self::UpdateAccess { document, .. } => {
                parts.text(document.kind.name());
                match &digest {
                    Some(digest) => parts.bytes(digest),
                    None => parts.text(&document.text),
                }
            }
            Self::Reverse { request, target } => {
                for text in [target, &request.use_case_template_id, &request.environment] {
                    parts.text(text);
                }
                parts.object(&request.params);
                parts.object(&request.catalog_info);
            }
        }
        let mut placements: Vec<&Placement> = self.placements().iter().collect();
        placements.sort_by_key(|placement| &placement.key);
        for Placement { key, target, .. } in placements {
            for text in [&key.component, &key.environment, target] {
                parts.text(text);
            }
        }
        match self {
            Self::Unprovision { remove_data, .. } => parts.bytes(&[u8::from(*remove_data)]),
            Self::UpdateAccess { access, .. } => {
                for reference in &access.refs {
                    parts.text(&reference.to_string());
                }
                parts.object(&access.fields);
            }
            Self::Validate { .. } | Self::Provision { .. } | Self::Reverse { .. } => {}
        }
        parts.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn targets(&self) -> Vec<String> {
        match self {
            Self::Reverse { target, .. } => vec![target.clone()],
            _ => self.placements().iter().map(|placement| placement.target.clone()).collect(),
        }
    }
}

/// A hash of parts. Every part is preceded by its length: no two lists of parts read the same.
struct Parts(Sha256);

impl Parts {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Whatever the order of its keys. JSON that was parsed is not nested too deeply for this.
    fn object(&mut self, object: &Object) {
        let mut entries: Vec<_> = object.iter().collect();
        entries.sort_by_key(|(key, _)| key.as_str());
        self.bytes(&(entries.len() as u64).to_le_bytes());
        for (key, value) in entries {
            self.text(key);
            self.value(value);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(object) => {
                self.text("{");
                self.object(object);
            }
            Value::Array(items) => {
                self.text("[");
                self.bytes(&(items.len() as u64).to_le_bytes());
                for item in items {
                    self.value(item);
                }
            }
            // A text is in quotes there, and so no number.
            scalar => self.text(&scalar.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use landfall_adapter::access::Ref;
    use landfall_adapter::descriptor::DescriptorKind;

    use super::*;

    #[test]
    fn fingerprint_is_of_what_is_asked_for() {
        let object = |text: &str| serde_json::from_str::<Object>(text).unwrap();
        let reverse = |params: &str, target: &str| {
            let request = ReverseRequest {
                use_case_template_id: "urn:t".to_owned(),
                environment: "dev".to_owned(),
                params: object(params),
                catalog_info: object("{}"),
            };
            Request::Reverse { request, target: target.to_owned() }.fingerprint(None)
        };
        let base = reverse(r#"{"a": {"x": 1, "y": [1, 2]}, "b": "2"}"#, "PG");
        assert_eq!(reverse(r#"{ "b": "2", "a": {"y": [1, 2], "x": 1} }"#, "PG"), base, "in another order");
        for (params, target) in [
            (r#"{"a": {"x": 1, "y": [1, 2]}, "b": "2"}"#, "LAKE"),
            (r#"{"a": {"x": 1, "y": [2, 1]}, "b": "2"}"#, "PG"),
            (r#"{"a": {"x": 1, "y": [1, 2]}, "b": 2}"#, "PG"),
            (r#"{"a": {"x": 1, "y": [1, 2], "b": "2"}}"#, "PG"),
        ] {
            assert_ne!(reverse(params, target), base, "{params} {target}");
        }

        let document = |text: &str| Document { kind: DescriptorKind::DataProduct, text: text.to_owned() };
        let place = |component: &str, target: &str| Placement {
            key: crate::ComponentKey::new(component, "dev"),
            target: target.to_owned(),
            path: String::new(),
        };
        let provision = |text: &str, places: &[Placement], digest| {
            Request::Provision { document: document(text), placements: places.to_vec() }.fingerprint(digest)
        };
        let (a, b) = (place("a", "PG"), place("b", "PG"));
        let base = provision("x: 1", &[a.clone(), b.clone()], Some([1; 32]));
        assert_eq!(provision("x: 1 # one", &[b.clone(), a.clone()], Some([1; 32])), base);
        assert_ne!(provision("x: 1", &[a.clone(), b.clone()], Some([2; 32])), base);
        assert_ne!(provision("x: 1", &[a.clone(), place("b", "LAKE")], Some([1; 32])), base);
        let unprovision = |remove_data| {
            let placements = vec![a.clone()];
            Request::Unprovision { document: document("x"), placements, remove_data }
                .fingerprint(Some([1; 32]))
        };
        assert_ne!(unprovision(true), unprovision(false));
        let access = |refs: &[&str], fields: &str| {
            let refs = refs.iter().map(|text| Ref::parse(text).unwrap()).collect();
            let access = AccessList { refs, fields: object(fields) };
            Request::UpdateAccess { document: document("x"), placements: vec![a.clone()], access }
                .fingerprint(Some([1; 32]))
        };
        let base = access(&["group:dev"], "{}");
        assert_ne!(access(&[], "{}"), base);
        assert_ne!(access(&["group:dev"], r#"{"a": 1}"#), base);
        let validate = |text: &str| Request::Validate { document: document(text) }.fingerprint(None);
        assert_ne!(validate("x: 1"), validate("x:  1"), "a verdict names lines and columns");
    }
}
