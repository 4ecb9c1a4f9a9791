use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::sqlite::SqliteStore;
use crate::topology::Route;
use crate::topology::{Installation, Target};
use crate::{DryRunSettings, Engine, Limits, ParseSettings, Service, Settings, State, Submitted, Task};
use landfall_adapter::Change;
use landfall_adapter::any::{AnyStep, AnyTechnology};
use landfall_adapter::descriptor::ComponentKind;
use landfall_adapter::testing::{CASHFLOW, PORT, STORAGE, WORKLOAD};
use landfall_adapter::{Action, Bound, Capabilities, Technology, Work};
use landfall_lakehouse::{Lakehouse, LakehouseSettings};
use landfall_mock::Mock;

fn target(code: &str, technology: Arc<dyn AnyTechnology>) -> Target {
    Target {
        code: code.to_owned(),
        group: code.to_owned(),
        environments: Vec::new(),
        turns: None,
        technology,
    }
}

/// A technology that the test can observe, too.
struct Of<T>(Arc<T>);

/// The service with a lakehouse and a mock, all files in one folder.
async fn embedded(folder: &Path) -> (Service, Arc<Domain>, Arc<dyn Store>) {
    let lake = Lakehouse::new(LakehouseSettings {
        target: "LAKE".to_owned(),
        warehouse: folder.join("warehouse"),
        catalog: folder.join("catalog.db"),
    });
    let s3 = Some("S3".to_owned());
    let installation = Installation::new(
        vec![target("LAKE", Arc::new(lake)), target("MOCK", Arc::new(Mock::default()))],
        vec![
            Route { technology: s3, group: "LAKE".to_owned(), ..Route::default() },
            Route { group: "MOCK".to_owned(), ..Route::default() },
        ],
        environments(),
    );
    serving(folder, installation).await
}

fn dry_runs() -> DryRunSettings {
    DryRunSettings {
        concurrency: 1,
        wait: Duration::from_millis(100),
        limit: Duration::from_millis(500),
        cancel_grace: Duration::from_millis(100),
    }
}

fn environments() -> BTreeMap<String, i64> {
    BTreeMap::from([("development".to_owned(), 10001), ("production".to_owned(), 10002)])
}

async fn serving(folder: &Path, installation: Installation) -> (Service, Arc<Domain>, Arc<dyn Store>) {
    let seeds = installation.seeds();
    let parses = ParseSettings { concurrency: 1, ..ParseSettings::default() };
    let domain = Arc::new(Domain::new(installation, landfall_adapter::descriptor::Limits::default(), parses));
    let path = folder.join("landfall.db");
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(path.to_str().unwrap(), Limits::default()).await.unwrap());
    store.seed_instances(seeds).await.unwrap();
    let runner = Arc::new(TechnologyRunner::new(Arc::clone(&domain), Arc::clone(&store), 4));
    let engine = Engine::start(Arc::clone(&store), runner, Settings::default());
    (Service::new(Arc::clone(&domain), engine, Arc::clone(&store), dry_runs()), domain, store)
}

fn product(text: &str) -> Document {
    Document::new(landfall_adapter::descriptor::DescriptorKind::DataProduct, text)
}

fn component_of(text: &str, id: &str) -> Document {
    let text = format!("dataProduct:\n  {}\ncomponentIdToProvision: {id}", text.replace('\n', "\n  "));
    Document::new(landfall_adapter::descriptor::DescriptorKind::Component, text)
}

fn told(task: &Task) -> Vec<&str> {
    task.logs.iter().map(|line| line.message.as_str()).collect()
}

async fn ended(service: &Service, submitted: Result<Submitted>) -> Task {
    let token = submitted.unwrap().token;
    service.wait(&token, Duration::from_secs(30)).await.unwrap().unwrap()
}

/// Two environments of one data product request the same bucket by name. The second is refused and is removed again,
/// with everything it had created before; the first stays unchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unprovisions_components_that_a_conflict_prevented() {
    let folder = tempfile::tempdir().unwrap();
    let (service, ..) = embedded(folder.path()).await;
    let first = product(CASHFLOW);
    let second = product(&CASHFLOW.replace("environment: production", "environment: development"));
    assert_eq!(ended(&service, service.provision(first.clone()).await).await.state, State::Completed);

    // All checks that are possible run before anything is created.
    let refused = ended(&service, service.provision(second.clone()).await).await;
    assert_eq!(refused.state, State::Failed);
    assert!(refused.reason.as_deref().unwrap().contains("belongs to"));
    let found = format!("nothing was changed in this run: failed while planning {STORAGE}");
    assert!(told(&refused).contains(&found.as_str()), "{refused:?}");
    let tables = folder.path().join("warehouse/tables");
    assert!(!tables.join("finance__cashflow__0__development").exists(), "made in spite of the conflict");

    let port = component_of(&second.text, PORT);
    assert_eq!(ended(&service, service.provision(port).await).await.state, State::Completed);
    assert!(tables.join("finance__cashflow__0__development").exists());

    let intent = Intent::Unprovision { remove_data: true };
    let plans = service.plan(second.clone(), intent, BTreeSet::new()).await.unwrap().components;
    assert_eq!(plans.iter().map(|plan| plan.changes.len()).sum::<usize>(), 1, "{plans:?}");
    for _ in 0..2 {
        let gone = ended(&service, service.unprovision(second.clone(), true).await).await;
        assert_eq!(gone.state, State::Completed, "{:?}", gone.reason);
        assert!(gone.logs.iter().any(|line| line.message.contains("it is not provisioned")), "{gone:?}");
    }
    assert!(!tables.join("finance__cashflow__0__development").exists());
    assert!(folder.path().join("warehouse/buckets/finance-cashflows").exists());
    assert!(tables.join("finance__cashflow__0__production").exists());
}

