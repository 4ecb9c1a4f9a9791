//! Checks the trace of the mock against the promises of Landfall. This module uses no code of Landfall.
//!
//! The lines of a trace are in the order of the events, independent of any clock, because each line is one write in
//! append mode. A test that kills or freezes a process adds a line for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Begin {
        pid: u32,
        component: String,
        serial: u64,
        step: u64,
    },
    End {
        pid: u32,
        component: String,
        serial: u64,
        step: u64,
        done: bool,
    },
    /// The test wrote this line after the process ended.
    Killed {
        pid: u32,
    },
    /// The test wrote this line after the process was stopped. Other processes may take over its task. The step
    /// that was under way ends after the process resumes.
    Frozen {
        pid: u32,
    },
}

/// Reads a trace. A missing file has no lines.
pub(crate) fn read(file: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("no line of a trace: {line}"))).collect()
}

fn parse(line: &str) -> Option<Event> {
    let line: Value = serde_json::from_str(line).ok()?;
    let pid = line["pid"].as_u64()?.try_into().ok()?;
    let event = line["event"].as_str()?;
    match event {
        "killed" => return Some(Event::Killed { pid }),
        "frozen" => return Some(Event::Frozen { pid }),
        _ => {}
    }
    let component = line["component"].as_str()?.to_owned();
    let (serial, step) = (line["serial"].as_u64()?, line["step"].as_u64()?);
    match event {
        "begin" => Some(Event::Begin { pid, component, serial, step }),
        "end" => Some(Event::End { pid, component, serial, step, done: line["done"].as_bool()? }),
        _ => None,
    }
}

/// Adds a line for a killed process. Call this after the process has ended.
pub(crate) fn note_killed(file: &Path, pid: u32) {
    note(file, pid, "killed");
}

/// Adds a line for a frozen process. Call this after the process is stopped.
pub(crate) fn note_frozen(file: &Path, pid: u32) {
    note(file, pid, "frozen");
}

fn note(file: &Path, pid: u32, event: &str) {
    use std::io::Write as _;
    let line = format!("{}\n", json!({ "pid": pid, "event": event }));
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).expect("the trace");
    file.write_all(line.as_bytes()).expect("the trace");
}

/// The accepted serials of each component, in the order of acceptance. They ascend.
pub(crate) type Accepted = BTreeMap<String, Vec<u64>>;

/// The result of the check of a trace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Descriptions of broken promises. A correct trace has none.
    pub(crate) violations: Vec<String>,
    /// Runs that finished all steps.
    pub(crate) whole_runs: usize,
    /// Runs that ended earlier: the process ended, or the engine stopped them.
    pub(crate) cut_runs: usize,
    /// Steps that a process was about to begin when it was frozen, and began after another process took over.
    pub(crate) late_steps: usize,
}

/// The state of the work on a component.
#[derive(Default)]
struct Work {
    /// The step under way: process, serial, step.
    open: Option<(u32, u64, u64)>,
    /// Whether that process was frozen during the step.
    frozen: bool,
    /// Steps of frozen processes whose task another process took over.
    passed: Vec<(u32, u64, u64)>,
    /// The last finished step, if nothing else happened since. A run may continue only from there.
    last: Option<(u32, u64, u64)>,
    /// The latest serial that has begun.
    latest: u64,
    /// Serials all of whose steps were done in one run.
    whole: BTreeSet<u64>,
}

