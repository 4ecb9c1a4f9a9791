//! One writer for everybody: what asks to be written while the disk is busy is committed together.
//!
//! A flush takes milliseconds. An actor holds the one connection that writes and takes whatever has gathered since
//! the last commit as one transaction ("group commit"); the flush is shared by all who wait for it. When the shared
//! transaction fails, each of its parts is tried alone, so that a write that cannot succeed takes nobody with it.

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::fault::{Fault, failed};
use super::sql::Transaction;
use landfall_adapter::error::{Error, Result};

/// Jobs that may wait for the writer before callers wait to hand theirs over.
const QUEUE: usize = 1024;
/// Jobs committed together at most.
const BATCH: usize = 256;

/// Something to write. It runs inside a transaction that others may share, and may run a second time, alone, when
/// the shared transaction failed: what it keeps of a run must not survive into the next.
#[async_trait]
pub(crate) trait Write: Send + Sync + 'static {
    /// What the caller learns after the commit.
    type Answer: Send + Sync + 'static;

    /// Reads and writes. An error rolls the transaction back.
    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Self::Answer>;

    /// Called once after the commit, even when the caller has gone.
    fn committed(&self, _answer: &Self::Answer) {}
}

/// The connection that writes, and how to get another one.
#[async_trait]
pub(crate) trait Connection: Send + 'static {
    /// Begins a transaction. Every other one that goes through a writer has ended, in whatever process, and what it
    /// wrote is seen.
    async fn begin(&mut self) -> sqlx::Result<&mut dyn Transaction>;

    /// Makes it last: on disk when this returns.
    async fn commit(&mut self) -> sqlx::Result<()>;

    /// After a failure: gets rid of what was not committed, with a new connection if need be. Answers whether the same
    /// may fare better at once: `true` where nothing was committed and the connection was to blame.
    async fn recover(&mut self, error: &sqlx::Error) -> bool;

    /// One small step of housekeeping between two transactions. Answers whether there is more to do.
    async fn tidy(&mut self) -> sqlx::Result<bool> {
        Ok(false)
    }

    /// Lets go of the database.
    async fn close(self);
}

/// The way to the writer.
pub(crate) struct Writer(mpsc::Sender<Message>);

impl Writer {
    /// Begins to write; ends when dropped or closed.
    pub(crate) fn start(connection: impl Connection) -> Self {
        let (writer, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(run(connection, jobs));
        Self(writer)
    }

    /// Commits `work` and answers what it found out. The commit happens even when the caller stops waiting.
    pub(crate) async fn write<W: Write>(&self, work: W) -> Result<W::Answer> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Call { work, answer: None, reply });
        self.0.send(Message::Write(job)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// One small step of housekeeping. Answers whether there is more to do.
    pub(crate) async fn tidy(&self) -> Result<bool> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Tidy(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?.map_err(failed)
    }

    /// Commits what was handed over and lets go of the database.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.send(Message::Close(done)).await.is_ok() {
            // An error means that the writer is gone already.
            let _ = closed.await;
        }
    }
}

/// No word from the database; that may pass.
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

/// A [`Write`] without its type, with the way back to its caller.
#[async_trait]
trait Job: Send {
    /// Runs inside a transaction; a second time when the first transaction failed.
    async fn attempt(&mut self, transaction: &mut dyn Transaction) -> sqlx::Result<()>;

    /// Tells the caller, after the commit or the last failure.
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
            // An error means that nobody wants to know.
            let _ = done.send(connection.tidy().await);
        }
    }
    connection.close().await;
    if let Some(done) = close {
        // An error means that the closer stopped waiting.
        let _ = done.send(());
    }
}

/// Commits the jobs together or, where that fails for a reason of one of them, each by itself.
async fn commit(connection: &mut impl Connection, mut jobs: Vec<Box<dyn Job>>) {
    let together = transaction(connection, &mut jobs).await;
    let several = jobs.len() > 1;
    // Once there is no database to talk to, the rest need not find that out one by one.
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
    /// Whether the same jobs, one by one, may fare better: not when there is no database to talk to.
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
