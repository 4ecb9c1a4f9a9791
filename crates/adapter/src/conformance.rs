//! The conformance kit: one suite that runs against every technology.
//!
//! A technology provides a [`Subject`]: a fresh target, components to try, and an observation of the target that does
//! not use the technology. [`conforms`] then runs the life cycle of each component (provision, again, changed, access
//! lists, release and back, purge and back) with several disturbances. After each stage it compares the content of
//! the target with the undisturbed run:
//!
//! - every change fails once before it has an effect, and the work is planned again;
//! - every change is applied, then the process "crashes", and the work is planned again;
//! - every change is aborted at each of its awaits in turn, and the work is planned again;
//! - every change is applied twice in a row;
//! - a whole plan is applied again after it is done.
//!
//! Planning again after each failure covers a crash between any two changes. The suite also checks that `plan` and
//! `describe` change nothing, that a plan is empty after it was carried out, the access rules (add and preserve,
//! remove, empty, repeat, restored by unprovision and provision, revocations first), that a resource of another owner
//! is a conflict and stays unchanged, and that cancelled work stops.
//!
//! A technology that cannot observe its target ([`Capabilities::observes`](crate::Capabilities::observes) is false)
//! plans its change each time. For it, the suite requires less: work is done when a whole plan has been applied; the
//! content of access plans is free, and an update of access before a provisioning may succeed. The observations of
//! the subject after each stage must still be equal.
//!
//! Like the engine, the suite gives each component a memory, which lasts until a purge is complete.
//!
//! The suite asserts, so it belongs in tests; it is public so that tests outside this crate can run it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::testing::Directly;
use crate::access::Ref;
use crate::any::AnyTechnology;
use crate::blocking::Scope;
use crate::descriptor::{Object, Problem};
use crate::error::{Error, Kind};
use crate::{AccessList, AccessMode, Action, Change, Context, Found, Intent, Memory, Plan, Work};

/// A plan that is still not empty after this many rounds does not converge.
const MAX_ROUNDS: usize = 200;

/// A technology to test, with its target.
#[async_trait]
pub trait Subject: Sized + Send + Sync {
    /// The technology on an empty target.
    async fn fresh() -> Self;

    /// The technology itself.
    fn technology(&self) -> &dyn AnyTechnology;

    /// Components to try. The suite sets their access lists.
    fn cases(&self) -> Vec<Case>;

    /// The whole content of the target, without what differs between runs (times, random ids, names of files).
    async fn observe(&self) -> Value {
        Value::Null
    }

    /// The refs that have access to the component's resource, according to the target.
    async fn granted(&self, _work: &Work) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Creates a resource of another owner with the name of the component's own. False if that is impossible.
    async fn occupy(&self, _work: &Work) -> bool {
        false
    }
}

/// One component to try.
#[derive(Debug, Clone)]
pub struct Case {
    /// The component at first.
    pub work: Work,
    /// The same component later, with changes that are allowed.
    pub changed: Option<Work>,
}

/// A disturbance of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    None,
    FailBefore,
    CrashAfter,
    CutOff,
    Twice,
    Again,
}

/// Runs the whole suite. Panics at the first rule that does not hold.
pub async fn conforms<S: Subject>() {
    let cases = S::fresh().await.cases();
    assert!(!cases.is_empty(), "a subject has at least one case");
    for case in &cases {
        let undisturbed = life::<S>(case, Disturbance::None).await;
        for disturbance in [
            Disturbance::FailBefore,
            Disturbance::CrashAfter,
            Disturbance::CutOff,
            Disturbance::Twice,
            Disturbance::Again,
        ] {
            let disturbed = life::<S>(case, disturbance).await;
            for ((stage, wanted), (_, found)) in undisturbed.iter().zip(&disturbed) {
                assert_eq!(
                    found,
                    wanted,
                    "{disturbance:?} leads elsewhere in the stage `{stage}` of {}",
                    name(&case.work)
                );
            }
        }
        access_rules::<S>(case).await;
        conflicts::<S>(case).await;
        stops::<S>(case).await;
        unreadable_contracts::<S>(case).await;
    }
}

fn name(work: &Work) -> String {
    work.component.id.to_string()
}

