//! The queue for verification. It limits the callers that are verified at a time, to one for each address, and
//! the callers that wait. A turn is the permit to verify one secret.
//!
//! The order is fair to addresses, not to connections: a caller waits behind callers whose address has fewer failures
//! and fewer waiting requests. So an address that guesses, or opens many connections, waits behind others. Among
//! equal callers the latest comes first: if there are more than can be served in time, the earliest would only be the
//! first to time out. If too many wait, the last in this order is refused at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::failures::network;

/// The queue for turns; see the module documentation.
pub(super) struct Turns(Arc<Shared>);

struct Shared {
    max_waiting: usize,
    line: Mutex<Line>,
}

struct Line {
    free: usize,
    /// The sequence number of the next caller.
    next: u64,
    waiting: BTreeMap<Rank, Waiting>,
    /// The state of each address that has a turn or waits for one.
    addresses: HashMap<IpAddr, Places>,
}

/// The place of a caller in the queue. The caller with the smallest rank is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// The failures of the address, plus the number of its callers that already wait or have a turn.
    burden: u32,
    number: Reverse<u64>,
}

struct Waiting {
    address: IpAddr,
    call: oneshot::Sender<Turn>,
}

#[derive(Default)]
struct Places {
    has_turn: bool,
    waiting: u32,
}

/// The permit to verify one secret. Dropping it gives the turn to the next caller.
pub(super) struct Turn {
    address: IpAddr,
    shared: Arc<Shared>,
}

/// The error for a caller that is refused because too many callers wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crowded;

/// The place of a waiting caller. Dropping it, for example when the caller disconnects, removes the caller from
/// the queue.
struct Place {
    rank: Rank,
    shared: Arc<Shared>,
}

impl Turns {
    pub(super) fn new(at_a_time: usize, max_waiting: usize) -> Self {
        let line = Line { free: at_a_time, next: 0, waiting: BTreeMap::new(), addresses: HashMap::new() };
        Self(Arc::new(Shared { max_waiting, line: Mutex::new(line) }))
    }

    /// Waits for a turn. `failures` is the number of failures of the address so far. Fails if too many callers
    /// wait.
    pub(super) async fn take(&self, peer: IpAddr, failures: u32) -> Result<Turn, Crowded> {
        let address = network(peer);
        let (call, called) = oneshot::channel();
        let (rank, called_up) = self.0.enter(Waiting { address, call }, failures);
        let _place = Place { rank, shared: Arc::clone(&self.0) };
        self.0.hand_out(called_up);
        called.await.map_err(|_| Crowded)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a caller. Removes and returns the callers whose turn it is, and refuses the last one if too many
    /// wait.
    fn enter(&self, caller: Waiting, failures: u32) -> (Rank, Vec<Waiting>) {
        let mut line = self.lock();
        let rank = line.join(caller, failures);
        let called_up = line.call_up();
        if line.waiting.len() > self.max_waiting {
            drop(line.remove_last());
        }
        (rank, called_up)
    }

    /// Sends turns to their callers. Must be called without the lock: the turn of a disconnected caller is
    /// dropped here, which takes the lock.
    fn hand_out(self: &Arc<Self>, called_up: Vec<Waiting>) {
        for Waiting { address, call } in called_up {
            let _ = call.send(Turn { address, shared: Arc::clone(self) });
        }
    }
}

impl Line {
    fn join(&mut self, caller: Waiting, failures: u32) -> Rank {
        let places = self.addresses.entry(caller.address).or_default();
        let burden = failures.saturating_add(places.waiting).saturating_add(u32::from(places.has_turn));
        places.waiting = places.waiting.saturating_add(1);
        let rank = Rank { burden, number: Reverse(self.next) };
        self.next = self.next.wrapping_add(1);
        self.waiting.insert(rank, caller);
        rank
    }

    /// Removes and returns the callers that get a free turn. An address with a turn is skipped.
    fn call_up(&mut self) -> Vec<Waiting> {
        let mut called_up = Vec::new();
        while self.free > 0 {
            let is_next = |waiting: &Waiting| {
                self.addresses.get(&waiting.address).is_none_or(|places| !places.has_turn)
            };
            let Some(rank) = self.waiting.iter().find(|(_, waiting)| is_next(waiting)).map(|(rank, _)| *rank)
            else {
                break;
            };
            let Some(waiting) = self.leave(rank) else { break };
            self.addresses.entry(waiting.address).or_default().has_turn = true;
            self.free -= 1;
            called_up.push(waiting);
        }
        called_up
    }

    /// Removes the caller with the largest rank. Dropping the result refuses that caller.
    fn remove_last(&mut self) -> Option<Waiting> {
        let rank = *self.waiting.last_key_value()?.0;
        self.leave(rank)
    }

