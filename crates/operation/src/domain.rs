//! Parses, places and binds documents within limits, for the service and the worker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::topology::{Installation, Target, Topology};
use landfall_adapter::descriptor::{Identifier, Limits};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{AccessList, Context, Import, Intent, ReverseRequest};

use super::request::SMALL;
use super::target_health::TargetRecorder;
use super::work::{self, Document, Placement, Places, Resolved};
use super::{Deployment, ImportSettings, Instances, Lane, Operation, Store};

/// The longest wait for a technology that asks its target for its capabilities.
const LEARN_LIMIT: Duration = Duration::from_secs(30);

/// Reads documents with the configured targets and within the configured limits. The service and the worker share it.
pub struct Domain {
    /// Targets and routes of the configuration.
    pub installation: Arc<Installation>,
    /// The limits of a descriptor.
    pub limits: Limits,
    /// Limits concurrent parsing, because it takes memory in proportion to the document.
    parsing: Arc<Semaphore>,
    /// A second limit for validations. Users trigger many of them, so validations and accepted work do not wait for
    /// each other.
    validating: Arc<Semaphore>,
    parses: ParseSettings,
    /// Settings of imports.
    pub(super) imports: ImportSettings,
    /// The recorded health of the targets.
    pub(super) recorder: TargetRecorder,
}

/// The limits of concurrent parsing, which also limit its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseSettings {
    /// The limit for validations, and the same limit for accepting and running operations. Dry runs have their own
    /// limit.
    pub concurrency: usize,
    /// The longest wait of a document; then it is refused.
    pub wait: Duration,
}

impl Default for ParseSettings {
    fn default() -> Self {
        Self { concurrency: 4, wait: Duration::from_secs(30) }
    }
}

impl Domain {
    /// Creates the domain. `limits` applies to one document, `parses` to concurrent parsing.
    pub fn new(installation: Installation, limits: Limits, parses: ParseSettings) -> Self {
        let permits = || Arc::new(Semaphore::new(parses.concurrency.max(1)));
        Self {
            installation: Arc::new(installation),
            limits,
            parsing: permits(),
            validating: permits(),
            parses,
            imports: ImportSettings::default(),
            recorder: TargetRecorder::default(),
        }
    }

    /// The same domain with other import settings.
    #[must_use]
    pub fn with_imports(mut self, imports: ImportSettings) -> Self {
        self.imports = imports;
        self
    }

    /// Reads an import request. A descriptor that is sent as text is parsed within the same limits.
    pub(super) async fn import(&self, request: ReverseRequest) -> Result<Import> {
        let length = request.params.get("descriptor").and_then(Value::as_str).map_or(0, str::len);
        let (key, limits) = (self.imports.environment_key.clone(), self.limits);
        if length <= SMALL {
            return Ok(Import::new(request, &key, &limits));
        }
        let permit = self.permit(Some(Operation::Reverse.lane())).await?;
        blocking(move || {
            let _permit = permit;
            Import::new(request, &key, &limits)
        })
        .await
    }

    /// The current topology.
    pub async fn topology(&self, store: &dyn Instances) -> Result<Topology> {
        Ok(Topology::new(Arc::clone(&self.installation), store.instances().await?))
    }

    /// Parses, places and binds a document for a provisioning, or returns every problem. It does not call
    /// [`check`](landfall_adapter::Bound::check).
    pub async fn validate(self: &Arc<Self>, document: &Document, store: &dyn Store) -> Result<Resolved> {
        let lane = Some(Operation::Validate.lane());
        let read = self.read(lane, document, Intent::Provision, None, store, None);
        read.await
    }

    /// Parses, places and checks a document, off the async threads unless it is small. `store` has the instances and
    /// the deployments.
    pub async fn resolve(
        self: &Arc<Self>,
        document: &Document,
        intent: Intent,
        placements: Option<&[Placement]>,
        store: &dyn Store,
        access: Option<&AccessList>,
    ) -> Result<Resolved> {
        let lane = Operation::from(intent).lane();
        self.read(Some(lane), document, intent, placements, store, access).await
    }

    /// Reads a document for a task of that lane; `None` for a dry run, which has its own limit.
    pub(super) async fn read(
        self: &Arc<Self>,
        lane: Option<Lane>,
        document: &Document,
        intent: Intent,
        placements: Option<&[Placement]>,
        store: &dyn Store,
        access: Option<&AccessList>,
    ) -> Result<Resolved> {
        let topology = self.topology(store).await?;
        let small = document.is_small();
        let permit = if small { None } else { self.permit(lane).await? };
        let domain = Arc::clone(self);
        let of_parsing = topology.clone();
        let document = document.clone();
        let placements = placements.map(<[Placement]>::to_vec);
        let accepted = placements.clone();
        // The permit moves with the work: a thread may still parse for a caller that has left.
        let parse = move || {
            let places = accepted.as_deref().map_or(Places::Topology, Places::Fixed);
            let descriptor = work::parse(&document, &intent, &of_parsing, places, &domain.limits);
            let descriptor = descriptor.map(|mut descriptor| {
                let published = work::published(&document, &descriptor, &domain.limits);
                let known = &mut descriptor.product.published;
                for (id, info) in &published {
                    known.entry(id.clone()).or_insert_with(|| info.clone());
                }
                (descriptor, published)
            });
            (descriptor, permit)
        };
        let (descriptor, permit) = if small { parse() } else { blocking(parse).await? };
        let (descriptor, published) = descriptor.map_err(Error::invalid)?;
        // A provisioning also needs the deployments of other components.
        let all = intent == Intent::Provision;
        let components =
            if all { descriptor.product.all_components().collect() } else { descriptor.targets() };
        let ids = components.iter().flat_map(|it| std::iter::once(&it.id).chain(&it.depends_on));
        let ids: BTreeSet<&str> = ids.map(Identifier::as_str).collect();
        let ids = ids.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let deployments: Vec<Deployment> = store.deployments(&ids).await?;
        let access = access.cloned();
        let (descriptor, permit) = if self.installation.targets().iter().all(|it| it.technology.is_known()) {
            (descriptor, permit)
        } else {
            let (topology, deployments) = (topology.clone(), deployments.clone());
            let placements = placements.clone();
            let find = move || {
                let places = placements.as_deref().map_or(Places::Topology, Places::Fixed);
                let targets = work::targets_to_learn(&descriptor, &intent, &topology, places, &deployments);
                (descriptor, targets)
            };
            let (descriptor, targets) = if small { find() } else { blocking(find).await? };
            if targets.is_empty() {
                (descriptor, permit)
            } else {
                // A target that does not answer must not keep others from parsing.
                drop(permit);
                for target in targets {
                    self.learn(&target).await?;
                }
                (descriptor, if small { None } else { self.permit(lane).await? })
            }
        };
        let resolve = move || {
            let _permit = permit;
            let places = placements.as_deref().map_or(Places::Topology, Places::Fixed);
            let mut resolved =
                work::resolve(&descriptor, &intent, &topology, places, &deployments, access.as_ref())?;
            // Only an accepted request needs a digest, to recognise a repetition.
            resolved.digest =
                (lane == Some(Lane::Change) && placements.is_none()).then(|| descriptor.digest());
            resolved.published = published;
            Ok(resolved)
        };
        if small { resolve() } else { blocking(resolve).await? }.map_err(Error::invalid)
    }

