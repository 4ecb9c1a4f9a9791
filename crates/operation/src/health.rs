//! Whether this process can accept and run operations.
//!
//! The store is asked to write, because a store that only reads accepts no tasks. Callers within [`SHARED_FOR`] share
//! one such write, and none waits longer than the deadline. The sweeper watches the lanes. A lane is stuck if this
//! process has had a free slot for a long time, and the same task that it could run has been at the head.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::operation::Lane;
use super::store::{Due, Store};
use super::task::Counts;
use landfall_adapter::error::Result;

/// How long a result of the store is shared.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// The health of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The numbers of waiting and running tasks, or one public sentence why the store cannot be used.
    pub store: Result<Counts, String>,
    /// Lanes with a task that has been due for a long time.
    pub stuck: Vec<Stuck>,
}

/// A lane that does not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck {
    /// The lane.
    pub lane: Lane,
    /// How long the task at its head has been due.
    pub due_for: Duration,
    /// Whether this version can run the task; if not, another version has to.
    pub known: bool,
}

type Answer = Result<(), String>;

/// Asks the store once for many callers.
pub(super) struct Probe {
    /// The runtime in which the store is asked, because the caller may be gone before the result.
    runtime: Handle,
    latest: Mutex<Option<(Instant, Shared<BoxFuture<'static, Answer>>)>>,
}

impl Probe {
    /// Must be called inside the tokio runtime in which the store is asked.
    pub(super) fn new() -> Self {
        Self { runtime: Handle::current(), latest: Mutex::default() }
    }

    /// Whether the store can be written, as a shared result, and its current counts.
    pub(super) async fn ask(&self, store: &Arc<dyn Store>, patience: Duration) -> Result<Counts, String> {
        self.check(store, patience).await?;
        within(patience, store.counts()).await
    }

    async fn check(&self, store: &Arc<dyn Store>, patience: Duration) -> Answer {
        let answer = {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            match &*latest {
                Some((begun, answer)) if begun.elapsed() < SHARED_FOR || answer.peek().is_none() => {
                    answer.clone()
                }
                _ => {
                    let store = Arc::clone(store);
                    let asked = self.runtime.spawn(async move { within(patience, store.check()).await });
                    let stopping = |_| Err("the process is stopping".to_owned());
                    let answer = asked.map(move |answer| answer.unwrap_or_else(stopping)).boxed().shared();
                    *latest = Some((Instant::now(), answer.clone()));
                    answer
                }
            }
        };
        answer.await
    }
}

/// The result of the store within the deadline, or one public sentence.
async fn within<T>(patience: Duration, asked: impl Future<Output = Result<T>>) -> Result<T, String> {
    match timeout(patience, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            log::warn!("health: {}", error.report());
            Err(error.to_string())
        }
        Err(_) => {
            let reason = format!("the operation store did not answer within {patience:?}");
            log::warn!("health: {reason}");
            Err(reason)
        }
    }
}

/// The observed state of the lanes.
#[derive(Default)]
pub(super) struct Watch(Mutex<HashMap<Lane, Watched>>);

#[derive(Default)]
struct Watched {
    /// Since when this process has been able to take a task.
    free_since: Option<Instant>,
    /// The heads of the lane; the key says whether this version can run the task.
    heads: HashMap<bool, Head>,
}

/// The task at the head of a lane.
struct Head {
    seq: i64,
    /// Since when this task has been seen at the head.
    since: Instant,
    /// How long it had been due at `seen_at`.
    due_for: Duration,
    seen_at: Instant,
}

impl Watch {
    /// Records whether this process has a free slot for the lane.
    pub(super) fn note_slots(&self, lane: Lane, free: bool, now: Instant) {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = lanes.entry(lane).or_default();
        watched.free_since = free.then(|| watched.free_since.unwrap_or(now));
    }

    /// Records the tasks at the heads of all lanes.
    pub(super) fn note_due(&self, due: &[Due], now: Instant) {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in Lane::ALL {
            let heads = &mut lanes.entry(lane).or_default().heads;
            let before = std::mem::take(heads);
            for due in due.iter().filter(|due| due.lane == lane) {
                let since =
                    before.get(&due.known).filter(|head| head.seq == due.seq).map_or(now, |head| head.since);
                heads.insert(due.known, Head { seq: due.seq, since, due_for: due.due_for, seen_at: now });
            }
        }
    }

    /// The lanes whose head has been the same for longer than `after`, in the order of [`Lane::ALL`].
    pub(super) fn stuck(&self, after: Duration, now: Instant) -> Vec<Stuck> {
        let lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stuck = Vec::new();
        for lane in Lane::ALL {
            let Some(watched) = lanes.get(&lane) else { continue };
            let is_long = |since: Instant| now.saturating_duration_since(since) > after;
            let idle = watched.free_since.is_some_and(is_long);
            for known in [true, false] {
                if let Some(head) = watched.heads.get(&known).filter(|head| idle && is_long(head.since)) {
                    let due_for = head.due_for + now.saturating_duration_since(head.seen_at);
                    stuck.push(Stuck { lane, due_for, known });
                }
            }
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_with_free_slots_and_unclaimed_head_is_stuck() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * second;
        let watch = Watch::default();
        let due = |seq, known| Due { lane: Lane::Change, seq, due_for: 5 * second, known };
        let stuck = |seconds| watch.stuck(3 * second, at(seconds));
        watch.note_slots(Lane::Change, true, at(0));
        watch.note_due(&[due(1, true)], at(0));
        assert_eq!(stuck(2), []);
        watch.note_due(&[due(1, true), due(7, false)], at(2));
        let expected = Stuck { lane: Lane::Change, due_for: 7 * second, known: true };
        assert_eq!(stuck(4), [expected], "the time since it was due, not since it was observed");
        assert_eq!(stuck(6).len(), 2, "another version has to run the second one");
        watch.note_due(&[due(2, true)], at(6));
        assert_eq!(stuck(8), [], "it moves");
        assert_eq!(stuck(15).len(), 1);
        watch.note_slots(Lane::Change, false, at(15));
        assert_eq!(stuck(15), [], "it waits for a slot");
        watch.note_slots(Lane::Change, true, at(16));
        assert_eq!(stuck(16), []);
    }
}