fn list(refs: &[&str]) -> AccessList {
    let mut refs: Vec<Ref> = refs.iter().filter_map(|text| Ref::parse(text).ok()).collect();
    refs.sort();
    AccessList { refs, fields: Object::new() }
}

fn allowing(work: &Work, refs: &[&str]) -> Work {
    Work { access: Some(list(refs)), ..work.clone() }
}

/// Runs the life cycle of a component; returns the content of the target after each stage.
async fn life<S: Subject>(case: &Case, disturbance: Disturbance) -> Vec<(&'static str, Value)> {
    let subject = S::fresh().await;
    let run = Run::new(&subject, disturbance);
    let some = ["user:alice_example.com", "group:developers"];
    let work = allowing(&case.work, &some);
    let changed = allowing(case.changed.as_ref().unwrap_or(&case.work), &some);
    let others = allowing(&changed, &["user:bob_example.com", "group:developers"]);
    let keep = Intent::Unprovision { remove_data: false };
    let purge = Intent::Unprovision { remove_data: true };

    let nothing = subject.observe().await;
    let mut stages = Vec::new();
    run.to_the_end(&work, keep).await;
    run.to_the_end(&work, purge).await;
    assert_eq!(subject.observe().await, nothing, "unprovisioning what is not there changes nothing");
    stages.push(("provision", run.to_the_end(&work, Intent::Provision).await));
    let first = subject.observe().await;
    stages.push(("provision changed", run.to_the_end(&changed, Intent::Provision).await));
    stages.push(("update access", run.to_the_end(&others, Intent::UpdateAccess).await));
    let before = subject.observe().await;
    stages.push(("release", run.to_the_end(&others, keep).await));
    stages.push(("take back", run.to_the_end(&others, Intent::Provision).await));
    assert_eq!(subject.observe().await, before, "a released component is restored unchanged");
    stages.push(("purge", run.to_the_end(&others, purge).await));
    assert_eq!(subject.observe().await, nothing, "a purge leaves nothing");
    stages.push(("provision after purge", run.to_the_end(&work, Intent::Provision).await));
    assert_eq!(subject.observe().await, first, "provisioning again gives what it gave first");
    stages.push(("release once more", run.to_the_end(&work, keep).await));
    stages.push(("purge what was kept", run.to_the_end(&work, purge).await));
    assert_eq!(subject.observe().await, nothing, "a purge of what was kept leaves nothing");
    stages
}

struct Run<'a, S> {
    subject: &'a S,
    disturbance: Disturbance,
    memory: Arc<Remembered>,
}

/// The memory of the component in this run.
#[derive(Default)]
struct Remembered(Mutex<Option<Value>>);