/// A component moves to another target while its data is kept on the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moved_deployment_names_where_its_data_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let lake = |code: &str| {
        let warehouse = folder.path().join(code);
        let catalog = folder.path().join(format!("{code}.db"));
        target(
            code,
            Arc::new(Lakehouse::new(LakehouseSettings { target: code.to_owned(), warehouse, catalog })),
        )
    };
    let routes = vec![
        Route { technology: Some("S3".to_owned()), group: "FIRST".to_owned(), ..Route::default() },
        Route { group: "SECOND".to_owned(), ..Route::default() },
    ];
    let installation = Installation::new(vec![lake("FIRST"), lake("SECOND")], routes, environments());
    let (service, ..) = serving(folder.path(), installation).await;
    let first = component_of(CASHFLOW, STORAGE);
    let second = component_of(&CASHFLOW.replace("technology: S3", "technology: Other"), STORAGE);
    for (remove_data, expected) in [(false, true), (true, false)] {
        let done = async |document: &Document| {
            let done = ended(&service, service.provision(document.clone()).await).await;
            assert_eq!(done.state, State::Completed, "{:?}", done.reason);
            told(&done).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let back = done(&first).await;
        assert!(!back.iter().any(|line| line.contains("kept on target")), "{back:?}");
        let gone = ended(&service, service.unprovision(first.clone(), remove_data).await).await;
        assert_eq!(gone.state, State::Completed, "{:?}", gone.reason);
        let lines = done(&second).await;
        let note = "data of this component was kept on target `FIRST` (";
        let said = lines.iter().find(|line| line.starts_with(note));
        assert_eq!(said.is_some(), expected, "{lines:?}");
        if let Some(said) = said {
            assert!(said.contains("finance-cashflows"), "{said}");
            let end = "and is not moved: copy it, or provision the component there again to take it back";
            assert!(said.ends_with(end), "{said}");
        }
        let again = done(&second).await;
        assert!(!again.iter().any(|line| line.contains("kept on target")), "{again:?}");
        let gone = ended(&service, service.unprovision(second.clone(), true).await).await;
        assert_eq!(gone.state, State::Completed, "{:?}", gone.reason);
    }
}

/// Resources that depend on one another: a dependency must exist first, and can be removed only when nothing depends
/// on it.
#[derive(Default)]
struct Tower {
    there: std::sync::Mutex<std::collections::BTreeSet<String>>,
    plans: std::sync::atomic::AtomicUsize,
}

impl Technology for Of<Tower> {
    type Bound = Stone;

    fn name(&self) -> &str {
        "tower"
    }

    fn capabilities(&self) -> Capabilities {
        Technology::capabilities(&Mock::default())
    }

    fn bind(&self, work: Work, intent: Intent) -> std::result::Result<Stone, Vec<Problem>> {
        Ok(Stone { tower: Arc::clone(&self.0), work, intent })
    }
}

struct Stone {
    tower: Arc<Tower>,
    work: Work,
    intent: Intent,
}

#[async_trait]
impl Bound for Stone {
    /// Whether it must exist.
    type Step = bool;

    async fn plan(&self, _: &Context) -> Result<Plan<bool>> {
        self.tower.plans.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let there = self.tower.there.lock().unwrap();
        let component = &self.work.component;
        let id = component.id.to_string();
        let wanted = self.intent == Intent::Provision;
        if wanted {
            let missing = component.depends_on.iter().find(|below| !there.contains(below.as_str()));
            if let Some(missing) = missing {
                return Err(Error::permanent(format!("{missing} is not there yet")));
            }
        } else {
            let above =
                self.work.product.all_components().into_iter().find(|other| {
                    there.contains(other.id.as_str()) && other.depends_on.contains(&component.id)
                });
            if let Some(above) = above {
                return Err(Error::conflict(format!("{} stands on it", above.id)));
            }
        }
        let action = if wanted { Action::Create } else { Action::Drop };
        let change = Change::new(action, &id, format!("move {id}"), wanted);
        let changes = if there.contains(&id) == wanted { Vec::new() } else { vec![change] };
        Ok(Plan::new(changes).with_notes(vec!["a stone of the tower".to_owned()]))
    }

    async fn apply(&self, wanted: &bool, _: &Running) -> Result<()> {
        let mut there = self.tower.there.lock().unwrap();
        let id = self.work.component.id.to_string();
        if *wanted {
            there.insert(id)
        } else {
            there.remove(&id)
        };
        Ok(())
    }

    async fn describe(&self, _: &Context) -> Result<Info> {
        Ok(Info::default())
    }
}

/// The early plans are checks only: a plan that waits for a component of the same task is no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_may_wait_for_another_one_of_its_task() {
    let folder = tempfile::tempdir().unwrap();
    let tower = Arc::new(Tower::default());
    let route = Route { group: "TOWER".to_owned(), ..Route::default() };
    let towers = vec![target("TOWER", Arc::new(Of(Arc::clone(&tower))))];
    let (service, ..) = serving(folder.path(), Installation::new(towers, vec![route], environments())).await;
    let plans = || tower.plans.swap(0, std::sync::atomic::Ordering::SeqCst);

    let planned =
        service.plan(product(CASHFLOW), Intent::Provision, BTreeSet::new()).await.unwrap().components;
    let pending: Vec<_> = planned.iter().filter(|plan| plan.pending.is_some()).map(|plan| &plan.id).collect();
    assert_eq!(pending, [WORKLOAD], "a dry run says which one waits, and plans the others");
    plans();

    let done = ended(&service, service.provision(product(CASHFLOW)).await).await;
    assert_eq!(done.state, State::Completed, "{done:?}");
    assert_eq!(tower.there.lock().unwrap().len(), 3);
    assert_eq!(plans(), 6, "each component is planned as a check, and again when its turn comes");
    let notes = told(&done).iter().filter(|line| **line == "a stone of the tower").count();
    assert_eq!(notes, 3, "a plan that only checks says nothing");

    let gone = ended(&service, service.unprovision(product(CASHFLOW), true).await).await;
    assert_eq!(gone.state, State::Completed, "{gone:?}");
    assert_eq!(tower.there.lock().unwrap().len(), 0);
    plans();

    let alone = component_of(CASHFLOW, STORAGE);
    assert_eq!(ended(&service, service.provision(alone).await).await.state, State::Completed);
    assert_eq!(plans(), 1, "of a single component the plan is the check");

    // A dependency that this task will not create is an error, reported before the first change.
    tower.there.lock().unwrap().clear();
    let (early, late) = (component_of(CASHFLOW, WORKLOAD), product(CASHFLOW));
    let refused = ended(&service, service.provision(early).await).await;
    assert_eq!(refused.reason, Some(format!("{STORAGE} is not there yet")));
    assert_eq!(ended(&service, service.provision(late).await).await.state, State::Completed);
}

