//! So many at a time in all, and one at a time for an address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failures::network;

/// See the module documentation.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    queues: Arc<Mutex<Queues>>,
}

/// For each address that somebody is checked or waits for: its queue, and how many are in it.
type Queues = HashMap<IpAddr, (Arc<Semaphore>, usize)>;

/// The right to compute; over when it is dropped.
pub(super) struct Turn {
    // Dropped in this order: the next of the address comes when there is room.
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _place: Place,
}

/// A place in the queue of an address. The queue goes with its last place.
struct Place {
    address: IpAddr,
    queues: Arc<Mutex<Queues>>,
}

impl Turns {
    pub(super) fn new(at_a_time: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(at_a_time)), queues: Arc::default() }
    }

    /// Waits for a turn: first for the address's own, so that it takes one of all at most. Never `None` while the server
    /// runs.
    pub(super) async fn take(&self, peer: IpAddr) -> Option<Turn> {
        let (queue, place) = self.line_up(network(peer));
        let own = queue.acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn { _all: all, _own: own, _place: place })
    }

    fn line_up(&self, address: IpAddr) -> (Arc<Semaphore>, Place) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let (queue, places) = queues.entry(address).or_insert_with(|| (Arc::new(Semaphore::new(1)), 0));
        *places += 1;
        (Arc::clone(queue), Place { address, queues: Arc::clone(&self.queues) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, places)) = queues.get_mut(&self.address) {
            *places -= 1;
            if *places == 0 {
                queues.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_address_never_has_more_than_one_turn() {
        let turns = Turns::new(3);
        let first = turns.take(address(1)).now_or_never().flatten().unwrap();
        assert!(turns.take(address(1)).now_or_never().is_none());
        let second = turns.take(address(2)).now_or_never().flatten().unwrap();
        let third = turns.take(address(3)).now_or_never().flatten().unwrap();
        assert!(turns.take(address(4)).now_or_never().is_none(), "three at a time");
        drop(second);
        assert!(turns.take(address(1)).now_or_never().is_none(), "its own is not over yet");
        assert!(turns.take(address(4)).now_or_never().flatten().is_some());
        drop((first, third));
        assert!(turns.take(address(1)).now_or_never().flatten().is_some());
    }

    #[test]
    fn nothing_is_left_of_those_who_are_gone() {
        let turns = Turns::new(1);
        {
            let _turn = turns.take(address(1)).now_or_never().flatten().unwrap();
            let mut waiting = Box::pin(turns.take(address(2)));
            assert!(waiting.as_mut().now_or_never().is_none());
            assert_eq!(turns.queues.lock().unwrap().len(), 2);
        }
        assert!(turns.queues.lock().unwrap().is_empty());
        assert!(turns.take(address(3)).now_or_never().flatten().is_some());
    }
}
