//! `landfall plugin check`: plays the life of a component, and names each fault of the program.

use std::time::Duration;

use landfall_adapter::access::Ref;
use landfall_adapter::descriptor::Object;
use landfall_adapter::error::Kind;
use landfall_adapter::{AccessList, Bound, Capabilities, Intent, Technology, Work};
use serde::Serialize;
use serde_json::json;

use super::{Bench, Report, Subject, explained};
use crate::protocol::Verb;
use crate::run::Observed;
use crate::verdict::{CutKind, Exit};

/// When a run is stopped, to see whether the program can be stopped.
const STOP_AFTER: Duration = Duration::from_millis(300);
/// SIGKILL
const KILLED: i32 = 9;

/// A fault of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Fault {
    /// One of the names in the documentation: `no-result`.
    name: &'static str,
    /// The verb in which it was seen.
    verb: &'static str,
    /// What was seen, and what to do.
    message: String,
}

/// What was done, and the faults so far.
struct Session<'a> {
    bench: &'a Bench,
    report: Report,
    done: Vec<String>,
    faults: Vec<Fault>,
}

/// Runs the check. Returns whether no fault was found.
pub(super) async fn run(subject: &Subject, report: Report, timeout: Duration) -> Result<bool, String> {
    let bench = Bench::new(subject, timeout)?;
    let mut session = Session { bench: &bench, report, done: Vec::new(), faults: Vec::new() };
    session.play(subject).await?;
    let Session { done, faults, .. } = session;
    match report {
        Report::Json => println!("{}", json!({ "done": done, "faults": faults })),
        Report::Text if faults.is_empty() => println!("no fault in {} steps", done.len()),
        Report::Text => println!("{} faults", faults.len()),
    }
    Ok(faults.is_empty())
}

impl Session<'_> {
    async fn play(&mut self, subject: &Subject) -> Result<(), String> {
        let context = self.bench.context();
        let learned = self.bench.plugin.learn(&context).await;
        if !self.step("describe", Verb::Describe, learned) {
            return Ok(());
        }
        let capabilities = self.bench.plugin.capabilities();
        let work = self.bench.work(subject)?;
        let keep = Intent::Unprovision { remove_data: false };
        let purge = Intent::Unprovision { remove_data: true };
        let bound = self.bench.bind(&work, Intent::Provision);
        let Ok(bound) = bound else {
            let message = bound.err().as_ref().map(explained).unwrap_or_default();
            return Err(format!(
                "the component does not fit the JSON Schema of the program; give --specific or --descriptor:\n{message}"
            ));
        };
        if bound.has_check() {
            let problems = bound.check(&context).await;
            let found = problems.as_ref().map(Vec::len).unwrap_or_default();
            if self.step("check", Verb::Check, problems.map(drop)) && found > 0 {
                self.fault(
                    "refused",
                    Verb::Check,
                    "it reports problems of the component; give another one".to_owned(),
                );
            }
        }
        if self.provision(&work, "provision", &capabilities).await {
            self.provision(&work, "provision again", &capabilities).await;
            self.access(&work, &capabilities).await;
            self.unprovision(&work, keep, "unprovision, and keep the data").await;
            self.provision(&work, "provision after that", &capabilities).await;
            self.unprovision(&work, purge, "unprovision, and delete the data").await;
            self.unprovision(&work, purge, "unprovision again").await;
            if capabilities.stop {
                self.stop(&work).await;
            }
        }
        self.unprovision(&work, purge, "clean up").await;
        Ok(())
    }

    /// Records a step: faults of its runs, and its failure if there is no other reason.
    fn step(&mut self, what: &str, verb: Verb, result: landfall_adapter::Result<()>) -> bool {
        let before = self.faults.len();
        for observed in self.bench.seen() {
            for (name, message) in faults(&observed) {
                self.fault(name, observed.verb, message);
            }
        }
        if let Err(error) = &result
            && self.faults.len() == before
        {
            let name =
                if error.to_string().contains("does not speak") { "unknown-protocol" } else { "failed" };
            self.fault(name, verb, explained(error));
        }
        self.done.push(what.to_owned());
        if self.report == Report::Text && self.faults.len() == before {
            println!("ok     {what}");
        }
        result.is_ok()
    }

    fn fault(&mut self, name: &'static str, verb: Verb, message: String) {
        let fault = Fault { name, verb: verb.name(), message };
        if self.faults.contains(&fault) {
            return;
        }
        if self.report == Report::Text {
            println!("FAULT  {name} in {}: {}", fault.verb, fault.message);
        }
        self.faults.push(fault);
    }

    async fn provision(&mut self, work: &Work, what: &str, capabilities: &Capabilities) -> bool {
        let context = self.bench.context();
        let provisioned = self.bench.apply(work, Intent::Provision, &context).await;
        if !self.step(what, Verb::Provision, provisioned) {
            return false;
        }
        if capabilities.observes {
            let planned = match self.bench.bind(work, Intent::Provision) {
                Ok(bound) => bound.plan(&context).await,
                Err(error) => Err(error),
            };
            let changes = planned.as_ref().map(|plan| plan.changes.len()).unwrap_or_default();
            if self.step("plan", Verb::Plan, planned.map(drop)) && changes > 0 {
                let message =
                    "the plan is not empty after `provision`: compare with what `provision` makes".to_owned();
                self.fault("plan-not-empty", Verb::Plan, message);
            }
        }
        true
    }

    async fn unprovision(&mut self, work: &Work, intent: Intent, what: &str) {
        let unprovisioned = self.bench.apply(work, intent, &self.bench.context()).await;
        self.step(what, Verb::Unprovision, unprovisioned);
    }

    async fn access(&mut self, work: &Work, capabilities: &Capabilities) {
        if capabilities.access_of(&work.component.kind) == landfall_adapter::AccessMode::None {
            return;
        }
        for (what, refs) in [
            ("grant to two", &["user:alice_example.com", "group:dev"][..]),
            ("revoke from one, grant to another", &["user:bob_example.com", "group:dev"]),
            ("revoke from all", &[]),
        ] {
            let refs = refs.iter().filter_map(|text| Ref::parse(text).ok()).collect();
            let work = Work { access: Some(AccessList { refs, fields: Object::new() }), ..work.clone() };
            let updated = self.bench.apply(&work, Intent::UpdateAccess, &self.bench.context()).await;
            self.step(what, Verb::Access, updated);
        }
    }

    /// Stops a provisioning. A program that is faster has nothing to show.
    async fn stop(&mut self, work: &Work) {
        let context = self.bench.context();
        let cancel = context.cancel.clone();
        let stop = tokio::spawn(async move {
            tokio::time::sleep(STOP_AFTER).await;
            cancel.cancel();
        });
        let stopped = self.bench.apply(work, Intent::Provision, &context).await;
        stop.abort();
        let stopped = match stopped {
            Err(error) if *error.kind() == Kind::Cancelled => Ok(()),
            other => other,
        };
        self.step("stop", Verb::Provision, stopped);
    }
}

