//! A pool of connections to the database of a store.
//!
//! The pool of `sqlx` checks the health of a connection each time it is returned, which doubles the cost of a short
//! read. This one sends nothing by itself. A connection is reused only if its user has returned it after success
//! ([`PooledConnection::give_back`]); every other one is closed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Idle connections, and permits that limit the connections in use.
pub(crate) struct Pool<C> {
    shared: Arc<Shared<C>>,
    permits: Arc<Semaphore>,
    patience: Duration,
}

struct Shared<C> {
    /// Last in, first out, so that few connections are used and stay warm. `None` once closed.
    idle: Mutex<Option<Vec<(C, Instant)>>>,
}

/// A permit to use one connection.
pub(crate) struct PooledConnection<C> {
    shared: Arc<Shared<C>>,
    _permit: OwnedSemaphorePermit,
}

impl<C> Pool<C> {
    /// A pool of at most `connections`, none of which is open yet. A caller waits at most `patience` for a permit.
    pub(crate) fn new(connections: u32, patience: Duration) -> Self {
        let connections = usize::try_from(connections.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared { idle: Mutex::new(Some(Vec::new())) }),
            permits: Arc::new(Semaphore::new(connections)),
            patience,
        }
    }

    /// A permit, and an idle connection with its idle time. Without one, the caller opens a connection.
    pub(crate) async fn borrow(&self) -> sqlx::Result<(PooledConnection<C>, Option<(C, Duration)>)> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        let permit = timeout(self.patience, permit)
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.shared.take();
        let pooled = PooledConnection { shared: Arc::clone(&self.shared), _permit: permit };
        Ok((pooled, idle.map(|(connection, since)| (connection, since.elapsed()))))
    }

    /// Closes all idle connections, because one of them was broken and the others are probably broken too.
    pub(crate) fn discard(&self) {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(idle) = idle.as_mut() {
            idle.clear();
        }
    }

    /// Closes the pool and returns its idle connections. Connections in use are closed when they are returned.
    pub(crate) fn close(&self) -> Vec<C> {
        self.permits.close();
        let idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        idle.unwrap_or_default().into_iter().map(|(connection, _)| connection).collect()
    }
}

impl<C> Shared<C> {
    fn take(&self) -> Option<(C, Instant)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(Vec::pop)
    }
}

impl<C> PooledConnection<C> {
    /// Returns a connection on which no statement is running.
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
    async fn reuses_the_last_connection_within_the_maximum() {
        let pool = Pool::new(2, SOON);
        let (first, none) = pool.borrow().await.unwrap();
        assert!(none.is_none());
        let (second, _) = pool.borrow().await.unwrap();
        assert!(matches!(pool.borrow().await, Err(sqlx::Error::PoolTimedOut)));
        first.give_back("first");
        second.give_back("second");
        let (pooled, idle) = pool.borrow().await.unwrap();
        assert_eq!(idle.unwrap().0, "second");
        // A closed connection leaves room for a new one.
        drop(pooled);
        let (_lent, idle) = pool.borrow().await.unwrap();
        assert_eq!(idle.unwrap().0, "first");
        let (_other, idle) = pool.borrow().await.unwrap();
        assert!(idle.is_none());
    }

    #[tokio::test]
    async fn closed_pool_returns_and_keeps_no_connection() {
        let pool = Pool::new(2, SOON);
        let (pooled, _) = pool.borrow().await.unwrap();
        let (other, _) = pool.borrow().await.unwrap();
        pooled.give_back(1);
        assert_eq!(pool.close(), [1]);
        other.give_back(2);
        assert!(pool.close().is_empty());
        assert!(matches!(pool.borrow().await, Err(sqlx::Error::PoolClosed)));
    }
}
