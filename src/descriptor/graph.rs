//! Which component comes first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::problems::Problems;
use super::read::{Dependency, Index, did_you_mean};
use super::{Component, DataProduct, Identifier, Problem};

/// Longest circle that is written out.
const SHOWN: usize = 8;

/// Reports dependencies on components that do not exist and circles, and leaves in the model only what exists.
pub(super) fn resolve(product: &mut DataProduct, index: &Index, problems: &mut Problems) {
    let numbers: HashMap<&Identifier, usize> =
        index.order.iter().enumerate().map(|(number, id)| (id, number)).collect();
    let mut edges: Vec<Edges<'_>> = Vec::with_capacity(index.order.len());
    for id in &index.order {
        let mut known = Vec::new();
        let place = index.places.get(id);
        for dependency in place.map_or(&[][..], |place| &place.depends_on) {
            if let Some(number) = numbers.get(&dependency.id) {
                known.push((*number, dependency));
                continue;
            }
            if place.is_some_and(|place| place.strict) {
                let close = index.closest(dependency.id.as_str(), &product.id, problems);
                problems.add(|| {
                    Problem::new(dependency.path.as_str(), "the data product has no such component")
                        .at(dependency.at)
                        .value(&dependency.id)
                        .remedy(did_you_mean(close, "use the `id` of one of its components"))
                });
            }
        }
        edges.push(known);
    }
    report_circles(&edges, index, problems);
    retain(&mut product.components, &numbers);
}

fn retain(components: &mut [Component], numbers: &HashMap<&Identifier, usize>) {
    for component in components {
        component.depends_on.retain(|id| numbers.contains_key(id));
        retain(&mut component.components, numbers);
    }
}

/// Dependencies of a component that exist, by number in document order.
type Edges<'a> = Vec<(usize, &'a Dependency)>;

/// Depth first, with a stack of its own: a chain of dependencies may be as long as the document.
fn report_circles(edges: &[Edges<'_>], index: &Index, problems: &mut Problems) {
    /// A component that is being followed, and how many of its dependencies have been.
    struct Step {
        number: usize,
        followed: usize,
        strict: bool,
    }
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        /// Being followed, as this step.
        Open(usize),
        Done,
    }
    let identifier = |number: usize| index.order.get(number);
    let strict = |number: usize| {
        identifier(number).and_then(|id| index.places.get(id)).is_some_and(|place| place.strict)
    };
    let mut states = vec![State::New; edges.len()];
    for start in 0..edges.len() {
        if states.get(start) != Some(&State::New) {
            continue;
        }
        let mut steps = Vec::new();
        // The steps that everything is asked of: a circle is reported when one of them is in it.
        let mut strict_steps = Vec::new();
        let mut enter = Some(start);
        loop {
            if let Some(number) = enter.take() {
                if let Some(state) = states.get_mut(number) {
                    *state = State::Open(steps.len());
                }
                let strict = strict(number);
                if strict {
                    strict_steps.push(steps.len());
                }
                steps.push(Step { number, followed: 0, strict });
            }
            let Some(step) = steps.last_mut() else { break };
            let Some((next, dependency)) = edges.get(step.number).and_then(|known| known.get(step.followed))
            else {
                if let Some(state) = states.get_mut(step.number) {
                    *state = State::Done;
                }
                if step.strict {
                    strict_steps.pop();
                }
                steps.pop();
                continue;
            };
            step.followed += 1;
            match states.get(*next) {
                Some(State::New) => enter = Some(*next),
                Some(State::Open(first)) if strict_steps.last().is_some_and(|last| last >= first) => {
                    let members = steps.iter().skip(*first).filter_map(|step| identifier(step.number));
                    problems.add(|| circular(&dependency.path, members).at(dependency.at));
                }
                _ => {}
            }
        }
    }
}

fn circular<'a>(path: &str, members: impl Iterator<Item = &'a Identifier>) -> Problem {
    let names: Vec<&str> = members.map(Identifier::last_part).collect();
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

/// See [`DataProduct::in_dependency_order`]. Dependencies bind; that a nested component follows its parent gives
/// way where it contradicts them.
pub(super) fn order(product: &DataProduct) -> Vec<&Component> {
    let components: Vec<&Component> = product.all_components().collect();
    let numbers: HashMap<&Identifier, usize> =
        components.iter().enumerate().map(|(number, component)| (&component.id, number)).collect();
    let mut waits_for = vec![0_usize; components.len()];
    let mut waits_for_parent = vec![false; components.len()];
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); components.len()];
    let mut nested: Vec<Vec<usize>> = vec![Vec::new(); components.len()];
    for (number, component) in components.iter().enumerate() {
        for dependency in &component.depends_on {
            if let Some(before) = numbers.get(dependency)
                && let (Some(list), Some(count)) = (waiting.get_mut(*before), waits_for.get_mut(number))
            {
                list.push(number);
                *count += 1;
            }
        }
        for child in &component.components {
            if let Some(child) = numbers.get(&child.id)
                && let (Some(list), Some(flag)) = (nested.get_mut(number), waits_for_parent.get_mut(*child))
            {
                list.push(*child);
                *flag = true;
            }
        }
    }
    let mut ready = BinaryHeap::new();
    let mut wants_parent = BinaryHeap::new();
    let mut done = vec![false; components.len()];
    let mut ordered = Vec::with_capacity(components.len());
    for number in 0..components.len() {
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
        ordered.extend(components.get(number));
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
    // Only a circle is left, which only a short form can have: in the order written.
    let rest = components.iter().zip(&done).filter(|(_, done)| !**done);
    ordered.extend(rest.map(|(component, _)| *component));
    ordered
}
