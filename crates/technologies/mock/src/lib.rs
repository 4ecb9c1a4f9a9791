//! The mock: every operation on every component succeeds, as in the platform's own mock adapter.
//!
//! The mock creates no resource. It has nothing to observe and nothing to compare, so its plan is empty and the
//! operation completes. A repeated operation therefore changes nothing. The notes of the plan name the component and
//! say that nothing was provisioned.
//!
//! To demonstrate slow work and cancellation, [`MockSettings`] can add idle steps to every plan. A repeated operation
//! plans the same steps again, because an idle step leaves no state behind. Use such a target to try Landfall out, not
//! for real components. The mock can write a trace file that records which process ran which step, and when.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Value, json};

use landfall_adapter::blocking::{self, Cancellation};
use landfall_adapter::descriptor::{Object, Problem, names};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::schemars::JsonSchema;
use landfall_adapter::settings::{FileUrl, Span, file_problem};
use landfall_adapter::{
    Action, Bound, Capabilities, Change, Context, Driver, Info, Intent, Kinds, Mistakes, Plan, Running,
    Services, Technology, Work,
};

/// The driver of the mock technology.
#[derive(Debug, Clone, Copy)]
pub struct MockDriver;

impl Driver for MockDriver {
    type Settings = MockSettings;
    type Technology = Mock;

    fn name(&self) -> &'static str {
        "mock"
    }

    fn open(&self, settings: MockSettings, services: &Services<'_>) -> std::result::Result<Mock, Mistakes> {
        if services.will_serve()
            && let Some(trace) = &settings.trace
            && let Some(problem) = file_problem(trace.path())
        {
            return Err(Mistakes::one("trace", problem));
        }
        Ok(Mock::new(settings))
    }
}

/// The idle steps of a mock. The default has none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct MockSettings {
    /// Number of idle steps in every plan.
    pub steps: u32,
    /// Duration of each step. A step ends early when the work is cancelled.
    pub step_delay: Span<0>,
    /// How long a step takes to end after the work is cancelled.
    pub stop_delay: Span<0>,
    /// Whether each step, and the writing of its trace, runs on a blocking thread.
    pub blocking: bool,
    /// Whether running work can be cancelled. If not, a step ignores the request and continues.
    pub stoppable: bool,
    /// A file to which the mock appends a line of JSON when a step begins and when it ends. Several processes may
    /// share the file.
    pub trace: Option<FileUrl>,
}

impl Default for MockSettings {
    fn default() -> Self {
        Self {
            steps: 0,
            step_delay: Span::new(Duration::ZERO),
            stop_delay: Span::new(Duration::ZERO),
            blocking: false,
            stoppable: true,
            trace: None,
        }
    }
}

/// A technology that creates nothing; see the crate documentation.
#[derive(Debug, Clone, Default)]
pub struct Mock {
    settings: MockSettings,
}

impl Mock {
    /// Creates a mock with these settings.
    pub fn new(settings: MockSettings) -> Self {
        Self { settings }
    }

    /// The duration of a step, and how long it takes to end after a cancellation.
    fn delays(&self) -> (Duration, Duration) {
        (self.settings.step_delay.get(), self.settings.stop_delay.get())
    }

    /// Runs a step, and writes its trace, on a blocking thread.
    async fn block(&self, step: Option<Step>, context: &Context) -> Result<()> {
        let MockSettings { stoppable, .. } = self.settings;
        let (step_delay, stop_delay) = self.delays();
        let idle = move |cancellation: Option<&Cancellation>| {
            let trace = |event, done| match &step {
                Some(step) => step.append(event, done).map_err(trace_failed),
                None => Ok(()),
            };
            trace("begin", false)?;
            let idled = match cancellation {
                Some(cancellation) => {
                    cancellation.pause(step_delay).inspect_err(|_| thread::sleep(stop_delay))
                }
                None => {
                    thread::sleep(step_delay);
                    Ok(())
                }
            };
            trace("end", idled.is_ok())?;
            idled
        };
        if !stoppable {
            blocking::run_regardless(move || idle(None)).await
        } else {
            context.blocking(move |cancellation| idle(Some(cancellation))).await
        }
    }
}

impl Technology for Mock {
    type Bound = Mocked;

    fn name(&self) -> &str {
        "mock"
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::new(Kinds::Any).stoppable(self.settings.stoppable);
        if self.settings.steps > 0 { capabilities.blind() } else { capabilities }
    }