#[test]
fn early_plan_errors_count_only_if_they_will_hold() {
    let remove = Intent::Unprovision { remove_data: false };
    let conflict = || Error::conflict("theirs");
    for (error, intent, waits, expected) in [
        (conflict(), Intent::Provision, false, true),
        (conflict(), Intent::Provision, true, true),
        (conflict(), remove, false, true),
        (conflict(), remove, true, false),
        (Error::invalid(vec![Problem::new("", "no")]), Intent::Provision, true, true),
        (Error::retryable("away"), Intent::Provision, false, true),
        (Error::retryable("not yet there"), Intent::Provision, true, false),
        (Error::permanent("not there"), Intent::Provision, true, false),
        (Error::cancelled("stopped"), Intent::Provision, true, true),
        (Error::cancelled("stopped"), remove, true, true),
    ] {
        assert_eq!(stands(&error, intent, waits), expected, "{error} {intent:?} {waits}");
    }
}

fn lines(journal: &Journal) -> Vec<String> {
    journal.drain().into_iter().map(|line| line.message).collect()
}

#[test]
fn every_end_reports_changes_made_and_not_made() {
    let changes: Vec<Change> = (1..=9)
        .map(|n| {
            let step = AnyStep::new(n, Intent::Provision);
            Change::new(Action::Alter, "", format!("step {n}"), step)
        })
        .collect();
    let journal = Journal::default();
    let said = |changes: &[Change], made: usize, begun: bool, end: End| {
        let mut progress = ChangeProgress::new(&journal, changes);
        (progress.made, progress.begun, progress.end) = (made, begun, end);
        drop(progress);
        lines(&journal)
    };
    assert_eq!(
        said(&changes, 2, false, End::Stopped),
        [
            "stopped with 2 of 9 changes made: step 1; step 2",
            "not made: step 3; step 4; step 5; step 6; step 7; and 2 more",
        ]
    );
    assert_eq!(
        said(&changes[..3], 1, true, End::Failed),
        ["failed with 1 of 3 changes made: step 1", "not finished: step 2", "not made: step 3"]
    );
    assert_eq!(
        said(&changes[..1], 0, true, End::CutOff),
        ["cut off with 0 of 1 changes made", "not finished: step 1"]
    );
    assert_eq!(said(&changes, 9, false, End::CutOff), [""; 0], "all were made");
    assert_eq!(said(&[], 0, false, End::CutOff), [""; 0], "there was nothing to make");

    let mut long = [changes[0].clone()];
    long[0].summary = "\u{e9}".repeat(5000);
    let line = said(&long, 0, false, End::Stopped).remove(1);
    assert_eq!(line, format!("not made: {}...", "\u{e9}".repeat(120)));
}

#[test]
fn components_done_and_not_begun_are_named() {
    let mock: Arc<dyn AnyTechnology> = Arc::new(Mock::default());
    let target = Arc::new(target("MOCK", mock));
    let assigned: Vec<Assigned> = [PORT, STORAGE, WORKLOAD]
        .map(|id| {
            let work = landfall_adapter::testing::work(CASHFLOW, id);
            let bound = target.technology.bind(work.clone(), Intent::Provision).unwrap();
            Assigned { work, bound, target: Arc::clone(&target), before: None }
        })
        .into();
    let journal = Journal::default();
    let said = |assigned: &[Assigned], stages: &[Stage]| {
        let mut progress = ComponentProgress::new(&journal, assigned);
        for (number, stage) in stages.iter().enumerate() {
            progress.enter(number, *stage);
        }
        // A task that has completed was running before.
        progress.is_working |= stages.contains(&Stage::Done);
        drop(progress);
        lines(&journal)
    };
    let (stopped, failed) = (Stage::Ended(End::Stopped), Stage::Ended(End::Failed));
    assert_eq!(
        said(&assigned, &[Stage::Done, stopped]),
        [
            format!("components done: {PORT}"),
            format!("stopped in: {STORAGE}"),
            format!("not begun: {WORKLOAD}"),
        ]
    );
    assert_eq!(
        said(&assigned, &[failed, Stage::Done, Stage::Working]),
        [
            format!("components done: {STORAGE}"),
            format!("failed in: {PORT}"),
            format!("cut off in: {WORKLOAD}"),
        ]
    );
    let planning = |how: &str| [format!("nothing was changed in this run: {how} while planning {WORKLOAD}")];
    assert_eq!(said(&assigned, &[Stage::NotBegun, Stage::NotBegun, failed]), planning("failed"));
    assert_eq!(said(&assigned, &[Stage::NotBegun, Stage::NotBegun, Stage::Planning]), planning("cut off"));
    assert_eq!(
        said(&assigned, &[]),
        ["components done: none".to_owned(), format!("not begun: {PORT}; {STORAGE}; {WORKLOAD}")]
    );
    assert_eq!(said(&assigned, &[Stage::Done; 3]), [""; 0]);
    assert_eq!(said(&assigned[..1], &[failed]), [""; 0], "one needs no list");
}

/// Takes some time for each component, and records what it did.
#[derive(Default)]
struct Busy {
    now: std::sync::atomic::AtomicUsize,
    most: std::sync::atomic::AtomicUsize,
    events: std::sync::Mutex<Vec<String>>,
    fails: std::sync::Mutex<BTreeMap<String, Error>>,
}

impl Busy {
    fn event(&self, what: &str, name: &str) {
        self.events.lock().unwrap().push(format!("{what} {name}"));
    }
}