impl Remembered {
    fn set(&self, value: Option<Value>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

#[async_trait]
impl Memory for Remembered {
    async fn recall(&self) -> Result<Option<Value>, Error> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn remember(&self, value: Value) -> Result<(), Error> {
        self.set(Some(value));
        Ok(())
    }
}

impl<'a, S: Subject> Run<'a, S> {
    fn new(subject: &'a S, disturbance: Disturbance) -> Self {
        Self { subject, disturbance, memory: Arc::default() }
    }

    fn context(&self) -> Context {
        Context::default().with_memory(Arc::clone(&self.memory) as Arc<dyn Memory>)
    }

    fn observes(&self) -> bool {
        self.subject.technology().capabilities().observes
    }

    /// Plans and applies until no change is left, and observes the target. A technology that does not observe is done
    /// when it has applied a whole plan.
    async fn to_the_end(&self, work: &Work, intent: Intent) -> Value {
        let technology = self.subject.technology();
        let context = self.context();
        assert_eq!(technology.check(work, &intent), [], "{} passes its check", name(work));
        let mut met: BTreeMap<String, usize> = BTreeMap::new();
        let mut rounds = 0;
        loop {
            let plan = self.look(work, intent).await;
            assert_eq!(plan.unmet, [], "the target of {} can do what is asked", name(work));
            if plan.changes.is_empty() {
                return self.ended(work, intent).await;
            }
            rounds += 1;
            assert!(rounds < MAX_ROUNDS, "{intent:?} of {} does not converge", name(work));
            let whole = self.round(work, &plan, &context, &mut met).await;
            if whole && self.disturbance == Disturbance::Again {
                for change in &plan.changes {
                    self.apply(work, change, &context).await;
                }
            }
            if whole && !self.observes() {
                return self.ended(work, intent).await;
            }
        }
    }

    /// The state after an operation; asserts that `find` agrees, if it knows the state.
    async fn ended(&self, work: &Work, intent: Intent) -> Value {
        let technology = self.subject.technology();
        let bound = technology.bind(work.clone(), intent).map_err(Error::invalid);
        let found = match bound {
            Ok(bound) => bound.find(&self.context()).await,
            Err(error) => Err(error),
        };
        let agrees = match (&found, intent) {
            (Ok(Found::Unknown), _) => true,
            (Ok(Found::Provisioned(names)), Intent::Provision | Intent::UpdateAccess) => !names.is_empty(),
            (Ok(Found::Kept(names)), Intent::Unprovision { remove_data: false }) => !names.is_empty(),
            (Ok(Found::Nothing), Intent::Unprovision { .. }) => true,
            _ => false,
        };
        assert!(agrees, "after {intent:?} of {}, `find` answers {found:?}", name(work));
        match intent {
            Intent::Unprovision { remove_data: true } => self.memory.set(None),
            Intent::Unprovision { remove_data: false } => {}
            Intent::Provision | Intent::UpdateAccess => {
                unwrap(technology.describe(work, &self.context()).await, work, "describing");
            }
        }
        self.subject.observe().await
    }

    /// Applies a plan up to the disturbance; returns whether all of it was applied.
    async fn round(
        &self,
        work: &Work,
        plan: &Plan,
        context: &Context,
        met: &mut BTreeMap<String, usize>,
    ) -> bool {
        for change in &plan.changes {
            let key = format!("{} {} {:?}", change.resource, change.summary, change.step);
            let times = met.entry(key).or_default();
            let new = *times == 0;
            // One more await each time at first, and in larger steps if there are many.
            *times += *times / 2 + 1;
            match self.disturbance {
                Disturbance::CutOff => {
                    if !self.cut_off(work, change, *times).await {
                        return false;
                    }
                }
                Disturbance::FailBefore if new => return false,
                Disturbance::CrashAfter if new => {
                    self.apply(work, change, context).await;
                    return false;
                }
                Disturbance::Twice => {
                    self.apply(work, change, context).await;
                    self.apply(work, change, context).await;
                }
                _ => self.apply(work, change, context).await,
            }
        }
        true
    }

    /// Drops the future of a change after this many polls, and waits until its work has ended; returns whether it was
    /// done before that.
    async fn cut_off(&self, work: &Work, change: &Change, polls: usize) -> bool {
        let (context, scope) = (self.context(), Scope::new(&CancellationToken::new()));
        let technology = self.subject.technology();
        let mut applying = Box::pin(scope.enter(technology.apply(work, change, &context)));
        let mut left = polls;
        let done = poll_fn(|waker| match left.checked_sub(1) {
            None => Poll::Ready(None),
            Some(fewer) => {
                left = fewer;
                applying.as_mut().poll(waker).map(Some)
            }
        })
        .await;
        drop(applying);
        scope.end().await;
        match done {
            Some(Ok(())) => true,
            // Aborted work may delay the next change for a while.
            Some(Err(error)) => {
                let (what, of) = (&change.summary, name(work));
                assert!(
                    error.is_retryable(),
                    "`{what}` of {of} fails after it was cut off: {}",
                    error.report()
                );
                false
            }
            None => false,
        }
    }

    async fn apply(&self, work: &Work, change: &Change, context: &Context) {
        let applied = self.subject.technology().apply(work, change, context).await;
        assert!(
            applied.is_ok(),
            "`{}` of {} fails under {:?}: {}",
            change.summary,
            name(work),
            self.disturbance,
            applied.err().map(|e| e.report()).unwrap_or_default()
        );
    }

    /// Plans and describes, which must change nothing, and returns the plan, which must be the same twice. A
    /// technology that does not observe may have nothing to describe before its first provisioning.
    async fn look(&self, work: &Work, intent: Intent) -> Plan {
        let technology = self.subject.technology();
        let context = self.context();
        let before = self.subject.observe().await;
        let plan = unwrap(technology.plan(work, &intent, &context).await, work, "planning");
        let again = unwrap(technology.plan(work, &intent, &context).await, work, "planning again");
        let described = technology.describe(work, &context).await;
        if self.observes() {
            unwrap(described, work, "describing");
        }
        assert_eq!(plan, again, "planning {} twice gives one plan", name(work));
        assert_eq!(self.subject.observe().await, before, "looking at {} changes nothing", name(work));
        for change in &plan.changes {
            assert!(!change.summary.trim().is_empty() && !change.resource.trim().is_empty());
        }
        plan
    }
}

fn unwrap<T: Default>(result: Result<T, Error>, work: &Work, what: &str) -> T {
    assert!(
        result.is_ok(),
        "{what} {} fails: {}",
        name(work),
        result.as_ref().err().map(Error::report).unwrap_or_default()
    );
    result.unwrap_or_default()
}

/// The access table: the requested list, and the grants and revocations that it needs.
async fn access_rules<S: Subject>(case: &Case) {
    let subject = S::fresh().await;
    let run = Run::new(&subject, Disturbance::None);
    let technology = subject.technology();
    let capabilities = technology.capabilities();
    let keeps_lists = capabilities.access_of(&case.work.component.kind) != AccessMode::None;
    let plans_lists = keeps_lists && capabilities.observes;
    let (alice, bob, dev) = ("user:alice_example.com", "user:bob_example.com", "group:developers");
    let unlisted = Work { access: None, ..case.work.clone() };
    if plans_lists {
        let early = technology
            .plan(&allowing(&case.work, &[alice]), &Intent::UpdateAccess, &Context::default())
            .await;
        assert!(
            early.is_err_and(|e| !e.is_retryable()),
            "access to what is not provisioned cannot be updated"
        );
    }
    run.to_the_end(&unlisted, Intent::Provision).await;
    let mut held: BTreeSet<String> = subject.granted(&case.work).await;
    assert!(held.is_empty(), "only the given principals have access: {held:?}");
    for (what, refs) in [
        ("grant to no principal", vec![]),
        ("grant", vec![alice]),
        ("add and preserve", vec![alice, bob, dev]),
        ("repeat", vec![alice, bob, dev]),
        ("remove", vec![alice, dev]),
        ("replace", vec![bob]),
        ("empty", vec![]),
        ("repeat empty", vec![]),
        ("grant again", vec![dev, alice]),
    ] {
        let work = allowing(&case.work, &refs);
        let plan = run.look(&work, Intent::UpdateAccess).await;
        let wanted: BTreeSet<String> = list(&refs).refs.iter().map(ToString::to_string).collect();
        if plans_lists {
            if wanted == held {
                assert_eq!(plan.changes, [], "{what}: a repeat changes nothing");
            }
            let count = |action| plan.changes.iter().filter(|change| change.action == action).count();
            assert_eq!(
                count(Action::Revoke) > 0,
                held.difference(&wanted).count() > 0,
                "{what}: revocations"
            );
            assert_eq!(count(Action::Grant) > 0, wanted.difference(&held).count() > 0, "{what}: grants");
            let last_revoke = plan.changes.iter().rposition(|change| change.action == Action::Revoke);
            let first_grant = plan.changes.iter().position(|change| change.action == Action::Grant);
            assert!(
                last_revoke.zip(first_grant).is_none_or(|(revoke, grant)| revoke < grant),
                "{what}: revocations come first"
            );
        }
        run.to_the_end(&work, Intent::UpdateAccess).await;
        held = subject.granted(&work).await;
        assert!(!keeps_lists || held == wanted, "{what}: {held:?} have access, {wanted:?} should");
    }
    // Without a requested list the earlier one stays.
    let before = subject.observe().await;
    run.to_the_end(&unlisted, Intent::Provision).await;
    assert_eq!(subject.observe().await, before, "provisioning without a list leaves access as it is");
    // The list of the last request is restored after release and after purge.
    let work = allowing(&case.work, &[alice, dev]);
    for remove_data in [false, true] {
        run.to_the_end(&work, Intent::Unprovision { remove_data }).await;
        run.to_the_end(&work, Intent::Provision).await;
        assert_eq!(subject.granted(&work).await, held, "access is restored after remove_data {remove_data}");
    }
    // Requested while the component was released.
    run.to_the_end(&work, Intent::Unprovision { remove_data: false }).await;
    let work = allowing(&case.work, &[bob]);
    run.to_the_end(&work, Intent::Provision).await;
    let wanted = if keeps_lists { BTreeSet::from([bob.to_owned()]) } else { BTreeSet::new() };
    assert_eq!(subject.granted(&work).await, wanted, "what is taken back has the list asked for now");
}

async fn conflicts<S: Subject>(case: &Case) {
    let subject = S::fresh().await;
    if !subject.occupy(&case.work).await {
        return;
    }
    let before = subject.observe().await;
    let work = allowing(&case.work, &["user:alice_example.com"]);
    for intent in [
        Intent::Provision,
        Intent::UpdateAccess,
        Intent::Unprovision { remove_data: false },
        Intent::Unprovision { remove_data: true },
    ] {
        let planned = subject.technology().plan(&work, &intent, &Context::default()).await;
        assert!(
            planned.as_ref().is_err_and(|e| *e.kind() == Kind::Conflict),
            "{intent:?} of a resource of another owner is a conflict, not {planned:?}"
        );
        let text = planned.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains(&name(&work)), "the conflict names the component: {text}");
    }
    // A plan from before the resource of another owner existed.
    let elsewhere = S::fresh().await;
    let plan = unwrap(
        elsewhere.technology().plan(&work, &Intent::Provision, &Context::default()).await,
        &work,
        "planning",
    );
    for change in &plan.changes {
        let applied = subject.technology().apply(&work, change, &Context::default()).await;
        assert!(applied.is_err(), "`{}` does not change a resource of another owner", change.summary);
    }
    assert_eq!(subject.observe().await, before, "a resource of another owner stays unchanged");
}

/// A technology that uses data contracts refuses one that could not be read; for others an unreadable contract is no
/// contract.
async fn unreadable_contracts<S: Subject>(case: &Case) {
    let subject = S::fresh().await;
    let technology = subject.technology();
    let mut work = case.work.clone();
    let fault = Problem {
        line: Some(1),
        column: Some(1),
        ..Problem::new("dataContract.schema[0].dataType", "unknown data type").remedy("use another")
    };
    Arc::make_mut(&mut work.component).faults.contract.push(fault.clone());
    for intent in [
        Intent::UpdateAccess,
        Intent::Unprovision { remove_data: false },
        Intent::Unprovision { remove_data: true },
    ] {
        assert_eq!(
            technology.check(&work, &intent),
            [],
            "an existing component can be removed, whatever its contract"
        );
    }
    let problems = technology.check(&work, &Intent::Provision);
    if !problems.is_empty() {
        assert!(problems.contains(&fault), "a contract that could not be read is refused with why");
        return;
    }
    let mut without = work.clone();
    Arc::make_mut(&mut without.component).data_contract = None;
    let context = Context::default();
    let plan = unwrap(technology.plan(&work, &Intent::Provision, &context).await, &work, "planning");
    let other = unwrap(technology.plan(&without, &Intent::Provision, &context).await, &work, "planning");
    assert_eq!(plan, other, "an unreadable contract is refused, or has no effect");
}

async fn stops<S: Subject>(case: &Case) {
    let subject = S::fresh().await;
    let technology = subject.technology();
    if !technology.capabilities().stop {
        return;
    }
    let context = Context::default();
    let plan =
        unwrap(technology.plan(&case.work, &Intent::Provision, &context).await, &case.work, "planning");
    let before = subject.observe().await;
    context.cancel.cancel();
    let cancelled = |e: &Error| *e.kind() == Kind::Cancelled;
    let planned = technology.plan(&case.work, &Intent::Provision, &context).await;
    assert!(planned.as_ref().is_err_and(cancelled), "cancelled planning stops");
    if let Some(change) = plan.changes.first() {
        let applied = technology.apply(&case.work, change, &context).await;
        assert!(applied.as_ref().is_err_and(cancelled), "a cancelled change stops");
    }
    assert_eq!(subject.observe().await, before, "cancelled work changes nothing");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, CASHFLOW, STORAGE};
    use crate::{Bound, Capabilities, Info, Kinds, Running, Technology};