    fn bind(&self, work: Work, intent: Intent) -> std::result::Result<Mocked, Vec<Problem>> {
        let contract = work.component.data_contract.as_ref().filter(|_| intent == Intent::Provision);
        let problems = contract.map(|contract| names::in_columns(&contract.schema, "dataContract.schema"));
        match problems {
            Some(problems) if !problems.is_empty() => Err(problems),
            _ => Ok(Mocked { mock: self.clone(), work, intent }),
        }
    }
}

/// A component bound to a mock, with the intent of the operation.
#[derive(Debug)]
pub struct Mocked {
    mock: Mock,
    work: Work,
    intent: Intent,
}

/// The number of an idle step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle(u32);

impl Mocked {
    fn resource(&self) -> String {
        format!("mock `{}`", self.work.component.name)
    }

    fn summary(&self, step: Idle) -> String {
        format!("idle step {} of {}", step.0, self.mock.settings.steps)
    }
}

#[async_trait]
impl Bound for Mocked {
    type Step = Idle;

    async fn plan(&self, context: &Context) -> Result<Plan<Idle>> {
        context.check_cancelled()?;
        let component = &self.work.component;
        let what = match self.intent {
            Intent::Provision => "provisioned",
            Intent::Unprovision { .. } => "unprovisioned",
            Intent::UpdateAccess => "granted or revoked",
        };
        let mut notes = vec![format!("`{}` is a mock: nothing was {what}", component.name)];
        if self.intent == Intent::UpdateAccess || self.work.access.is_some() {
            notes.push("a mock keeps no access list: the list is accepted and ignored".to_owned());
        }
        let steps = (1..=self.mock.settings.steps).map(Idle);
        let changes = steps.map(|step| Change::new(Action::Run, self.resource(), self.summary(step), step));
        Ok(Plan::new(changes.collect()).with_notes(notes))
    }

    async fn apply(&self, step: &Idle, context: &Running) -> Result<()> {
        let MockSettings { stoppable, blocking, .. } = self.mock.settings;
        let (step_delay, stop_delay) = self.mock.delays();
        if stoppable {
            context.check_cancelled()?;
        }
        let trace = self.mock.settings.trace.as_ref().map(FileUrl::path);
        let trace = trace.map(|file| Step::new(file, &self.work, *step, self.intent));
        if blocking {
            self.mock.block(trace, context).await?;
        } else {
            let traced = match trace {
                Some(step) => Some(Traced::begin(step).await?),
                None => None,
            };
            tokio::select! {
                () = tokio::time::sleep(step_delay) => {}
                () = context.cancel.cancelled(), if stoppable => {
                    tokio::time::sleep(stop_delay).await;
                    context.check_cancelled()?;
                }
            }
            if let Some(traced) = traced {
                traced.end().await?;
            }
        }
        context.journal.info(format!("{}: {}", self.resource(), self.summary(*step)));
        Ok(())
    }

    async fn describe(&self, context: &Context) -> Result<Info> {
        context.check_cancelled()?;
        let info =
            Info::default().text("provisionedBy", "Provisioned by", "Landfall's mock: no resource exists");
        Ok(match &self.work.component.technology {
            Some(technology) => info.text("technology", "Technology", technology),
            None => info,
        })
    }
}

/// The name of the intent in a trace.
fn trace_name(intent: Intent) -> &'static str {
    match intent {
        Intent::Provision => "provision",
        Intent::Unprovision { .. } => "unprovision",
        Intent::UpdateAccess => "updateacl",
    }
}

/// A step whose `begin` event is in the trace. The `end` event always follows, also when the step is cancelled or
/// dropped. It is missing only when the process ends during the step.
struct Traced(Arc<Mutex<Step>>);

struct Step {
    file: PathBuf,
    line: Object,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No event is written yet.
    NotBegun,
    Begun,
    /// No further event may be written.
    Ended,
}

fn trace_failed(error: std::io::Error) -> Error {
    Error::retryable("the trace of the mock cannot be written").because(error)
}

impl Traced {
    async fn begin(step: Step) -> Result<Self> {
        let traced = Self(Arc::new(Mutex::new(step)));
        traced.write("begin", Stage::NotBegun, Stage::Begun).await?;
        Ok(traced)
    }

    async fn end(self) -> Result<()> {
        self.write("end", Stage::Begun, Stage::Ended).await
    }

    /// Writes an event on a blocking thread, also after a cancellation. Writes nothing if the step was dropped in the
    /// meantime.
    async fn write(&self, event: &'static str, from: Stage, to: Stage) -> Result<()> {
        let step = Arc::clone(&self.0);
        let write = move || {
            let mut step = step.lock().unwrap_or_else(PoisonError::into_inner);
            if step.stage == from {
                step.append(event, event == "end").map_err(trace_failed)?;
                step.stage = to;
            }
            Ok(())
        };
        blocking::run_regardless(write).await
    }
}