/// What is wrong with a run, whatever its result.
fn faults(observed: &Observed) -> Vec<(&'static str, String)> {
    let Observed { said, exit, cut, left, escaped, .. } = observed;
    let mut faults = Vec::new();
    let mut add = |name, message: String| faults.push((name, message));
    match cut {
        Some(CutKind::Overdue) => add("deadline", "it did not end before the deadline".to_owned()),
        Some(CutKind::TooMuch) => {
            add("too-much-output", "it printed more than 64 MiB: print less".to_owned())
        }
        Some(CutKind::LineTooLong) => {
            add("long-line", "it printed a line of more than 1 MiB: print shorter lines".to_owned())
        }
        Some(CutKind::Stopped | CutKind::Unkept) | None => {}
    }
    if cut.is_some() && *exit == Exit::Signal(KILLED) {
        add(
            "ignores-sigterm",
            "it did not end within 3 s after SIGTERM, and was killed: end on SIGTERM".to_owned(),
        );
    }
    if said.stray > 0 {
        add(
            "not-json",
            format!(
                "{} lines on standard output are not of the protocol: print them to standard error",
                said.stray
            ),
        );
    }
    if said.answers > 1 {
        add("two-results", format!("it printed {} results or errors: print exactly one, last", said.answers));
    } else if said.late > 0 {
        add("late-lines", format!("it printed {} lines after its result: print the result last", said.late));
    }
    if cut.is_none() && said.answers == 0 && *exit == Exit::Code(0) {
        add("no-result", "it ended without a result or an error: print one".to_owned());
    }
    if let (Some(crate::verdict::Answer::Result(_)), Exit::Code(code @ 1..)) = (&said.answer, exit) {
        add("exit-code", format!("it printed a result, and ended with exit code {code}: end with 0"));
    }
    // A program that was killed had no chance to wait for its children.
    if cut.is_none() && *left > 0 {
        add("left-process", format!("it left {left} processes, which were killed: wait for children"));
    }
    if *escaped > 0 {
        add(
            "escaped-process",
            format!(
                "it left {escaped} processes outside of its process group, which were killed: start no daemons"
            ),
        );
    }
    faults
}
