//! The threads that verify secrets, and their memory.
//!
//! A hash needs megabytes. An allocator keeps the memory that a thread once used, so computing hashes on any free
//! thread costs that memory for each thread. Here the number of threads is fixed, and each reuses one buffer. So
//! verification needs at most `threads` times the memory of the most expensive hash.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use argon2::Block;
use tokio::sync::oneshot;

use landfall_adapter::error::{Error, Result};

/// The verification threads. They end when this value is dropped; see the module documentation.
pub(super) struct Verifiers {
    /// The queue of jobs. It never has more jobs than threads, because each caller needs a turn first
    /// (`turns`).
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// The buffer of one thread. It grows to the size of the most expensive hash.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

/// The error that the system has too little memory to compute a hash.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfMemory;

impl Verifiers {
    /// Starts the threads. Fails only if the system cannot start that many.
    pub(super) fn start(threads: usize) -> Result<Self> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name(format!("auth-{number}")).spawn(move || work(&queue)).map_err(
                |error| {
                    Error::permanent(format!(
                        "cannot start {threads} threads to verify secrets; lower auth.concurrency"
                    ))
                    .because(error)
                },
            )?;
        }
        Ok(Self { jobs })
    }

    /// Runs `job` on one of the threads to its end, even if the caller stops waiting. Returns `None` if `job`
    /// panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let job = move |memory: &mut Memory| {
            // The caller may have disconnected.
            let _ = answer.send(job(memory));
        };
        self.jobs.send(Box::new(job)).ok()?;
        answered.await.ok()
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    let mut memory = Memory::default();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        // The panic hook has logged a panic, and the dropped sender notifies the caller. The thread continues.
        let _ = catch_unwind(AssertUnwindSafe(|| job(&mut memory)));
    }
}

impl Memory {
    /// Returns a buffer of `count` blocks. Its content does not matter, because a computation writes each block
    /// before reading it.
    pub(super) fn blocks(&mut self, count: usize) -> Result<&mut [Block], OutOfMemory> {
        if self.0.len() < count {
            // Free the old buffer first, so that there are never two.
            self.0 = Vec::new();
            self.0.try_reserve_exact(count).map_err(|_| OutOfMemory)?;
            self.0.resize(count, Block::new());
        }
        self.0.get_mut(..count).ok_or(OutOfMemory)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test]
    async fn jobs_run_on_a_fixed_number_of_threads() {
        let verifiers = Verifiers::start(2).unwrap();
        let mut threads = HashSet::new();
        for _ in 0..50 {
            threads.insert(verifiers.run(|_| thread::current().id()).await.unwrap());
        }
        assert!(threads.len() <= 2, "{threads:?}");
        assert!(!threads.contains(&thread::current().id()));
    }

    #[tokio::test]
    async fn buffer_is_reused_and_grows() {
        let verifiers = Verifiers::start(1).unwrap();
        let buffer = |count| {
            verifiers.run(move |memory| {
                memory.blocks(count).map(|blocks| (blocks.as_ptr() as usize, blocks.len()))
            })
        };
        let (small, length) = buffer(8).await.unwrap().unwrap();
        assert_eq!(length, 8);
        assert_eq!(buffer(8).await.unwrap(), Ok((small, 8)));
        let (large, _) = buffer(4000).await.unwrap().unwrap();
        assert_eq!(buffer(16).await.unwrap(), Ok((large, 16)), "a smaller hash uses the same buffer");
        assert_eq!(buffer(usize::MAX / 1024).await.unwrap(), Err(OutOfMemory));
        assert_eq!(buffer(8).await.unwrap().map(|(_, length)| length), Ok(8));
    }

    #[tokio::test]
    async fn a_panic_ends_one_job_and_no_thread() {
        let verifiers = Verifiers::start(1).unwrap();
        assert_eq!(verifiers.run(|_| -> u8 { panic!("as the test wants it") }).await, None);
        assert_eq!(verifiers.run(|_| 7).await, Some(7));
    }
}
