//! The work of a task: its stored form, and when two requests ask for the same work.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::Value;
use sha2::{Digest, Sha256};

use landfall_adapter::descriptor::Object;
use landfall_adapter::{AccessList, Intent, ReverseRequest};

use super::Operation;
use super::work::{Document, Placement};

/// A document of at most this many bytes is parsed on the calling thread, because this takes well under a
/// millisecond and another thread would cost as much again. It also needs no permit, because it takes little
/// memory.
pub(super) const SMALL: usize = 8 * 1024;

/// The work of a task, with everything that the runner needs for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Report whether the document could be provisioned.
    Validate {
        /// The descriptor to check.
        document: Document,
    },
    /// Change components on their targets.
    Change(ChangeRequest),
    /// Read an existing resource into catalog updates.
    Reverse {
        /// What to read.
        request: ReverseRequest,
        /// Code of the target to read from.
        target: String,
    },
}

/// A change of components: a provision, an unprovision or an update of access, according to its intent.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeRequest {
    /// How the components are changed.
    pub intent: Intent,
    /// The descriptor of the components.
    pub document: Document,
    /// The components to change, and the target of each, as decided when the task was accepted.
    pub placements: Vec<Placement>,
    /// The identities that may read the components; `None` except for [`Intent::UpdateAccess`].
    pub access: Option<AccessList>,
}

impl Request {
    /// The operation of the task.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Validate { .. } => Operation::Validate,
            Self::Change(change) => change.intent.into(),
            Self::Reverse { .. } => Operation::Reverse,
        }
    }

    pub(super) fn placements(&self) -> &[Placement] {
        match self {
            Self::Change(change) => &change.placements,
            Self::Validate { .. } | Self::Reverse { .. } => &[],
        }
    }

    /// Whether it is serialised and hashed in well under a millisecond.
    pub(super) fn is_small(&self) -> bool {
        match self {
            Self::Validate { document } => document.is_small(),
            Self::Change(ChangeRequest { document, access, .. }) => {
                let short = |access: &AccessList| access.refs.len() <= 100 && access.fields.is_empty();
                document.is_small() && access.as_ref().is_none_or(short)
            }
            Self::Reverse { .. } => false,
        }
    }

    /// A hash that is equal for two requests that ask for the same work, in whichever process it is computed.
    /// `digest` is the digest of the document's content, where the document was parsed.
    pub(super) fn fingerprint(&self, digest: Option<[u8; 32]>) -> String {
        let mut parts = Parts(Sha256::new());
        parts.text(self.operation().as_str());
        match self {
            Self::Validate { document } | Self::Change(ChangeRequest { document, .. }) => {
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
        if let Self::Change(ChangeRequest { intent, document, access, .. }) = self {
            if let Intent::Unprovision { remove_data } = intent {
                parts.bytes(&[u8::from(*remove_data)]);
            }
            for (id, info) in &document.published {
                parts.text(id);
                parts.object(&info.public);
                parts.object(&info.private);
            }
            if let Some(access) = access {
                for reference in &access.refs {
                    parts.text(&reference.to_string());
                }
                parts.object(&access.fields);
            }
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

/// The stored form of a request: the payload of its task. The tag is [`Operation::as_str`].
#[derive(Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
enum Stored<'a> {
    Validate {
        document: Cow<'a, Document>,
    },
    Provision {
        document: Cow<'a, Document>,
        placements: Cow<'a, [Placement]>,
    },
    Unprovision {
        document: Cow<'a, Document>,
        placements: Cow<'a, [Placement]>,
        remove_data: bool,
    },
    UpdateAccess {
        document: Cow<'a, Document>,
        placements: Cow<'a, [Placement]>,
        access: Cow<'a, AccessList>,
    },
    Reverse {
        request: Cow<'a, ReverseRequest>,
        target: Cow<'a, str>,
    },
}

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = match self {
            Self::Validate { document } => Stored::Validate { document: Cow::Borrowed(document) },
            Self::Change(ChangeRequest { intent, document, placements, access }) => {
                let (document, placements) = (Cow::Borrowed(document), Cow::Borrowed(placements.as_slice()));
                match intent {
                    Intent::Provision => Stored::Provision { document, placements },
                    Intent::Unprovision { remove_data } => {
                        Stored::Unprovision { document, placements, remove_data: *remove_data }
                    }
                    Intent::UpdateAccess => {
                        let Some(access) = access else {
                            return Err(ser::Error::custom("an update of access without an access list"));
                        };
                        let access = Cow::Borrowed(access);
                        Stored::UpdateAccess { document, placements, access }
                    }
                }
            }
            Self::Reverse { request, target } => {
                Stored::Reverse { request: Cow::Borrowed(request), target: Cow::Borrowed(target) }
            }
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let change = |intent, document: Cow<'_, Document>, placements: Cow<'_, [Placement]>, access| {
            let (document, placements) = (document.into_owned(), placements.into_owned());
            Self::Change(ChangeRequest { intent, document, placements, access })
        };
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Validate { document } => Self::Validate { document: document.into_owned() },
            Stored::Provision { document, placements } => {
                change(Intent::Provision, document, placements, None)
            }
            Stored::Unprovision { document, placements, remove_data } => {
                change(Intent::Unprovision { remove_data }, document, placements, None)
            }
            Stored::UpdateAccess { document, placements, access } => {
                change(Intent::UpdateAccess, document, placements, Some(access.into_owned()))
            }
            Stored::Reverse { request, target } => {
                Self::Reverse { request: request.into_owned(), target: target.into_owned() }
            }
        })
    }
}