/// Checks a trace against the accepted serials. Each run has `steps` steps.
pub(crate) fn judge(trace: &[Event], accepted: &Accepted, steps: u64) -> Verdict {
    let mut verdict = Verdict::default();
    let mut works: BTreeMap<&str, Work> = BTreeMap::new();
    // For each process that was frozen: the components on which it has begun a step since.
    let mut thawed: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    let violations = &mut verdict.violations;
    for event in trace {
        match event {
            Event::Begin { pid, component, serial, step } => {
                let first = thawed.get_mut(pid).is_some_and(|begun| begun.insert(component));
                let work = works.entry(component).or_default();
                let is_place_lost = *step != 1 && work.last != Some((*pid, *serial, step - 1));
                let is_wrong =
                    (work.open.is_some() && !work.frozen) || is_place_lost || *serial < work.latest;
                if first && is_wrong {
                    // The process checked its lease, was frozen, and then began the step. No check can exclude a pause
                    // between check and step. Before a second step the process has to check its lease again.
                    work.passed.push((*pid, *serial, *step));
                    verdict.late_steps += 1;
                    continue;
                }
                let here = || format!("{component}: process {pid}, serial {serial}, step {step}");
                if work.frozen {
                    work.passed.extend(work.open.take());
                }
                if let Some((other, other_serial, other_step)) = work.open {
                    violations.push(format!(
                        "two at once: {} begins in step {other_step} of serial {other_serial} by process {other}",
                        here()
                    ));
                }
                if !accepted.get(component).is_some_and(|serials| serials.contains(serial)) {
                    violations.push(format!("never asked for: {}", here()));
                }
                if *serial < work.latest {
                    violations.push(format!("out of order: {} begins after serial {}", here(), work.latest));
                }
                if is_place_lost {
                    violations.push(format!("goes on where it had lost its place: {}", here()));
                }
                if *step == 1 && work.last.is_some_and(|(_, _, last)| last != steps) {
                    verdict.cut_runs += 1;
                }
                work.latest = work.latest.max(*serial);
                work.open = Some((*pid, *serial, *step));
                work.frozen = false;
                work.last = None;
            }
            Event::End { pid, component, serial, step, done } => {
                let work = works.entry(component).or_default();
                if let Some(index) = work.passed.iter().position(|passed| *passed == (*pid, *serial, *step)) {
                    work.passed.remove(index);
                    verdict.cut_runs += 1;
                    continue;
                }
                if work.open != Some((*pid, *serial, *step)) {
                    violations.push(format!(
                        "ends what is not under way: {component}: process {pid}, serial {serial}, step {step}"
                    ));
                }
                work.open = None;
                work.frozen = false;
                work.last = done.then_some((*pid, *serial, *step));
                if !done {
                    verdict.cut_runs += 1;
                } else if *step == steps {
                    verdict.whole_runs += 1;
                    work.whole.insert(*serial);
                }
            }
            Event::Frozen { pid } => {
                // A process that is frozen during a step checks its lease again before the next step.
                let begun = thawed.entry(*pid).or_default();
                begun.clear();
                for (component, work) in &mut works {
                    if work.open.is_some_and(|(owner, ..)| owner == *pid) {
                        work.frozen = true;
                        begun.insert(component);
                    }
                }
            }
            Event::Killed { pid } => {
                for work in works.values_mut() {
                    work.passed.retain(|(owner, ..)| owner != pid);
                    let of_it = |step: Option<(u32, u64, u64)>| step.is_some_and(|(owner, ..)| owner == *pid);
                    if of_it(work.open) {
                        work.open = None;
                        verdict.cut_runs += 1;
                    }
                    if of_it(work.last) && work.last.is_some_and(|(_, _, last)| last != steps) {
                        work.last = None;
                        verdict.cut_runs += 1;
                    }
                }
            }
        }
    }
    for (component, work) in &works {
        if let Some((pid, serial, step)) = work.open {
            violations.push(format!(
                "never ends: {component}: process {pid}, serial {serial}, step {step}, and no kill is recorded"
            ));
        }
    }
    for (component, serials) in accepted {
        assert!(serials.is_sorted_by(|a, b| a < b), "{component}: serials ascend: {serials:?}");
        let whole = works.get(component.as_str()).map(|work| &work.whole);
        for serial in serials {
            if !whole.is_some_and(|whole| whole.contains(serial)) {
                violations.push(format!("lost: {component}: serial {serial} was accepted and never done"));
            }
        }
    }
    verdict
}