impl Drop for Traced {
    /// Writes the `end` event if the run was cancelled or dropped. `drop` cannot await, so it writes the short
    /// line on this thread.
    fn drop(&mut self) {
        let mut step = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if step.stage == Stage::Begun
            && let Err(error) = step.append("end", false)
        {
            log::error!("the trace of the mock cannot be written: {error}");
        }
        step.stage = Stage::Ended;
    }
}

impl Step {
    fn new(file: &Path, work: &Work, step: Idle, intent: Intent) -> Self {
        let mut line = Object::new();
        line.insert("pid".to_owned(), json!(std::process::id()));
        line.insert("component".to_owned(), json!(work.component.id.to_string()));
        line.insert("environment".to_owned(), json!(work.environment));
        line.insert("intent".to_owned(), json!(trace_name(intent)));
        line.insert("step".to_owned(), json!(step.0));
        if let Some(serial) = work.component.specific.get("serial") {
            line.insert("serial".to_owned(), serial.clone());
        }
        Self { file: file.to_owned(), line, stage: Stage::NotBegun }
    }

    /// Appends the line with one write, so that the lines of several processes are in the order of the events.
    fn append(&self, event: &str, done: bool) -> std::io::Result<()> {
        let mut line = self.line.clone();
        line.insert("event".to_owned(), json!(event));
        if event == "end" {
            line.insert("done".to_owned(), json!(done));
        }
        line.insert("at".to_owned(), json!(Utc::now().timestamp_micros()));
        let text = format!("{}\n", Value::Object(line));
        OpenOptions::new().append(true).create(true).open(&self.file)?.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use landfall_adapter::conformance::{self, Case, Subject};
    use landfall_adapter::testing::{self, Directly};

    struct MockSubject(Mock);

    #[async_trait]
    impl Subject for MockSubject {
        async fn fresh() -> Self {
            Self(Mock::default())
        }

        fn technology(&self) -> &dyn landfall_adapter::any::AnyTechnology {
            &self.0
        }

        fn cases(&self) -> Vec<Case> {
            [testing::PORT, testing::WORKLOAD, testing::STORAGE]
                .map(|id| Case { work: testing::work(testing::CASHFLOW, id), changed: None })
                .into()
        }
    }

    #[tokio::test]
    async fn conforms() {
        conformance::conforms::<MockSubject>().await;
    }

    #[test]
    fn rejects_confusable_columns_only_when_provisioning() {
        let text = testing::CASHFLOW.replace("direction", "\"dire\\u202Ection\"");
        let work = testing::work(&text, testing::PORT);
        let problems: Vec<_> =
            Mock::default().check(&work, &Intent::Provision).iter().map(Problem::to_string).collect();
        assert_eq!(
            problems,
            ["dataContract.schema[1].name: the name has the direction control U+202E: `dire<U+202E>ction`"]
        );
        assert_eq!(Mock::default().check(&work, &Intent::Unprovision { remove_data: true }), []);
    }

    #[tokio::test]
    async fn cancelled_blocking_step_writes_its_end_to_the_trace() {
        let folder = tempfile::tempdir().unwrap();
        let (_, work, file) = traced(&folder, Duration::ZERO);
        let settings = MockSettings {
            steps: 2,
            step_delay: Span::new(Duration::from_secs(60)),
            blocking: true,
            trace: Some(FileUrl::new(&file)),
            ..Default::default()
        };
        let mock = Mock::new(settings);
        let context = Context::default();
        let plan = mock.plan(&work, &Intent::Provision, &context).await.unwrap();
        let stop = context.cancel.clone();
        let (applied, ()) = tokio::join!(mock.apply(&work, &plan.changes[0], &context), async {
            while lines(&file).is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stop.cancel();
        });
        assert_eq!(*applied.unwrap_err().kind(), landfall_adapter::error::Kind::Cancelled);
        let expected = [("begin".to_owned(), 1, None), ("end".to_owned(), 1, Some(false))];
        assert_eq!(lines(&file), expected);
    }

    #[tokio::test]
    async fn cancelled_idle_step_ends_early() {
        let settings =
            MockSettings { steps: 2, step_delay: Span::new(Duration::from_secs(60)), ..Default::default() };
        let mock = Mock::new(settings);
        let work = testing::work(testing::CASHFLOW, testing::WORKLOAD);
        let context = Context::default();
        let plan = mock.plan(&work, &Intent::Provision, &context).await.unwrap();
        assert_eq!(plan.changes.len(), 2);
        let started = Instant::now();
        let stop = context.cancel.clone();
        let (applied, ()) =
            tokio::join!(mock.apply(&work, &plan.changes[0], &context), async move { stop.cancel() });
        assert_eq!(*applied.unwrap_err().kind(), landfall_adapter::error::Kind::Cancelled);
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    /// Every line of the trace, as (event, step, done).
    fn lines(file: &Path) -> Vec<(String, u64, Option<bool>)> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["pid"], std::process::id());
            assert_eq!(line["component"], testing::WORKLOAD);
            assert_eq!(line["environment"], "production");
            assert_eq!(line["intent"], "provision");
            assert_eq!(line["serial"], 7);
            assert!(line["at"].is_i64(), "{line}");
            let event = line["event"].as_str().unwrap().to_owned();
            (event, line["step"].as_u64().unwrap(), line["done"].as_bool())
        };
        text.lines().map(line).collect()
    }

    /// A mock that writes its trace into a folder, and a component with a `serial`.
    fn traced(folder: &tempfile::TempDir, step_delay: Duration) -> (Mock, Work, PathBuf) {
        let file = folder.path().join("trace.jsonl");
        let mock = Mock::new(MockSettings {
            steps: 2,
            step_delay: Span::new(step_delay),
            trace: Some(FileUrl::new(&file)),
            ..Default::default()
        });
        let mut work = testing::work(testing::CASHFLOW, testing::WORKLOAD);
        Arc::make_mut(&mut work.component).specific.insert("serial".to_owned(), json!(7));
        (mock, work, file)
    }

    #[tokio::test]
    async fn trace_has_begin_and_end_of_each_step() {
        let folder = tempfile::tempdir().unwrap();
        let (mock, work, file) = traced(&folder, Duration::ZERO);
        let context = Context::default();
        let plan = mock.plan(&work, &Intent::Provision, &context).await.unwrap();
        assert_eq!(lines(&file), [], "a plan changes nothing");
        for change in &plan.changes {
            mock.apply(&work, change, &context).await.unwrap();
        }
        let (begin, end) = ("begin".to_owned(), "end".to_owned());
        let expected = [(&begin, 1, None), (&end, 1, Some(true)), (&begin, 2, None), (&end, 2, Some(true))];
        assert_eq!(lines(&file), expected.map(|(event, step, done)| (event.clone(), step, done)));
    }

    /// A step that is cancelled, or dropped with its run, has an `end` event with `done` false.
    #[tokio::test]
    async fn interrupted_steps_are_traced_as_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let (mock, work, file) = traced(&folder, Duration::from_secs(60));
        let context = Context::default();
        let plan = mock.plan(&work, &Intent::Provision, &context).await.unwrap();
        let begun = async |lines_before: usize| {
            while lines(&file).len() == lines_before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = mock.apply(&work, &plan.changes[0], &context) => panic!("it takes a minute"),
            () = begun(0) => {}
        }
        let stop = context.cancel.clone();
        let (applied, ()) = tokio::join!(mock.apply(&work, &plan.changes[1], &context), async {
            begun(2).await;
            stop.cancel();
        });
        applied.unwrap_err();
        let (begin, end) = ("begin".to_owned(), "end".to_owned());
        let expected = [(&begin, 1, None), (&end, 1, Some(false)), (&begin, 2, None), (&end, 2, Some(false))];
        assert_eq!(lines(&file), expected.map(|(event, step, done)| (event.clone(), step, done)));
    }

    #[tokio::test]
    async fn unwritable_trace_is_a_transient_failure() {
        let folder = tempfile::tempdir().unwrap();
        let (mock, work, file) = traced(&folder, Duration::ZERO);
        std::fs::create_dir(&file).unwrap();
        let plan = mock.plan(&work, &Intent::Provision, &Context::default()).await.unwrap();
        let error = mock.apply(&work, &plan.changes[0], &Context::default()).await.unwrap_err();
        assert!(error.is_retryable(), "{}", error.report());
    }

    #[tokio::test]
    async fn unstoppable_mock_ignores_cancellation() {
        assert!(Mock::default().capabilities().stop);
        let settings = MockSettings { steps: 1, stoppable: false, ..Default::default() };
        let mock = Mock::new(settings);
        assert!(!mock.capabilities().stop);
        let work = testing::work(testing::CASHFLOW, testing::WORKLOAD);
        let context = Context::default();
        let plan = mock.plan(&work, &Intent::Provision, &context).await.unwrap();
        context.cancel.cancel();
        mock.apply(&work, &plan.changes[0], &context).await.unwrap();
    }
}