/// A hash of parts. Every part is preceded by its length: different lists of parts have different hash inputs.
struct Parts(Sha256);

impl Parts {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Hashes an object, whatever the order of its keys. The recursion is safe, because the parser limits how
    /// deeply JSON is nested.
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
            // A text is in quotes here, so it differs from a number.
            scalar => self.text(&scalar.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use landfall_adapter::Info;
    use landfall_adapter::access::Ref;
    use landfall_adapter::descriptor::DescriptorKind;

    use super::*;

    fn change(
        intent: Intent,
        document: Document,
        places: &[Placement],
        access: Option<AccessList>,
    ) -> Request {
        Request::Change(ChangeRequest { intent, document, placements: places.to_vec(), access })
    }

    #[test]
    fn every_operation_is_stored_under_its_name_and_read_back() {
        let document = || Document::new(DescriptorKind::Component, "x");
        let request = ReverseRequest {
            use_case_template_id: "urn:t".to_owned(),
            environment: "dev".to_owned(),
            params: Object::new(),
            catalog_info: Object::new(),
        };
        let requests = [
            Request::Validate { document: document() },
            change(Intent::Provision, document(), &[], None),
            change(Intent::Unprovision { remove_data: true }, document(), &[], None),
            change(
                Intent::UpdateAccess,
                document(),
                &[],
                Some(AccessList { refs: Vec::new(), fields: Object::new() }),
            ),
            Request::Reverse { request, target: "PG".to_owned() },
        ];
        let operations = requests.each_ref().map(Request::operation);
        assert_eq!(operations, Operation::ALL);
        for request in requests {
            let stored = serde_json::to_value(&request).unwrap();
            assert_eq!(stored.get("operation"), Some(&Value::from(request.operation().as_str())));
            assert_eq!(Request::deserialize(&stored).unwrap(), request);
        }
    }

    #[test]
    fn fingerprint_identifies_the_requested_work() {
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

        let document = |text: &str| Document::new(DescriptorKind::DataProduct, text);
        let place = |component: &str, target: &str| Placement {
            key: crate::ComponentKey::new(component, "dev"),
            target: target.to_owned(),
            path: String::new(),
        };
        let provision = |text: &str, places: &[Placement], digest| {
            change(Intent::Provision, document(text), places, None).fingerprint(digest)
        };
        let (a, b) = (place("a", "PG"), place("b", "PG"));
        let base = provision("x: 1", &[a.clone(), b.clone()], Some([1; 32]));
        assert_eq!(provision("x: 1 # one", &[b.clone(), a.clone()], Some([1; 32])), base);
        assert_ne!(provision("x: 1", &[a.clone(), b.clone()], Some([2; 32])), base);
        assert_ne!(provision("x: 1", &[a.clone(), place("b", "LAKE")], Some([1; 32])), base);
        let unprovision = |remove_data| {
            let intent = Intent::Unprovision { remove_data };
            change(intent, document("x"), std::slice::from_ref(&a), None).fingerprint(Some([1; 32]))
        };
        assert_ne!(unprovision(true), unprovision(false));
        let access = |refs: &[&str], fields: &str| {
            let refs = refs.iter().map(|text| Ref::parse(text).unwrap()).collect();
            let access = AccessList { refs, fields: object(fields) };
            change(Intent::UpdateAccess, document("x"), std::slice::from_ref(&a), Some(access))
                .fingerprint(Some([1; 32]))
        };
        let base = access(&["group:dev"], "{}");
        assert_ne!(access(&[], "{}"), base);
        assert_ne!(access(&["group:dev"], r#"{"a": 1}"#), base);
        let enriched = |value: i32| {
            let info = Info { public: object(&format!(r#"{{"a": {value}}}"#)), private: Object::new() };
            let published = [("b".to_owned(), info)].into();
            let document = Document { published, ..document("x") };
            change(Intent::Provision, document, std::slice::from_ref(&a), None).fingerprint(Some([1; 32]))
        };
        assert_ne!(enriched(1), enriched(2), "what a dependency published decides, too");
        assert_eq!(enriched(1), enriched(1));
        let validate = |text: &str| Request::Validate { document: document(text) }.fingerprint(None);
        assert_ne!(validate("x: 1"), validate("x:  1"), "a verdict names lines and columns");
    }
}