    /// The target of a test, with one resource of two parts; `halves` is the number of existing parts.
    #[derive(Clone)]
    struct Thing {
        halves: Arc<Mutex<u8>>,
        /// Whether a partial resource is completed; if not, every operation on a partial resource fails.
        mends: bool,
        /// Whether a plan ignores the resource.
        blind: bool,
    }

    struct Made {
        thing: Thing,
        intent: Intent,
    }

    impl Thing {
        fn halves(&self) -> u8 {
            *self.halves.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn set(&self, halves: u8) {
            *self.halves.lock().unwrap_or_else(PoisonError::into_inner) = halves;
        }
    }

    impl Technology for Thing {
        type Bound = Made;

        fn name(&self) -> &str {
            "thing"
        }

        fn capabilities(&self) -> Capabilities {
            let capabilities = Capabilities::new(Kinds::Any).stoppable(false);
            if self.blind { capabilities.blind() } else { capabilities }
        }

        fn bind(&self, _: Work, intent: Intent) -> Result<Made, Vec<Problem>> {
            Ok(Made { thing: self.clone(), intent })
        }
    }

    #[async_trait]
    impl Bound for Made {
        /// The wanted number of parts.
        type Step = u8;

        async fn plan(&self, _: &Context) -> Result<Plan<u8>, Error> {
            let (found, wanted) = match self.intent {
                Intent::Provision => (self.thing.halves(), 2),
                Intent::Unprovision { .. } => (self.thing.halves(), 0),
                Intent::UpdateAccess => (self.thing.halves(), 2),
            };
            if self.thing.blind {
                let change = Change::new(Action::Run, "thing", format!("run {wanted} halves"), wanted);
                return Ok(Plan::new(vec![change]));
            }
            if found == 1 && !self.thing.mends {
                return Err(Error::permanent("half a thing"));
            }
            let change = Change::new(Action::Alter, "thing", format!("make it {wanted} halves"), wanted);
            Ok(Plan::new(if found == wanted { Vec::new() } else { vec![change] }))
        }