    fn leave(&mut self, rank: Rank) -> Option<Waiting> {
        let waiting = self.waiting.remove(&rank)?;
        if let Some(places) = self.addresses.get_mut(&waiting.address) {
            places.waiting = places.waiting.saturating_sub(1);
        }
        self.forget(waiting.address);
        Some(waiting)
    }

    fn finish(&mut self, address: IpAddr) {
        self.free += 1;
        if let Some(places) = self.addresses.get_mut(&address) {
            places.has_turn = false;
        }
        self.forget(address);
    }

    fn forget(&mut self, address: IpAddr) {
        if self.addresses.get(&address).is_some_and(|places| !places.has_turn && places.waiting == 0) {
            self.addresses.remove(&address);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut line = self.shared.lock();
        line.finish(self.address);
        let called_up = line.call_up();
        drop(line);
        self.shared.hand_out(called_up);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.shared.lock().leave(self.rank);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Returns a turn if one is free at once.
    fn now(turns: &Turns, last: u8) -> Option<Turn> {
        turns.take(address(last), 0).now_or_never().and_then(Result::ok)
    }

    #[test]
    fn one_address_never_has_more_than_one_turn() {
        let turns = Turns::new(3, 10);
        let first = now(&turns, 1).unwrap();
        assert!(now(&turns, 1).is_none());
        let second = now(&turns, 2).unwrap();
        let third = now(&turns, 3).unwrap();
        assert!(now(&turns, 4).is_none(), "three at a time");
        drop(second);
        assert!(now(&turns, 1).is_none(), "its own is not over yet");
        assert!(now(&turns, 4).is_some());
        drop((first, third));
        assert!(now(&turns, 1).is_some());
    }

    #[test]
    fn disconnected_callers_hold_no_turn() {
        let turns = Turns::new(1, 10);
        {
            let _turn = now(&turns, 1).unwrap();
            let mut waiting = Box::pin(turns.take(address(2), 0));
            assert!(waiting.as_mut().now_or_never().is_none());
            assert_eq!(turns.0.lock().addresses.len(), 2);
        }
        let line = turns.0.lock();
        assert!(line.addresses.is_empty() && line.waiting.is_empty() && line.free == 1);
        drop(line);
        assert!(now(&turns, 3).is_some());
    }

    /// A caller may disconnect after it got its turn and before it is notified. Then the next caller gets the
    /// turn.
    #[test]
    fn turn_of_a_disconnected_caller_goes_to_the_next() {
        let turns = Turns::new(1, 10);
        let turn = now(&turns, 1).unwrap();
        let mut second = Box::pin(turns.take(address(2), 0));
        let mut third = Box::pin(turns.take(address(3), 0));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        drop(turn);
        drop(third);
        assert!(second.now_or_never().is_some_and(|turn| turn.is_ok()));
    }

    #[test]
    fn addresses_with_fewer_failures_come_first() {
        let turns = Turns::new(1, 10);
        let turn = now(&turns, 1).unwrap();
        let order = [(2, 5), (3, 0), (3, 0), (4, 1), (5, 0)];
        let mut waiting: Vec<_> =
            order.iter().map(|(last, failures)| Box::pin(turns.take(address(*last), *failures))).collect();
        for caller in &mut waiting {
            assert!(caller.as_mut().now_or_never().is_none());
        }
        drop(turn);
        let mut served = Vec::new();
        while served.len() < order.len() {
            for (index, caller) in waiting.iter_mut().enumerate() {
                // A served caller does not ask again.
                if served.contains(&index) {
                    continue;
                }
                if let Some(turn) = caller.as_mut().now_or_never() {
                    drop(turn.unwrap());
                    served.push(index);
                    break;
                }
            }
        }
        assert_eq!(served, [4, 1, 3, 2, 0], "of equals the latest");
    }

    #[test]
    fn full_queue_refuses_the_address_with_most_requests() {
        let turns = Turns::new(1, 2);
        let _turn = now(&turns, 1).unwrap();
        let mut greedy: Vec<_> = (0..2).map(|_| Box::pin(turns.take(address(2), 0))).collect();
        for caller in &mut greedy {
            assert!(caller.as_mut().now_or_never().is_none());
        }
        assert_eq!(turns.take(address(2), 0).now_or_never().map(|turn| turn.err()), Some(Some(Crowded)));
        let mut modest = Box::pin(turns.take(address(3), 0));
        assert!(modest.as_mut().now_or_never().is_none(), "it waits");
        let last = greedy.pop().unwrap();
        assert_eq!(last.now_or_never().map(|turn| turn.err()), Some(Some(Crowded)), "in place of this one");
        assert_eq!(turns.0.lock().waiting.len(), 2);
    }
}
