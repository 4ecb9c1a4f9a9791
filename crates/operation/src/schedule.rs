//! The order of the components of a task: each after the components that it must follow.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use landfall_adapter::Intent;
use landfall_adapter::descriptor::Sequence;

use super::work::Assigned;

/// The components of a task that have not begun, by their positions. Pure.
#[derive(Debug)]
pub(super) struct Schedule {
    steps: Vec<Step>,
    /// Steps that wait for nothing, in the order of the components.
    ready: BinaryHeap<Reverse<(usize, usize)>>,
    /// The position in `steps` of each component.
    step: Vec<usize>,
}

#[derive(Debug, Default)]
struct Step {
    /// The position of the component; `None` for a component of another adapter, which only forwards the order.
    component: Option<usize>,
    /// The number of steps that it still waits for.
    waits: usize,
    followers: Vec<usize>,
}

impl Schedule {
    /// A schedule in the order of the intent.
    pub(super) fn new(sequence: &Sequence, assigned: &[Assigned], intent: Intent) -> Self {
        let numbers: HashMap<&str, usize> = assigned
            .iter()
            .enumerate()
            .map(|(number, one)| (one.work.component.path.as_str(), number))
            .collect();
        let product = assigned.first().map(|one| &one.work.product);
        let number = |component: usize| {
            let component = product?.components.get(component)?;
            numbers.get(component.path.as_str()).copied()
        };
        let steps: Vec<_> = sequence.steps().iter().map(|step| step.component.and_then(number)).collect();
        let mut edges: Vec<(usize, usize)> = Vec::new();
        for (at, step) in sequence.steps().iter().enumerate() {
            edges.extend(step.follows.iter().map(|before| (*before, at)));
        }
        if matches!(intent, Intent::Unprovision { .. }) {
            edges = edges.into_iter().map(|(before, after)| (after, before)).collect();
        }
        if steps.iter().flatten().count() == assigned.len() {
            Self::of(steps, &edges, assigned.len())
        } else {
            Self::one_by_one(assigned.len())
        }
    }

    /// A schedule of components that do not wait for each other.
    pub(super) fn free(count: usize) -> Self {
        Self::of((0..count).map(Some).collect(), &[], count)
    }

    fn one_by_one(count: usize) -> Self {
        let edges: Vec<_> = (1..count).map(|number| (number - 1, number)).collect();
        Self::of((0..count).map(Some).collect(), &edges, count)
    }

    fn of(components: Vec<Option<usize>>, edges: &[(usize, usize)], count: usize) -> Self {
        let mut step = vec![usize::MAX; count];
        let mut steps: Vec<Step> = Vec::with_capacity(components.len());
        for (at, component) in components.into_iter().enumerate() {
            if let Some(number) = component.and_then(|number| step.get_mut(number)) {
                *number = at;
            }
            steps.push(Step { component, ..Step::default() });
        }
        for (before, after) in edges {
            if let Some(step) = steps.get_mut(*after) {
                step.waits += 1;
            }
            if let Some(step) = steps.get_mut(*before) {
                step.followers.push(*after);
            }
        }
        let mut schedule = Self { steps, ready: BinaryHeap::new(), step };
        for at in 0..schedule.steps.len() {
            if schedule.steps.get(at).is_some_and(|step| step.waits == 0) {
                schedule.push(at);
            }
        }
        schedule
    }

    /// The next component that waits for nothing; `None` if there is none at the moment.
    pub(super) fn next(&mut self) -> Option<usize> {
        while let Some(Reverse((_, at))) = self.ready.pop() {
            match self.steps.get(at).and_then(|step| step.component) {
                Some(component) => return Some(component),
                None => self.pass(at),
            }
        }
        None
    }

    /// Records that a component is done; components that waited only for it may begin.
    pub(super) fn done(&mut self, component: usize) {
        if let Some(at) = self.step.get(component) {
            self.pass(*at);
        }
    }

    fn pass(&mut self, at: usize) {
        let followers = self.steps.get_mut(at).map(|step| std::mem::take(&mut step.followers));
        for follower in followers.into_iter().flatten() {
            let Some(step) = self.steps.get_mut(follower) else { continue };
            step.waits = step.waits.saturating_sub(1);
            if step.waits == 0 {
                self.push(follower);
            }
        }
    }

    fn push(&mut self, at: usize) {
        // Steps of other adapters go first, because they cost nothing.
        let rank = self.steps.get(at).and_then(|step| step.component).map_or(0, |component| component + 1);
        self.ready.push(Reverse((rank, at)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Random steps, some of other adapters, with random edges to later steps, a limit of concurrent ones, and a
        /// random order of ends.
        #[test]
        fn each_component_begins_once_after_its_dependencies(
            ours in prop::collection::vec(any::<bool>(), 1..12),
            edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..30),
            at_once in 1_usize..5,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let mut count = 0;
            let components: Vec<Option<usize>> = ours.iter().map(|ours| ours.then(|| { count += 1; count - 1 })).collect();
            let edges: Vec<_> = edges.into_iter().filter(|(a, b)| a < b && *b < components.len()).collect();
            // The components that each one must follow, also through other adapters.
            let mut before: Vec<std::collections::BTreeSet<usize>> = vec![Default::default(); components.len()];
            for at in 0..components.len() {
                for (a, _) in edges.iter().filter(|(_, b)| *b == at) {
                    let mut more = before[*a].clone();
                    more.extend(components[*a]);
                    before[at].extend(more);
                }
            }
            let mut schedule = Schedule::of(components.clone(), &edges, count);
            let (mut running, mut done) = (Vec::new(), std::collections::BTreeSet::new());
            let mut picks = picks.into_iter();
            loop {
                while running.len() < at_once && let Some(next) = schedule.next() {
                    let at = components.iter().position(|it| *it == Some(next)).unwrap();
                    prop_assert!(before[at].is_subset(&done), "{next} begins before what it follows");
                    prop_assert!(!running.contains(&next) && !done.contains(&next));
                    running.push(next);
                }
                if running.is_empty() {
                    break;
                }
                let ended = running.remove(picks.next().unwrap().index(running.len()));
                done.insert(ended);
                schedule.done(ended);
            }
            prop_assert_eq!(done.len(), count);
        }
    }

    #[test]
    fn components_outside_the_sequence_run_one_by_one() {
        let mut schedule = Schedule::one_by_one(3);
        for number in 0..3 {
            assert_eq!((schedule.next(), schedule.next()), (Some(number), None));
            schedule.done(number);
        }
        assert_eq!(schedule.next(), None);
        let mut free = Schedule::free(2);
        assert_eq!((free.next(), free.next(), free.next()), (Some(0), Some(1), None));
    }
}