impl Technology for Of<Busy> {
    type Bound = Job;

    fn name(&self) -> &str {
        "busy"
    }

    fn capabilities(&self) -> Capabilities {
        Technology::capabilities(&Mock::default())
    }

    fn bind(&self, work: Work, _: Intent) -> std::result::Result<Job, Vec<Problem>> {
        Ok(Job { busy: Arc::clone(&self.0), name: work.component.name.clone() })
    }
}

struct Job {
    busy: Arc<Busy>,
    name: String,
}

#[async_trait]
impl Bound for Job {
    type Step = ();

    async fn plan(&self, _: &Context) -> Result<Plan<()>> {
        let name = &self.name;
        let change = Change::new(Action::Create, name, format!("make {name}"), ());
        Ok(Plan::new(vec![change]).with_notes(vec![format!("a note of {name}")]))
    }

    async fn apply(&self, (): &(), context: &Running) -> Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        let Self { busy, name } = self;
        busy.event("begin", name);
        let now = busy.now.fetch_add(1, SeqCst) + 1;
        busy.most.fetch_max(now, SeqCst);
        context.journal.info(format!("making {name}"));
        let failure = busy.fails.lock().unwrap().remove(name);
        // Those that fail do so before others end.
        tokio::time::sleep(Duration::from_millis(if failure.is_some() { 1 } else { 100 })).await;
        busy.now.fetch_sub(1, SeqCst);
        busy.event("end", name);
        failure.map_or(Ok(()), Err)
    }

    async fn describe(&self, _: &Context) -> Result<Info> {
        Ok(Info::default())
    }
}

/// A data product with these components, `name` or `name<what it depends on,...`.
fn product_of(components: &[&str]) -> Document {
    let component = |text: &&str| {
        let (name, after) = text.split_once('<').unwrap_or((text, ""));
        let after: Vec<_> = after
            .split(',')
            .filter(|it| !it.is_empty())
            .map(|it| format!("'urn:dmb:cmp:f:p:1:{it}'"))
            .collect();
        format!(
            "{{id: 'urn:dmb:cmp:f:p:1:{name}', name: {name}, version: 1.0.0, kind: workload, dependsOn: [{}], specific: {{}}}}",
            after.join(", ")
        )
    };
    let components: Vec<_> = components.iter().map(component).collect();
    product(&format!(
        "{{id: 'urn:dmb:dp:f:p:1', name: P, version: 1.0.0, environment: production, domain: f, components: [{}]}}",
        components.join(", ")
    ))
}