        async fn apply(&self, wanted: &u8, _: &Running) -> Result<(), Error> {
            if self.thing.halves() == 1 && !self.thing.mends {
                return Err(Error::permanent("half a thing"));
            }
            self.thing.set(1);
            tokio::task::yield_now().await;
            self.thing.set(*wanted);
            Ok(())
        }

        async fn describe(&self, _: &Context) -> Result<Info, Error> {
            Ok(Info::default())
        }
    }

    struct Target<const MENDS: bool, const BLIND: bool>(Thing);

    #[async_trait]
    impl<const MENDS: bool, const BLIND: bool> Subject for Target<MENDS, BLIND> {
        async fn fresh() -> Self {
            Self(Thing { halves: Arc::default(), mends: MENDS, blind: BLIND })
        }

        fn technology(&self) -> &dyn AnyTechnology {
            &self.0
        }

        fn cases(&self) -> Vec<Case> {
            vec![Case { work: testing::work(CASHFLOW, STORAGE), changed: None }]
        }

        async fn observe(&self) -> Value {
            Value::from(self.0.halves())
        }
    }

    #[tokio::test]
    async fn changes_that_can_be_aborted_conform() {
        conforms::<Target<true, false>>().await;
    }

    #[tokio::test]
    #[should_panic(expected = "half a thing")]
    async fn finds_a_change_that_cannot_continue_when_cut_off() {
        conforms::<Target<false, false>>().await;
    }

    #[tokio::test]
    async fn technologies_that_do_not_observe_conform() {
        conforms::<Target<true, true>>().await;
    }

    #[tokio::test]
    #[should_panic(expected = "fails after it was cut off: half a thing")]
    async fn finds_faults_without_observation() {
        conforms::<Target<false, true>>().await;
    }
}
