//! The order of components.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::document::Position;
use super::problems::Problems;
use super::{Identifier, Problem};

/// The maximum length of a cycle in a message.
const SHOWN: usize = 8;

/// An entry of `dependsOn` that is in the document.
#[derive(Debug, Clone)]
pub(super) struct Dependency {
    pub(super) id: Identifier,
    /// Number of the component.
    pub(super) on: usize,
    pub(super) path: String,
    pub(super) at: Position,
}

/// Reports cycles. Depth first with an explicit stack, because a chain of dependencies may be as long as the
/// document.
pub(super) fn report_cycles<'a>(
    edges: &[Vec<Dependency>],
    id: impl Fn(usize) -> &'a str,
    problems: &mut Problems,
) {
    /// A component on the current path, and how many of its dependencies were followed.
    struct Followed {
        number: usize,
        followed: usize,
    }
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        /// On the current path, at this step.
        Open(usize),
        Done,
    }
    let mut states = vec![State::New; edges.len()];
    for start in 0..edges.len() {
        if states.get(start) != Some(&State::New) {
            continue;
        }
        let mut steps: Vec<Followed> = Vec::new();
        let mut enter = Some(start);
        loop {
            if let Some(number) = enter.take() {
                if let Some(state) = states.get_mut(number) {
                    *state = State::Open(steps.len());
                }
                steps.push(Followed { number, followed: 0 });
            }
            let Some(step) = steps.last_mut() else { break };
            let Some(dependency) = edges.get(step.number).and_then(|known| known.get(step.followed)) else {
                if let Some(state) = states.get_mut(step.number) {
                    *state = State::Done;
                }
                steps.pop();
                continue;
            };
            step.followed += 1;
            match states.get(dependency.on) {
                Some(State::New) => enter = Some(dependency.on),
                Some(State::Open(first)) => {
                    let members = steps.iter().skip(*first).map(|step| id(step.number));
                    problems.add(|| circular(&dependency.path, members).at(dependency.at));
                }
                _ => {}
            }
        }
    }
}

fn circular<'a>(path: &str, members: impl Iterator<Item = &'a str>) -> Problem {
    let names: Vec<&str> = members.map(|id| id.rsplit(':').next().unwrap_or(id)).collect();
    if names.len() == 1 {
        return Problem::new(path, "the component depends on itself").remedy("remove it from `dependsOn`");
    }
    let mut shown: Vec<&str> = names.iter().copied().take(SHOWN).collect();
    if names.len() > SHOWN {
        shown.push("...");
    }
    shown.extend(names.first());
    Problem::new(path, format!("the components depend on each other in a circle: {}", shown.join(" -> ")))
        .remedy("remove one of these dependencies")
}

/// The order of all components in a document, for provisioning. Components of other adapters do nothing, but forward
/// the order to our components.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequence {
    steps: Vec<Step>,
}

/// One place of a [`Sequence`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The number of the component in [`super::DataProduct::components`], if it was read.
    pub component: Option<usize>,
    /// The numbers of the steps that it directly follows, all smaller than its own: its dependencies and its parent,
    /// as far as cycles allow.
    pub follows: Vec<usize>,
}

impl Sequence {
    /// The order of the places in a document; `component` returns the numbers of components that were read.
    pub(super) fn of(
        edges: &[Vec<usize>],
        parents: &[Option<usize>],
        component: impl Fn(usize) -> Option<usize>,
    ) -> Self {
        let order = order(edges, parents);
        let mut ranks = vec![usize::MAX; order.len()];
        for (rank, place) in order.iter().enumerate() {
            if let Some(at) = ranks.get_mut(*place) {
                *at = rank;
            }
        }
        let steps = order.iter().enumerate().map(|(rank, place)| {
            let parent = parents.get(*place).copied().flatten();
            let before = edges.get(*place).into_iter().flatten().copied().chain(parent);
            let mut follows: Vec<usize> = before
                .filter_map(|place| ranks.get(place).copied())
                .filter(|before| *before < rank)
                .collect();
            follows.sort_unstable();
            follows.dedup();
            Step { component: component(*place), follows }
        });
        Self { steps: steps.collect() }
    }

    /// Components without a known order.
    pub(super) fn one_by_one(count: usize) -> Self {
        let follows = |number: usize| number.checked_sub(1).into_iter().collect();
        let step = |number| Step { component: Some(number), follows: follows(number) };
        Self { steps: (0..count).map(step).collect() }
    }

    /// The steps, in the order for provisioning.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Every component after its dependencies, and otherwise in document order. A nested component follows its parent,
/// unless a dependency contradicts.
fn order(edges: &[Vec<usize>], parents: &[Option<usize>]) -> Vec<usize> {
    let count = edges.len();
    let mut waits_for = vec![0_usize; count];
    let mut waits_for_parent = vec![false; count];
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut nested: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (number, (dependencies, parent)) in edges.iter().zip(parents).enumerate() {
        for before in dependencies {
            if let (Some(list), Some(count)) = (waiting.get_mut(*before), waits_for.get_mut(number)) {
                list.push(number);
                *count += 1;
            }
        }
        if let Some(list) = parent.and_then(|parent| nested.get_mut(parent))
            && let Some(flag) = waits_for_parent.get_mut(number)
        {
            list.push(number);
            *flag = true;
        }
    }
    let mut ready = BinaryHeap::new();
    let mut wants_parent = BinaryHeap::new();
    let mut done = vec![false; count];
    let mut ordered = Vec::with_capacity(count);
    for number in 0..count {
        if waits_for.get(number) == Some(&0) {
            let heap =
                if waits_for_parent.get(number) == Some(&true) { &mut wants_parent } else { &mut ready };
            heap.push(Reverse(number));
        }
    }
    while let Some(Reverse(number)) = ready.pop().or_else(|| wants_parent.pop()) {
        match done.get_mut(number) {
            Some(done) if !*done => *done = true,
            _ => continue,
        }
        ordered.push(number);
        for next in waiting.get(number).into_iter().flatten() {
            let Some(count) = waits_for.get_mut(*next) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                let heap =
                    if waits_for_parent.get(*next) == Some(&true) { &mut wants_parent } else { &mut ready };
                heap.push(Reverse(*next));
            }
        }
        for child in nested.get(number).into_iter().flatten() {
            if let Some(flag) = waits_for_parent.get_mut(*child) {
                *flag = false;
            }
            if waits_for.get(*child) == Some(&0) {
                ready.push(Reverse(*child));
            }
        }
    }
    // Only cycles are left, of other adapters or in a short form: use the document order.
    ordered.extend((0..count).filter(|number| done.get(*number) == Some(&false)));
    ordered
}