mod tests {
    use super::*;

    const STEPS: u64 = 2;

    fn begin(pid: u32, serial: u64, step: u64) -> Event {
        Event::Begin { pid, component: "c".to_owned(), serial, step }
    }

    fn end(pid: u32, serial: u64, step: u64) -> Event {
        Event::End { pid, component: "c".to_owned(), serial, step, done: true }
    }

    fn stopped(pid: u32, serial: u64, step: u64) -> Event {
        Event::End { pid, component: "c".to_owned(), serial, step, done: false }
    }

    /// A complete run by process `pid`.
    fn run(pid: u32, serial: u64) -> Vec<Event> {
        vec![begin(pid, serial, 1), end(pid, serial, 1), begin(pid, serial, 2), end(pid, serial, 2)]
    }

    fn judge_component(trace: &[Vec<Event>], serials: &[u64]) -> Verdict {
        judge(&trace.concat(), &Accepted::from([("c".to_owned(), serials.to_vec())]), STEPS)
    }

    /// Asserts the kinds of the violations. A kind is the text before the colon.
    #[track_caller]
    fn finds(trace: &[Vec<Event>], serials: &[u64], kinds: &[&str]) {
        let verdict = judge_component(trace, serials);
        let found: Vec<_> =
            verdict.violations.iter().map(|text| text.split(':').next().unwrap_or_default()).collect();
        assert_eq!(found, kinds, "{verdict:#?}");
    }

    #[test]
    fn ordered_runs_by_different_processes_are_accepted() {
        let verdict = judge_component(&[run(1, 1), run(2, 2), run(1, 3)], &[1, 2, 3]);
        assert_eq!(verdict, Verdict { violations: vec![], whole_runs: 3, cut_runs: 0, late_steps: 0 });
    }

    #[test]
    fn interrupted_run_may_restart_from_its_first_step() {
        let killed = vec![begin(1, 1, 1), end(1, 1, 1), begin(1, 1, 2), Event::Killed { pid: 1 }];
        let between = vec![begin(2, 1, 1), end(2, 1, 1), Event::Killed { pid: 2 }];
        let told = vec![begin(3, 1, 1), stopped(3, 1, 1)];
        let verdict = judge_component(&[killed, between, told, run(4, 1), run(5, 1)], &[1]);
        assert_eq!(verdict, Verdict { violations: vec![], whole_runs: 2, cut_runs: 3, late_steps: 0 });
    }

    #[test]
    fn frozen_process_may_only_finish_its_step() {
        let frozen = vec![begin(1, 1, 1), Event::Frozen { pid: 1 }];
        let on_time = vec![end(1, 1, 1), begin(1, 1, 2), end(1, 1, 2)];
        finds(&[frozen.clone(), on_time], &[1], &[]);
        let zombie = vec![begin(2, 1, 1), end(1, 1, 1), end(2, 1, 1), begin(2, 1, 2), end(2, 1, 2)];
        finds(&[frozen.clone(), zombie.clone()], &[1], &[]);
        let undead = vec![begin(1, 1, 2), end(1, 1, 2)];
        finds(&[frozen.clone(), zombie, undead], &[1], &["goes on where it had lost its place"]);
        // Only the frozen process is excused.
        finds(
            &[frozen, vec![begin(2, 1, 1)], run(3, 1), vec![end(2, 1, 1)]],
            &[1],
            &["two at once", "ends what is not under way"],
        );
    }