    /// Asks the technology of a target for its capabilities, if it does not know them yet.
    pub(super) async fn learn(&self, target: &Target) -> Result<()> {
        if target.technology.is_known() {
            return Ok(());
        }
        let context = Context::default().with_deadline(Instant::now() + LEARN_LIMIT);
        let learned = context.within(target.technology.learn(&context)).await;
        self.recorder.record(&target.code, learned)
    }

    /// Takes all permits, for tests.
    #[cfg(test)]
    pub(super) fn all_permits(&self) -> [OwnedSemaphorePermit; 2] {
        let all = u32::try_from(self.parses.concurrency).unwrap();
        [&self.parsing, &self.validating]
            .map(|permits| Arc::clone(permits).try_acquire_many_owned(all).unwrap())
    }

    /// A permit to parse one document; `None` for a dry run, which has a limit of its own. The wait is limited, and
    /// ends when the caller leaves.
    pub(super) async fn permit(&self, lane: Option<Lane>) -> Result<Option<OwnedSemaphorePermit>> {
        let permits = match lane {
            Some(Lane::Validation) => &self.validating,
            Some(Lane::Change | Lane::Import) => &self.parsing,
            None => return Ok(None),
        };
        match timeout(self.parses.wait, Arc::clone(permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(closed)) => Err(Error::retryable("the server is shutting down").because(closed)),
            Err(_) => Err(Error::overloaded(format!(
                "the limit of {} descriptors that are read at the same time is reached; try again later",
                self.parses.concurrency
            ))),
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    landfall_adapter::blocking::run(move |_| Ok(work())).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sqlite::SqliteStore;
    use crate::topology::Route;
    use landfall_adapter::descriptor::DescriptorKind;
    use landfall_adapter::error::Kind;
    use landfall_adapter::testing::CASHFLOW;
    use landfall_mock::Mock;

    /// Validations and other work do not wait for each other's permits.
    #[tokio::test]
    async fn validations_and_other_work_wait_separately() {
        let mock = Target {
            code: "MOCK".to_owned(),
            group: "mock".to_owned(),
            environments: Vec::new(),
            turns: None,
            technology: Arc::new(Mock::default()),
        };
        let route = Route { group: "mock".to_owned(), ..Route::default() };
        let environments = BTreeMap::from([("production".to_owned(), 1)]);
        let installation = Installation::new(vec![mock], vec![route], environments);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("landfall.db");
        let store = SqliteStore::open(path.to_str().unwrap(), crate::Limits::default()).await.unwrap();
        store.seed_instances(installation.seeds()).await.unwrap();
        let parses = ParseSettings { concurrency: 1, wait: Duration::from_millis(100) };
        let domain = Arc::new(Domain::new(installation, Limits::default(), parses));
        let text = format!("{CASHFLOW}\n#{}\n", " ".repeat(SMALL));
        let document = Document::new(DescriptorKind::DataProduct, text);
        let validate = || tokio::time::timeout(Duration::from_secs(30), domain.validate(&document, &store));
        let resolve = |patience| {
            let read = domain.resolve(&document, Intent::Provision, None, &store, None);
            tokio::time::timeout(patience, read)
        };

        let busy = domain.parsing.acquire().await.unwrap();
        validate().await.unwrap().unwrap();
        assert!(
            resolve(Duration::from_millis(50)).await.is_err(),
            "work of the same lane waits for a permit"
        );
        let refused = resolve(Duration::from_secs(30)).await.unwrap().map(drop).unwrap_err();
        assert_eq!(*refused.kind(), Kind::Overloaded, "the wait is limited");
        assert_eq!(
            refused.to_string(),
            "the limit of 1 descriptors that are read at the same time is reached; try again later"
        );
        let small = Document::new(DescriptorKind::DataProduct, CASHFLOW);
        assert!(small.text.len() <= SMALL);
        domain
            .resolve(&small, Intent::Provision, None, &store, None)
            .await
            .expect("a small document needs no permit");
        drop(busy);
        let _busy = domain.validating.acquire().await.unwrap();
        assert_eq!(resolve(Duration::from_secs(30)).await.unwrap().unwrap().assigned.len(), 3);
    }
}
