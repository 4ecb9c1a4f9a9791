//! One writer for many callers: writes that arrive while the disk is busy are committed together.
//!
//! A flush takes milliseconds. An actor owns the one connection that writes. It commits everything that arrived since
//! the last commit as one transaction (group commit), so all of it shares the flush. If the shared transaction fails,
//! each part is tried alone, so that a write that cannot succeed does not affect others.

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::fault::{Fault, failed};
use super::sql::Transaction;
use landfall_adapter::error::{Error, Result};

/// The maximum number of jobs that wait for the writer; then callers wait.
const QUEUE: usize = 1024;
/// The maximum number of jobs in one commit.
const BATCH: usize = 256;

/// A write. It runs in a transaction that other writes may share, and may run a second time, alone, if that
/// transaction fails. It must not keep state of the first run.
#[async_trait]
pub(crate) trait Write: Send + Sync + 'static {
    /// The result for the caller after the commit.
    type Answer: Send + Sync + 'static;

    /// Reads and writes. An error rolls the transaction back.
    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Self::Answer>;

    /// Called once after the commit, even if the caller has gone.
    fn committed(&self, _answer: &Self::Answer) {}
}

/// The connection that writes, and how to replace it.
#[async_trait]
pub(crate) trait Connection: Send + 'static {
    /// Begins a transaction. All other transactions of writers, in any process, have ended, and their changes are
    /// visible.
    async fn begin(&mut self) -> sqlx::Result<&mut dyn Transaction>;

    /// Commits; the data is on disk when this returns.
    async fn commit(&mut self) -> sqlx::Result<()>;

    /// After a failure, discards uncommitted changes, with a new connection if necessary. Returns `true` if nothing
    /// was committed and the connection caused the failure, so that an immediate retry may succeed.
    async fn recover(&mut self, error: &sqlx::Error) -> bool;

    /// One short step of housekeeping between two transactions. Returns whether there is more to do.
    async fn tidy(&mut self) -> sqlx::Result<bool> {
        Ok(false)
    }

    /// Closes the database.
    async fn close(self);
}

/// A handle of the writer.
pub(crate) struct Writer(mpsc::Sender<Message>);

impl Writer {
    /// Starts the writer, which ends when the handle is dropped or closed.
    pub(crate) fn start(connection: impl Connection) -> Self {
        let (writer, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(run(connection, jobs));
        Self(writer)
    }

    /// Commits `work` and returns its result. The commit also happens if the caller stops waiting.
    pub(crate) async fn write<W: Write>(&self, work: W) -> Result<W::Answer> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Call { work, answer: None, reply });
        self.0.send(Message::Write(job)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// One short step of housekeeping. Returns whether there is more to do.
    pub(crate) async fn tidy(&self) -> Result<bool> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Tidy(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?.map_err(failed)
    }

    /// Commits all accepted work and closes the database.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.send(Message::Close(done)).await.is_ok() {
            // An error means that the writer has ended.
            let _ = closed.await;
        }
    }
}

/// The transient error of a database that does not respond.
pub(crate) fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Fault::Away.error(error)
}

pub(crate) fn closed() -> Error {
    Error::retryable("the operation store is closing; try again later")
}

enum Message {
    Write(Box<dyn Job>),
    Tidy(oneshot::Sender<sqlx::Result<bool>>),
    Close(oneshot::Sender<()>),
}

/// A [`Write`] of any type, with the channel to its caller.
#[async_trait]
trait Job: Send {
    /// Runs in a transaction, and a second time if the first transaction failed.
    async fn attempt(&mut self, transaction: &mut dyn Transaction) -> sqlx::Result<()>;

    /// Sends the result to the caller, after the commit or the last failure.
    fn conclude(self: Box<Self>, committed: Result<()>);
}

struct Call<W: Write> {
    work: W,
    answer: Option<W::Answer>,
    reply: oneshot::Sender<Result<W::Answer>>,
}

#[async_trait]
impl<W: Write> Job for Call<W> {
    async fn attempt(&mut self, transaction: &mut dyn Transaction) -> sqlx::Result<()> {
        self.answer = Some(self.work.write(transaction).await?);
        Ok(())
    }

    fn conclude(self: Box<Self>, committed: Result<()>) {
        let outcome = match (committed, self.answer) {
            (Ok(()), Some(answer)) => {
                self.work.committed(&answer);
                Ok(answer)
            }
            (Ok(()), None) => Err(Error::permanent("a write was committed without being run")),
            (Err(error), _) => Err(error),
        };
        // An error means that the caller stopped waiting.
        let _ = self.reply.send(outcome);
    }
}

async fn run(mut connection: impl Connection, mut jobs: mpsc::Receiver<Message>) {
    let mut messages = Vec::with_capacity(BATCH);
    let (mut close, mut tidy) = (None, None);
    while close.is_none() && jobs.recv_many(&mut messages, BATCH).await > 0 {
        let mut batch = Vec::with_capacity(messages.len());
        for message in messages.drain(..) {
            match message {
                Message::Write(job) => batch.push(job),
                Message::Tidy(done) => tidy = Some(done),
                Message::Close(done) => close = Some(done),
            }
        }
        if !batch.is_empty() {
            commit(&mut connection, batch).await;
        }
        if let Some(done) = tidy.take() {
            // An error means that no caller waits.
            let _ = done.send(connection.tidy().await);
        }
    }
    connection.close().await;
    if let Some(done) = close {
        // An error means that the caller stopped waiting.
        let _ = done.send(());
    }
}

/// Commits the jobs together. If that fails because of one of them, commits each by itself.
async fn commit(connection: &mut impl Connection, mut jobs: Vec<Box<dyn Job>>) {
    let together = transaction(connection, &mut jobs).await;
    let several = jobs.len() > 1;
    // If there is no connection, the other jobs fail at once, without an attempt of their own.
    let mut gone = together.as_ref().err().filter(|failure| !failure.may_be_of_one).cloned();
    for job in jobs {
        let mut alone = [job];
        let failed = match (&together, &gone) {
            (Ok(()), _) => None,
            (Err(_), Some(failure)) => Some(failure.clone()),
            (Err(_), None) if several => {
                let failure = transaction(connection, &mut alone).await.err();
                gone = failure.as_ref().filter(|failure| !failure.may_be_of_one).cloned();
                failure
            }
            (Err(failure), None) => Some(failure.clone()),
        };
        let [job] = alone;
        job.conclude(failed.map_or(Ok(()), |failure| Err(failure.fault.error(failure.cause))));
    }
}

#[derive(Clone)]
struct Failure {
    fault: Fault,
    cause: String,
    /// Whether the same jobs may succeed one by one: not without a connection to the database.
    may_be_of_one: bool,
}

async fn transaction(connection: &mut impl Connection, jobs: &mut [Box<dyn Job>]) -> Result<(), Failure> {
    let mut outcome = attempt(connection, jobs).await;
    if let Err(error) = &outcome
        && connection.recover(error).await
    {
        outcome = attempt(connection, jobs).await;
        if let Err(error) = &outcome {
            connection.recover(error).await;
        }
    }
    outcome.map_err(|error| Failure {
        fault: Fault::of(&error),
        may_be_of_one: !matches!(
            error,
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Configuration(_)
        ),
        cause: error.to_string(),
    })
}

async fn attempt(connection: &mut impl Connection, jobs: &mut [Box<dyn Job>]) -> sqlx::Result<()> {
    let transaction = connection.begin().await?;
    for job in jobs {
        job.attempt(transaction).await?;
    }
    connection.commit().await
}