    /// The process is frozen between the check of its lease and the step. Only that step may be late.
    #[test]
    fn frozen_process_may_begin_one_late_step() {
        let frozen = vec![begin(1, 1, 1), end(1, 1, 1), Event::Frozen { pid: 1 }];
        let late = vec![
            begin(2, 1, 1),
            begin(1, 1, 2),
            stopped(1, 1, 2),
            end(2, 1, 1),
            begin(2, 1, 2),
            end(2, 1, 2),
        ];
        let verdict = judge_component(&[frozen.clone(), late.clone()], &[1]);
        assert_eq!((verdict.violations, verdict.late_steps), (vec![], 1));
        finds(
            &[frozen.clone(), late.clone(), vec![begin(1, 1, 2), stopped(1, 1, 2)]],
            &[1],
            &["goes on where it had lost its place"],
        );
        // No exception applies to the next run of a process that was frozen.
        finds(&[frozen, late, run(2, 2), run(1, 3)], &[1, 2, 3], &[]);
        let unfrozen =
            vec![begin(1, 1, 1), end(1, 1, 1), begin(2, 1, 1), end(2, 1, 1), begin(1, 1, 2), end(1, 1, 2)];
        finds(&[unfrozen, run(2, 1)], &[1], &["goes on where it had lost its place"]);
    }

    #[test]
    fn concurrent_runs_are_reported() {
        // A step begins during the step of another process, of the same serial and of different serials.
        finds(
            &[vec![begin(1, 1, 1), begin(2, 1, 1), end(2, 1, 1), end(1, 1, 1)], run(1, 1)],
            &[1],
            &["two at once", "ends what is not under way"],
        );
        finds(
            &[vec![begin(1, 1, 1), begin(2, 2, 1), end(2, 2, 1), begin(2, 2, 2), end(2, 2, 2)]],
            &[1, 2],
            &["two at once", "lost"],
        );
        // A kill excuses only the steps of the killed process.
        finds(&[vec![begin(1, 1, 1), Event::Killed { pid: 9 }], run(2, 1)], &[1], &["two at once"]);
    }

    /// No steps overlap, but two runs are under way at once.
    #[test]
    fn interleaved_runs_are_reported() {
        let interleaved =
            vec![begin(1, 1, 1), end(1, 1, 1), begin(2, 1, 1), end(2, 1, 1), begin(1, 1, 2), end(1, 1, 2)];
        finds(&[interleaved], &[1], &["goes on where it had lost its place"]);
        finds(&[vec![begin(1, 1, 2), end(1, 1, 2)]], &[1], &["goes on where it had lost its place"]);
    }

    #[test]
    fn runs_out_of_order_are_reported() {
        finds(&[run(1, 2), run(1, 1)], &[1, 2], &["out of order", "out of order"]);
        // No step of an earlier serial may follow the begin of a later serial, not even a repetition.
        finds(&[run(1, 1), run(1, 2), vec![begin(2, 1, 1), stopped(2, 1, 1)]], &[1, 2], &["out of order"]);
    }

    #[test]
    fn lost_runs_are_reported() {
        finds(&[run(1, 1), run(1, 3)], &[1, 2, 3], &["lost"]);
        finds(&[vec![begin(1, 1, 1), end(1, 1, 1)]], &[1], &["lost"]);
        finds(&[], &[1], &["lost"]);
        // Two halves by two processes are not a run.
        let halves =
            vec![begin(1, 1, 1), end(1, 1, 1), Event::Killed { pid: 1 }, begin(2, 1, 2), stopped(2, 1, 2)];
        finds(&[halves], &[1], &["goes on where it had lost its place", "lost"]);
    }

    #[test]
    fn unrequested_runs_and_unfinished_steps_are_reported() {
        finds(&[run(1, 7)], &[], &["never asked for", "never asked for"]);
        finds(&[run(1, 1), vec![begin(1, 1, 1)]], &[1], &["never ends"]);
    }

    #[test]
    fn trace_lines_are_parsed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trace");
        assert_eq!(read(&file), []);
        let line = json!({
            "pid": 1, "component": "c", "environment": "e", "intent": "provision", "step": 1, "serial": 2,
            "event": "begin", "at": 3,
        });
        std::fs::write(&file, format!("{line}\n")).unwrap();
        note_killed(&file, 1);
        assert_eq!(read(&file), [begin(1, 2, 1), Event::Killed { pid: 1 }]);
    }
}