async fn busy(folder: &Path, bound: Option<usize>) -> (Service, Arc<Busy>) {
    let busy = Arc::new(Busy::default());
    let turns = bound.map(|bound| Arc::new(tokio::sync::Semaphore::new(bound)));
    let target = Target { turns, ..target("BUSY", Arc::new(Of(Arc::clone(&busy)))) };
    let route = Route { group: "BUSY".to_owned(), ..Route::default() };
    let installation = Installation::new(vec![target], vec![route], environments());
    (serving(folder, installation).await.0, busy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn independent_components_run_in_parallel_with_grouped_logs() {
    let folder = tempfile::tempdir().unwrap();
    let (service, busy) = busy(folder.path(), None).await;
    let document = product_of(&["last<a,b,c,d", "a", "b<a", "c", "d", "e", "f", "g"]);
    let done = ended(&service, service.provision(document.clone()).await).await;
    assert_eq!(done.state, State::Completed, "{done:?}");
    assert_eq!(busy.most.swap(0, std::sync::atomic::Ordering::SeqCst), 4, "as many as are configured");
    let events = std::mem::take(&mut *busy.events.lock().unwrap());
    let at = |events: &[String], event: &str| events.iter().position(|it| it == event).unwrap();
    for (before, after) in [("end a", "begin b"), ("end b", "begin last"), ("end d", "begin last")] {
        assert!(at(&events, before) < at(&events, after), "{events:?}");
    }
    // Log lines of one component follow each other.
    let mut phases: Vec<_> = done.logs.iter().filter_map(|line| line.phase.clone()).collect();
    phases.dedup();
    assert_eq!(phases.len(), 8, "{phases:?}");

    let gone = ended(&service, service.unprovision(document, true).await).await;
    assert_eq!(gone.state, State::Completed, "{gone:?}");
    let events = std::mem::take(&mut *busy.events.lock().unwrap());
    for (before, after) in [("end b", "begin a"), ("end last", "begin b"), ("end last", "begin d")] {
        assert!(at(&events, before) < at(&events, after), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_limits_its_components() {
    let folder = tempfile::tempdir().unwrap();
    let (service, busy) = busy(folder.path(), Some(2)).await;
    let done = ended(&service, service.provision(product_of(&["a", "b", "c", "d", "e"])).await).await;
    assert_eq!(done.state, State::Completed, "{done:?}");
    assert_eq!(busy.most.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failure_nothing_begins_and_runs_end() {
    let folder = tempfile::tempdir().unwrap();
    let (service, busy) = busy(folder.path(), None).await;
    // A retryable error does not hide a permanent one, and all errors are reported.
    busy.fails.lock().unwrap().extend([
        ("a".to_owned(), Error::retryable("a is away")),
        ("c".to_owned(), Error::permanent("c is wrong")),
        ("d".to_owned(), Error::permanent("d is wrong, too")),
    ]);
    let document = product_of(&["a", "b", "c", "d", "e<d", "f"]);
    let failed = ended(&service, service.provision(document).await).await;
    assert_eq!((failed.state, failed.reason.as_deref()), (State::Failed, Some("c is wrong")));
    let events = busy.events.lock().unwrap().clone();
    for name in ["a", "b", "c", "d"] {
        assert!(events.contains(&format!("end {name}")), "{events:?}");
    }
    assert_eq!(events.len(), 8, "{events:?}");
    let told = told(&failed);
    let of = |names: &str| {
        names.split(' ').map(|name| format!("urn:dmb:cmp:f:p:1:{name}")).collect::<Vec<_>>().join("; ")
    };
    for line in [
        "a is away".to_owned(),
        "d is wrong, too".to_owned(),
        format!("components done: {}", of("b")),
        format!("failed in: {}", of("a c d")),
        format!("not begun: {}", of("e f")),
    ] {
        assert!(told.contains(&line.as_str()), "{line}: {told:#?}");
    }
}

/// A resource that was provisioned and now belongs to another owner is not reported as removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflict_of_a_provisioned_component_fails_unprovision() {
    let folder = tempfile::tempdir().unwrap();
    let (service, ..) = embedded(folder.path()).await;
    let document = product(CASHFLOW);
    assert_eq!(ended(&service, service.provision(document.clone()).await).await.state, State::Completed);
    std::fs::remove_file(folder.path().join("warehouse/buckets/finance-cashflows/.landfall.json")).unwrap();
    let refused = ended(&service, service.unprovision(document, true).await).await;
    assert_eq!(refused.state, State::Failed);
    assert!(refused.reason.unwrap().contains("no ownership mark"));
}

/// A task without an environment of its own stays in the one for which it was accepted, although the component moved
/// to another one while the task waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_task_keeps_its_environment() {
    let folder = tempfile::tempdir().unwrap();
    let (service, domain, store) = embedded(folder.path()).await;
    let text = CASHFLOW.replace("bucket: finance-cashflows", "{}");
    let component =
        |environment: &str| component_of(&text.replace("environment: production", environment), STORAGE);
    let provision = async |environment: &str| {
        let done = ended(&service, service.provision(component(environment)).await).await;
        assert_eq!(done.state, State::Completed, "{:?}", done.reason);
    };
    provision("environment: production").await;
    let (intent, store) = (Intent::Unprovision { remove_data: true }, store.as_ref());
    let accepted = domain.resolve(&component(""), intent, None, store, None).await.unwrap();
    let placements = crate::work::placements(&accepted);
    provision("environment: development").await;

    let resolved =
        domain.resolve(&component(""), intent, Some(placements.as_slice()), store, None).await.unwrap();
    assert_eq!(resolved.assigned[0].work.environment, "production");
    assert!(
        domain.resolve(&component(""), intent, None, store, None).await.is_err(),
        "now it has to be said"
    );
}

/// A target whose plans never return. It reports plans that began and plans that ended.
#[derive(Default)]
struct Silent {
    /// Whether a plan ends when it is cancelled.
    listens: bool,
    away: std::sync::atomic::AtomicBool,
    under_way: Arc<std::sync::atomic::AtomicUsize>,
}

struct UnderWay(Arc<std::sync::atomic::AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Silent {
    async fn reaches(&self, wanted: usize) {
        let reached = async {
            while self.under_way.load(std::sync::atomic::Ordering::SeqCst) != wanted {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.expect("never so many");
    }
}

impl Technology for Of<Silent> {
    type Bound = Of<Silent>;

    fn name(&self) -> &str {
        "silent"
    }

    fn capabilities(&self) -> Capabilities {
        Technology::capabilities(&Mock::default())
    }

    fn bind(&self, _: Work, _: Intent) -> std::result::Result<Self, Vec<Problem>> {
        Ok(Self(Arc::clone(&self.0)))
    }
}

#[async_trait]
impl Bound for Of<Silent> {
    type Step = ();

    async fn plan(&self, context: &Context) -> Result<Plan<()>> {
        use std::sync::atomic::Ordering::SeqCst;
        if self.0.away.load(SeqCst) {
            return Err(Error::retryable("the server does not answer").because("a private cause"));
        }
        self.0.under_way.fetch_add(1, SeqCst);
        let _under_way = UnderWay(Arc::clone(&self.0.under_way));
        if self.0.listens {
            context.cancel.cancelled().await;
            return Err(Error::cancelled("stopped on request"));
        }
        std::future::pending().await
    }

    async fn apply(&self, (): &(), _: &Running) -> Result<()> {
        Ok(())
    }

    async fn describe(&self, _: &Context) -> Result<Info> {
        Ok(Info::default())
    }
}

/// The service with a silent target for the development environment, and a mock for all others.
async fn silent(folder: &Path, listens: bool) -> (Arc<Service>, Arc<Domain>, Arc<Silent>) {
    let silent = Arc::new(Silent { listens, ..Silent::default() });
    let mut targets =
        vec![target("SILENT", Arc::new(Of(Arc::clone(&silent)))), target("MOCK", Arc::new(Mock::default()))];
    targets[0].environments = vec!["development".to_owned()];
    targets[1].environments = vec!["production".to_owned()];
    for target in &mut targets {
        target.group = "all".to_owned();
    }
    let route = Route { group: "all".to_owned(), ..Route::default() };
    let (service, domain, _) = serving(folder, Installation::new(targets, vec![route], environments())).await;
    (Arc::new(service), domain, silent)
}

fn in_development() -> Document {
    product(&CASHFLOW.replace("environment: production", "environment: development"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_of_a_silent_target_ends_at_its_deadline() {
    for listens in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (service, _, silent) = silent(folder.path(), listens).await;
        let dry_run = |document| service.plan(document, Intent::Provision, BTreeSet::new());
        let (overdue, full) = tokio::join!(dry_run(in_development()), async {
            silent.reaches(1).await;
            dry_run(product(CASHFLOW)).await
        });
        let overdue = overdue.unwrap_err();
        assert!(overdue.is_retryable(), "{overdue}");
        assert_eq!(
            overdue.to_string(),
            "the dry run took longer than the 0.5 s of operations.dry_run_limit in target `SILENT` (silent) and \
             was cancelled; try again later"
        );
        let full = full.unwrap_err();
        assert_eq!(*full.kind(), Kind::Overloaded);
        assert_eq!(full.to_string(), "1 dry runs are under way, which is the limit; try again later");
        // Its slot is free when it has ended, whether it reacts to cancellation or is aborted.
        silent.reaches(0).await;
        assert_eq!(dry_run(product(CASHFLOW)).await.unwrap().components.len(), 3);
        let health = service.target_health();
        let known: Vec<_> = health
            .iter()
            .map(|one| (one.code.as_str(), one.technology.as_str(), one.last_success.is_some()))
            .collect();
        assert_eq!(known, [("SILENT", "silent", false), ("MOCK", "mock", true)]);
        assert_eq!(health[0].last_failure.as_ref().unwrap().message, overdue.to_string());
        assert_eq!(health[1].last_failure, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_is_cancelled_when_its_caller_leaves() {
    for listens in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (service, _, silent) = silent(folder.path(), listens).await;
        let caller = tokio::spawn({
            let service = Arc::clone(&service);
            async move { service.plan(in_development(), Intent::Provision, BTreeSet::new()).await }
        });
        silent.reaches(1).await;
        caller.abort();
        silent.reaches(0).await;
        let next = service.plan(product(CASHFLOW), Intent::Provision, BTreeSet::new()).await;
        assert_eq!(next.unwrap().components.len(), 3, "its turn is free");
    }
}

/// A large document takes a permit when it is accepted, and none for a dry run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_runs_take_no_permits_of_accepted_work() {
    let folder = tempfile::tempdir().unwrap();
    let (service, domain, _) = silent(folder.path(), true).await;
    let large = product(&format!("{CASHFLOW}\n#{}\n", " ".repeat(10_000)));
    let _busy = domain.all_permits();
    let planned = service.plan(large, Intent::Provision, BTreeSet::new()).await;
    assert_eq!(planned.unwrap().components.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_that_waits_for_a_permit_stops_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (service, domain, _) = silent(folder.path(), true).await;
    let large = product(&format!("{CASHFLOW}\n#{}\n", " ".repeat(10_000)));
    let busy = domain.all_permits();
    let token = service.submit_validation(large).await.unwrap().token;
    while service.task(&token.to_string()).await.unwrap().unwrap().state == State::Queued {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // By then it waits, or finds that it is stopped.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = std::time::Instant::now();
    service.stop(&token.to_string()).await.unwrap();
    let task = service.wait(&token, Duration::from_secs(30)).await.unwrap().unwrap();
    assert_eq!(task.state, State::Terminated, "{task:?}");
    assert!(asked.elapsed() < Settings::default().cancel_grace / 2, "{task:?}");
    assert!(!told(&task).iter().any(|line| line.contains("cut off")), "{task:?}");
    drop(busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_health_has_the_failures_of_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (service, _, silent) = silent(folder.path(), true).await;
    silent.away.store(true, std::sync::atomic::Ordering::SeqCst);
    let before = Utc::now();
    assert_eq!(service.target_health()[0].last_failure, None);
    let token = service.provision(in_development()).await.unwrap().token;
    let failure = async {
        loop {
            if let Some(failure) = service.target_health().remove(0).last_failure {
                break failure;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let failure = tokio::time::timeout(Duration::from_secs(30), failure).await.unwrap();
    assert_eq!(failure.message, "the server does not answer");
    assert!(failure.at >= before);
    assert_eq!(service.target_health()[0].last_success, None);
    service.stop(&token.to_string()).await.unwrap();
}

/// Requests that differ only in the layout of their document are the same request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_with_the_same_content_join() {
    let folder = tempfile::tempdir().unwrap();
    let (service, _, silent) = silent(folder.path(), true).await;
    let first = service.provision(in_development()).await.unwrap();
    // All three components are planned at once.
    silent.reaches(3).await;
    let text = in_development().text;
    let commented = format!("# a comment\n{}\n", text.replace('\n', "   # and another\n"));
    let tree: Value = serde_yaml::from_str(&text).unwrap();
    let Value::Object(entries) = &tree else { panic!("{tree}") };
    let reversed: landfall_adapter::descriptor::Object =
        entries.iter().rev().map(|(key, value)| (key.clone(), value.clone())).collect();
    let json = serde_json::to_string_pretty(&reversed).unwrap();
    let large = format!("{text}\n#{}\n", " ".repeat(10_000));
    for (what, text) in [("comments", &commented), ("JSON", &json), ("large", &large)] {
        let again = service.provision(product(text)).await.unwrap();
        assert_eq!((again.token, again.deduplicated), (first.token, true), "{what}");
    }
    let other = service.provision(product(&text.replace("version: 0.1.0", "version: 0.1.1"))).await;
    assert_ne!(text, text.replace("version: 0.1.0", "version: 0.1.1"));
    assert!(!other.unwrap().deduplicated);
}

/// Posts a message for each component, which it remembers, and fails once in between.
#[derive(Default)]
struct Poster {
    events: std::sync::Mutex<Vec<String>>,
}

impl Technology for Of<Poster> {
    type Bound = Post;

    fn name(&self) -> &str {
        "poster"
    }

    fn capabilities(&self) -> Capabilities {
        Technology::capabilities(&Mock::default())
    }

    fn reads_sent(&self) -> bool {
        true
    }

    fn bind(&self, work: Work, intent: Intent) -> std::result::Result<Post, Vec<Problem>> {
        Ok(Post { poster: Arc::clone(&self.0), work, intent })
    }
}

struct Post {
    poster: Arc<Poster>,
    work: Work,
    intent: Intent,
}

impl Post {
    fn event(&self, what: &str) {
        self.poster.events.lock().unwrap().push(format!("{what} {}", self.work.component.name));
    }
}

#[async_trait]
impl Bound for Post {
    type Step = ();

    async fn plan(&self, context: &Context) -> Result<Plan<()>> {
        assert!(context.deadline().is_some());
        let posted = context.recall::<String>().await?.as_deref() == Some("posted");
        let wanted = self.intent == Intent::Provision;
        let change = Change::new(Action::Create, &self.work.component.name, "post", ());
        Ok(Plan::new(if posted == wanted { Vec::new() } else { vec![change] }))
    }

    async fn apply(&self, (): &(), context: &Running) -> Result<()> {
        if self.intent != Intent::Provision {
            return Ok(());
        }
        if context.recall::<String>().await?.is_none() {
            context.remember(&"posting").await?;
            self.event("post");
            return Err(Error::retryable("the answer was lost").after(Duration::from_millis(1)));
        }
        self.event("look for");
        context.remember(&"posted").await
    }

    async fn describe(&self, context: &Context) -> Result<Info> {
        for known in &self.work.dependencies {
            let address = &known.info.public["address"]["value"];
            self.event(&format!("{} is at {}, says", known.id, address.as_str().unwrap()));
        }
        let sent = self.work.sent.as_ref().expect("the technology asks for it");
        assert_eq!(sent.component()["name"], *self.work.component.name);
        assert_eq!(sent.product()["components"].as_array().map(Vec::len), Some(2));
        let memory: String = context.recall().await?.unwrap();
        Ok(Info::default().text("address", "Address", format!("{memory} {}", self.work.component.name)))
    }
}

/// The memory is available to the next run and to dry runs until the component is removed. What a component published
/// is available to the components that depend on it, also in a request for them alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_technology_remembers_and_dependencies_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let poster = Arc::new(Poster::default());
    let route = Route { group: "POSTER".to_owned(), ..Route::default() };
    let targets = vec![target("POSTER", Arc::new(Of(Arc::clone(&poster))))];
    let (service, _, store) =
        serving(folder.path(), Installation::new(targets, vec![route], environments())).await;
    let events = || std::mem::take(&mut *poster.events.lock().unwrap());
    let both = product_of(&["a", "b<a"]);
    let one = |name: &str| {
        let Document { text, .. } = product_of(&["a", "b<a"]);
        component_of(&text, &format!("urn:dmb:cmp:f:p:1:{name}"))
    };
    let done = ended(&service, service.provision(one("a")).await).await;
    assert_eq!(done.state, State::Completed, "{done:?}");
    assert_eq!(events(), ["post a", "look for a"], "it is not posted twice");
    let done = ended(&service, service.provision(one("b")).await).await;
    assert_eq!(done.state, State::Completed, "{done:?}");
    assert_eq!(events(), ["post b", "look for b", "urn:dmb:cmp:f:p:1:a is at posted a, says b"]);

    let planned = service.plan(both.clone(), Intent::Provision, BTreeSet::new()).await.unwrap();
    assert!(planned.components.iter().all(|plan| plan.changes.is_empty()), "{planned:?}");
    let key = crate::ComponentKey::new("urn:dmb:cmp:f:p:1:a", "production");
    assert_eq!(store.memory(&key).await.unwrap(), Some(Value::from("posted")));
    for (remove_data, kept) in [(false, true), (true, false)] {
        let gone = ended(&service, service.unprovision(both.clone(), remove_data).await).await;
        assert_eq!(gone.state, State::Completed, "{gone:?}");
        assert_eq!(store.memory(&key).await.unwrap().is_some(), kept);
    }
    events();
    // The results of this task come before what the control plane sends, and that before what is stored.
    let enriched =
        both.text.replace("name: a,", "name: a, info: {publicInfo: {address: {value: elsewhere}}},");
    assert_ne!(enriched, both.text);
    let done = ended(&service, service.provision(product(&enriched)).await).await;
    assert_eq!(done.state, State::Completed, "{done:?}");
    assert!(
        events().contains(&"urn:dmb:cmp:f:p:1:a is at posted a, says b".to_owned()),
        "it was provisioned with it"
    );
    let alone = component_of(&enriched, "urn:dmb:cmp:f:p:1:b");
    let done = ended(&service, service.provision(alone).await).await;
    assert_eq!(done.state, State::Completed, "{done:?}");
    assert_eq!(events(), ["urn:dmb:cmp:f:p:1:a is at elsewhere, says b"]);
}

/// The sources of what a dependency published, each alone, for a component without other sources.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_info_comes_from_the_task_and_from_the_request() {
    let folder = tempfile::tempdir().unwrap();
    let poster = Arc::new(Poster::default());
    let route = Route { group: "POSTER".to_owned(), ..Route::default() };
    let targets = vec![target("POSTER", Arc::new(Of(Arc::clone(&poster))))];
    let (service, _, _) =
        serving(folder.path(), Installation::new(targets, vec![route], environments())).await;
    let both = product_of(&["a", "b<a"]);
    let only_b = || component_of(&both.text, "urn:dmb:cmp:f:p:1:b");
    let says = async |submitted| {
        let done = ended(&service, submitted).await;
        assert_eq!(done.state, State::Completed, "{done:?}");
        let events = std::mem::take(&mut *poster.events.lock().unwrap());
        events.into_iter().filter(|event| event.contains("says")).collect::<Vec<_>>()
    };

    assert_eq!(says(service.provision(only_b()).await).await, [""; 0], "nothing is known of `a`");
    let latest = |address: &str| {
        Some(format!(
            "{{components: [{{id: 'urn:dmb:cmp:f:p:1:a', info: {{publicInfo: {{address: {{value: {address}}}}}}}}}]}}"
        ))
    };
    let enriched = only_b().with_latest(latest("there"));
    assert_eq!(says(service.provision(enriched).await).await, ["urn:dmb:cmp:f:p:1:a is at there, says b"]);
    let large = format!("#{}\n{}", " ".repeat(10_000), latest("far").unwrap());
    let enriched = only_b().with_latest(Some(large));
    assert_eq!(says(service.provision(enriched).await).await, ["urn:dmb:cmp:f:p:1:a is at far, says b"]);
    for unreadable in ["{", "a: [", "17", " "] {
        let enriched = only_b().with_latest(Some(unreadable.to_owned()));
        assert_eq!(says(service.provision(enriched).await).await, [""; 0], "{unreadable}");
    }
    let whole = says(service.provision(both.clone()).await).await;
    assert_eq!(whole, ["urn:dmb:cmp:f:p:1:a is at posted a, says b"]);
}

/// Asks its target whether a component is valid, and does not support every request.
#[derive(Default)]
struct Judge {
    /// The result of a check of a component, by its name; `None`: it never returns.
    verdicts: std::sync::Mutex<BTreeMap<String, Option<Result<Vec<Problem>>>>>,
    unmet: std::sync::Mutex<Vec<Problem>>,
    events: std::sync::Mutex<Vec<String>>,
}

impl Judge {
    fn finds(&self, name: &str, verdict: Option<Result<Vec<Problem>>>) {
        self.verdicts.lock().unwrap().insert(name.to_owned(), verdict);
    }

    fn events(&self) -> Vec<String> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }
}

impl Technology for Of<Judge> {
    type Bound = Judged;

    fn name(&self) -> &str {
        "judge"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(landfall_adapter::Kinds::Any)
            .access(AccessMode::Recorded)
            .access_to(ComponentKind::Workload, AccessMode::Delegated)
            .blind()
    }

    fn bind(&self, work: Work, _: Intent) -> std::result::Result<Judged, Vec<Problem>> {
        Ok(Judged { judge: Arc::clone(&self.0), name: work.component.name.clone() })
    }
}

struct Judged {
    judge: Arc<Judge>,
    name: String,
}

#[async_trait]
impl Bound for Judged {
    type Step = ();

    fn has_check(&self) -> bool {
        true
    }

    async fn check(&self, _: &Context) -> Result<Vec<Problem>> {
        self.judge.events.lock().unwrap().push(format!("check {}", self.name));
        let verdict = self.judge.verdicts.lock().unwrap().remove(&self.name);
        match verdict {
            None => Ok(Vec::new()),
            Some(Some(verdict)) => verdict,
            Some(None) => std::future::pending().await,
        }
    }

    async fn plan(&self, _: &Context) -> Result<Plan<()>> {
        let change = Change::new(Action::Run, &self.name, "run", ());
        Ok(Plan::new(vec![change]).with_unmet(self.judge.unmet.lock().unwrap().clone()))
    }

    async fn apply(&self, (): &(), _: &Running) -> Result<()> {
        self.judge.events.lock().unwrap().push(format!("run {}", self.name));
        Ok(())
    }

    async fn describe(&self, _: &Context) -> Result<Info> {
        Ok(Info::default())
    }
}

async fn judging(folder: &Path) -> (Service, Arc<Judge>) {
    let judge = Arc::new(Judge::default());
    let route = Route { group: "JUDGE".to_owned(), ..Route::default() };
    let targets = vec![target("JUDGE", Arc::new(Of(Arc::clone(&judge))))];
    let (service, ..) = serving(folder, Installation::new(targets, vec![route], environments())).await;
    (service, judge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_on_targets_run_before_any_change() {
    let folder = tempfile::tempdir().unwrap();
    let (service, judge) = judging(folder.path()).await;
    let both = product_of(&["a", "b<a"]);
    let wrong = |what: &str| Some(Ok(vec![Problem::new("specific.size", what)]));
    let told = "2 problems, the first: components[0].specific.size: too large";

    for (kind, way) in [("validate", 0), ("validate later", 1), ("plan", 2), ("provision", 3)] {
        judge.finds("a", wrong("too large"));
        judge.finds("b", wrong("too small"));
        let problems = match way {
            0 => service.validate(both.clone()).await.unwrap_err(),
            2 => service.plan(both.clone(), Intent::Provision, BTreeSet::new()).await.unwrap_err(),
            _ => {
                let submitted = match way {
                    1 => service.submit_validation(both.clone()).await,
                    _ => service.provision(both.clone()).await,
                };
                let done = ended(&service, submitted).await;
                let report: Report = serde_json::from_value(done.outcome.unwrap()).unwrap();
                Error::invalid(report.problems)
            }
        };
        assert_eq!(problems.to_string(), told, "{kind}");
        let mut events = judge.events();
        events.sort();
        assert_eq!(events, ["check a", "check b"], "{kind}: nothing is done");
    }
    // A check that fails decides nothing about the component, whatever the other check found.
    judge.finds("a", Some(Err(Error::retryable("no answer"))));
    let error = service.validate(both.clone()).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string() == "no answer", "{error}");
    judge.finds("b", None);
    let error = service.validate(both.clone()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the validation took longer than the 0.5 s of operations.dry_run_limit in target `JUDGE` (judge) and was cancelled; \
         try again later"
    );
    assert!(error.is_retryable());
    judge.events();

    let done = ended(&service, service.provision(both.clone()).await).await;
    assert_eq!(done.state, State::Completed, "{done:?}");
    let mut events = judge.events();
    events[..2].sort();
    assert_eq!(events, ["check a", "check b", "run a", "run b"]);
    let report: Report = serde_json::from_value(done.outcome.unwrap()).unwrap();
    assert_eq!(
        report.result,
        "provisioned: 2 components, 2 changes; access is passed on, and Landfall does not know whether it is enforced"
    );
    let gone = ended(&service, service.unprovision(both, true).await).await;
    assert_eq!(gone.state, State::Completed, "{gone:?}");
    assert_eq!(judge.events(), ["run b", "run a"], "what was provisioned can go without being asked about");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unmet_requests_fail_the_run_after_its_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (service, judge) = judging(folder.path()).await;
    let one = component_of(&product_of(&["a", "b<a"]).text, "urn:dmb:cmp:f:p:1:a");
    let unknown = Problem::new("specific.reader", "the target does not know the user").value("eve");
    judge.unmet.lock().unwrap().push(unknown);
    let expected = "dataProduct.components[0].specific.reader: the target does not know the user: `eve`";

    let planned = service.plan(one.clone(), Intent::Provision, BTreeSet::new()).await.unwrap();
    let [plan] = planned.components.as_slice() else { panic!("{planned:?}") };
    assert_eq!(plan.access, AccessMode::Delegated);
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(plan.unmet.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    judge.events();

    let failed = ended(&service, service.provision(one).await).await;
    assert_eq!((failed.state, failed.reason.as_deref()), (State::Failed, Some(expected)));
    assert_eq!(judge.events(), ["check a", "run a"]);
}
