//! Connections at rest.
//!
//! A pool that speaks to the database for nothing but what it is asked: one of `sqlx` asks after the health of a
//! connection each time it comes back, which doubles the cost of a short read. Here a connection comes back only from
//! whoever has said that all went well ([`Lent::give_back`]); every other one is closed, whatever state it is in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Connections that nobody uses, and leave to have so many in all.
pub(crate) struct Rest<C> {
    shared: Arc<Shared<C>>,
    leave: Arc<Semaphore>,
    patience: Duration,
}

struct Shared<C> {
    /// The last one to come back is the first to go: few are used, and those are warm. `None` once closed.
    idle: Mutex<Option<Vec<(C, Instant)>>>,
}

/// A connection in use, or leave to make one.
pub(crate) struct Lent<C> {
    shared: Arc<Shared<C>>,
    _leave: OwnedSemaphorePermit,
}

impl<C> Rest<C> {
    /// For so many connections, none of which is made yet. Whoever waits for one waits for `patience` at most.
    pub(crate) fn new(connections: u32, patience: Duration) -> Self {
        let connections = usize::try_from(connections.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared { idle: Mutex::new(Some(Vec::new())) }),
            leave: Arc::new(Semaphore::new(connections)),
            patience,
        }
    }

    /// Leave to use a connection, and one that rested, with how long it did; without one the caller makes it.
    pub(crate) async fn borrow(&self) -> sqlx::Result<(Lent<C>, Option<(C, Duration)>)> {
        let leave = Arc::clone(&self.leave).acquire_owned();
        let leave = timeout(self.patience, leave)
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)?;
        let rested = self.shared.take();
        let lent = Lent { shared: Arc::clone(&self.shared), _leave: leave };
        Ok((lent, rested.map(|(connection, since)| (connection, since.elapsed()))))
    }

    /// Closes those at rest: one of them turned out to be of no use, and they were made alike.
    pub(crate) fn discard(&self) {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(idle) = idle.as_mut() {
            idle.clear();
        }
    }

    /// Lends no more, and hands over those at rest. Those in use are closed when they come back.
    pub(crate) fn close(&self) -> Vec<C> {
        self.leave.close();
        let idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        idle.unwrap_or_default().into_iter().map(|(connection, _)| connection).collect()
    }
}

impl<C> Shared<C> {
    fn take(&self) -> Option<(C, Instant)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(Vec::pop)
    }
}

impl<C> Lent<C> {
    /// Puts a connection to rest on which nothing is under way.
    pub(crate) fn give_back(self, connection: C) {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(idle) = idle.as_mut() {
            idle.push((connection, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn the_last_to_come_back_goes_first_and_no_more_are_lent_than_there_are() {
        let rest = Rest::new(2, SOON);
        let (first, none) = rest.borrow().await.unwrap();
        assert!(none.is_none());
        let (second, _) = rest.borrow().await.unwrap();
        assert!(matches!(rest.borrow().await, Err(sqlx::Error::PoolTimedOut)));
        first.give_back("first");
        second.give_back("second");
        let (lent, rested) = rest.borrow().await.unwrap();
        assert_eq!(rested.unwrap().0, "second");
        // One that does not come back leaves room for a new one.
        drop(lent);
        let (_lent, rested) = rest.borrow().await.unwrap();
        assert_eq!(rested.unwrap().0, "first");
        let (_other, rested) = rest.borrow().await.unwrap();
        assert!(rested.is_none());
    }

    #[tokio::test]
    async fn once_closed_nothing_is_lent_and_nothing_kept() {
        let rest = Rest::new(2, SOON);
        let (lent, _) = rest.borrow().await.unwrap();
        let (other, _) = rest.borrow().await.unwrap();
        lent.give_back(1);
        assert_eq!(rest.close(), [1]);
        other.give_back(2);
        assert!(rest.close().is_empty());
        assert!(matches!(rest.borrow().await, Err(sqlx::Error::PoolClosed)));
    }
}
