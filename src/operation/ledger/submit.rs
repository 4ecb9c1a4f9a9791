//! Many submissions, few statements.
//!
//! Submissions gather while those before are being committed; then all of them go into the tables by a few
//! statements. The cost of a submission under load is that of its rows, not of its statements.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::commit::{Write, closed, unavailable};
use super::sql::{Arg, Statement, Transaction, args, to_json};
use super::{Database, Shared};
use crate::error::{Error, Result};
use crate::operation::state::State;
use crate::operation::store::{Hint, Submission};
use crate::operation::task::{ComponentKey, Lane, Operation, Submitted, Token};

/// Submissions committed together at most.
const BATCH: usize = 512;

const COLUMNS: [&str; 12] = [
    "id",
    "operation",
    "lane",
    "components",
    "targets",
    "fingerprint",
    "dedupe_key",
    "state",
    "payload",
    "max_attempts",
    "run_at",
    "submitted_at",
];

/// The insertion of so many rows. A few sizes, each prepared once, serve every number of rows.
static INSERTS: LazyLock<[(usize, String); 3]> =
    LazyLock::new(|| [32, 4, 1].map(|rows| (rows, insert(rows))));

fn insert(rows: usize) -> String {
    let mut sql = format!("INSERT INTO task ({}) VALUES ", COLUMNS.join(", "));
    for row in 0..rows {
        for column in 0..COLUMNS.len() {
            let before = if column > 0 {
                ", "
            } else if row > 0 {
                "), ("
            } else {
                "("
            };
            // Writing to a string cannot fail.
            let _ = write!(sql, "{before}${}", row * COLUMNS.len() + column + 1);
        }
    }
    sql.push_str(") RETURNING seq");
    sql
}

pub(in crate::operation) const IN_FLIGHT: Statement<'_> = Statement::each(
    "SELECT dedupe_key, id FROM task WHERE dedupe_key IS NOT NULL \
     AND dedupe_key IN (SELECT value FROM json_each($1))",
    "SELECT dedupe_key, id FROM task WHERE dedupe_key IS NOT NULL \
     AND dedupe_key IN (SELECT jsonb_array_elements_text($1::jsonb))",
);
pub(in crate::operation) const QUEUED: Statement<'_> =
    Statement::both("SELECT count(*) FROM (SELECT 1 FROM task WHERE state = 'queued' LIMIT $1) AS queued");
pub(in crate::operation) const COMPONENTS: Statement<'_> = Statement::each(
    "INSERT INTO task_component (component, environment, task_seq) \
     SELECT c.value ->> 'component', c.value ->> 'environment', t.seq \
     FROM task t, json_each(t.components) c WHERE t.seq >= $1",
    "INSERT INTO task_component (component, environment, task_seq) \
     SELECT c.value ->> 'component', c.value ->> 'environment', t.seq \
     FROM task t, jsonb_array_elements(t.components::jsonb) AS c (value) WHERE t.seq >= $1",
);
/// Whatever comes after another task on a component waits for it ...
pub(in crate::operation) const BLOCK: Statement<'_> = Statement::both(
    "UPDATE task SET blocked = 1 WHERE seq >= $1 AND EXISTS (\
       SELECT 1 FROM task_component mine JOIN task_component earlier USING (component, environment) \
       WHERE mine.task_seq = task.seq AND earlier.task_seq < task.seq)",
);
/// ... and is the last word on it: nobody joins the other one any more. Only the nearest can still be open to joining,
/// those before it were closed when it came.
pub(in crate::operation) const SUPERSEDE: Statement<'_> = Statement::both(
    "UPDATE task SET dedupe_key = NULL WHERE dedupe_key IS NOT NULL AND seq IN (\
       SELECT (SELECT max(earlier.task_seq) FROM task_component earlier \
               WHERE earlier.component = mine.component AND earlier.environment = mine.environment \
               AND earlier.task_seq < mine.task_seq) \
       FROM task_component mine WHERE mine.task_seq >= $1)",
);

/// The way in for submissions.
pub(super) struct Submissions(mpsc::Sender<Waiting>);

struct Waiting {
    entry: Entry,
    reply: oneshot::Sender<Result<Submitted>>,
}

impl Submissions {
    /// Begins to take submissions; ends when dropped.
    pub(super) fn start<D: Database>(database: Arc<D>, shared: Shared) -> Self {
        let (sender, receiver) = mpsc::channel(BATCH);
        tokio::spawn(gather(receiver, database, shared));
        Self(sender)
    }

    pub(super) async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        let entry = Entry::new(submission).map_err(unavailable)?;
        let (reply, answer) = oneshot::channel();
        self.0.send(Waiting { entry, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

async fn gather<D: Database>(mut receiver: mpsc::Receiver<Waiting>, database: Arc<D>, shared: Shared) {
    let mut batch = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        let (entries, replies): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|waiting| (waiting.entry, waiting.reply)).unzip();
        let max_queued = shared.limits.max_queued;
        match database.queue().write(SubmitAll { entries, shared: shared.clone() }).await {
            Ok(verdicts) => {
                for (reply, verdict) in replies.into_iter().zip(verdicts) {
                    // An error means that the caller stopped waiting. The task is kept all the same.
                    let _ = reply.send(verdict.answer(max_queued));
                }
            }
            Err(error) => {
                let cause = error.report();
                for reply in replies {
                    let _ = reply.send(Err(Error::retryable(error.to_string()).because(cause.clone())));
                }
            }
        }
    }
}

/// A submission, ready to be written.
struct Entry {
    token: Token,
    operation: Operation,
    components: Vec<ComponentKey>,
    id: String,
    components_json: String,
    targets_json: String,
    fingerprint: String,
    dedupe_key: String,
    payload: String,
    max_attempts: u32,
}

impl Entry {
    fn new(submission: &Submission) -> sqlx::Result<Self> {
        let task = &submission.task;
        let components = task.distinct_components();
        Ok(Self {
            token: submission.token,
            operation: task.operation,
            id: submission.token.to_string(),
            components_json: to_json(&components)?,
            components,
            targets_json: to_json(&task.distinct_targets())?,
            fingerprint: task.fingerprint.clone(),
            dedupe_key: task.dedupe_key(),
            payload: to_json(&task.payload)?,
            max_attempts: submission.max_attempts,
        })
    }

    /// In the order of [`COLUMNS`].
    fn values(&self, run_at: i64, submitted_at: i64) -> [Arg<'_>; COLUMNS.len()] {
        [
            Arg::from(&self.id),
            Arg::from(self.operation.as_str()),
            Arg::from(self.operation.lane().as_str()),
            Arg::from(&self.components_json),
            Arg::from(&self.targets_json),
            Arg::from(&self.fingerprint),
            Arg::from(&self.dedupe_key),
            Arg::from(State::Queued.as_str()),
            Arg::from(&self.payload),
            Arg::from(self.max_attempts),
            Arg::from(run_at),
            Arg::from(submitted_at),
        ]
    }
}

/// What became of an entry.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    Accepted(Token),
    Joined(Token),
    Refused,
}

impl Verdict {
    fn answer(self, max_queued: u32) -> Result<Submitted> {
        match self {
            Self::Accepted(token) => Ok(Submitted { token, deduplicated: false }),
            Self::Joined(token) => Ok(Submitted { token, deduplicated: true }),
            Self::Refused => Err(Error::overloaded(format!(
                "{max_queued} operations are waiting, which is the limit; try again later"
            ))),
        }
    }
}

struct SubmitAll {
    entries: Vec<Entry>,
    shared: Shared,
}

#[async_trait]
impl Write for SubmitAll {
    type Answer = Vec<Verdict>;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Vec<Verdict>> {
        let mut verdicts = Vec::with_capacity(self.entries.len());
        for chunk in independent_chunks(&self.entries) {
            verdicts.extend(self.write_chunk(chunk, transaction).await?);
        }
        Ok(verdicts)
    }

    fn committed(&self, verdicts: &Vec<Verdict>) {
        let lanes: HashSet<Lane> = self
            .entries
            .iter()
            .zip(verdicts)
            .filter(|(_, verdict)| matches!(verdict, Verdict::Accepted(_)))
            .map(|(entry, _)| entry.operation.lane())
            .collect();
        for lane in lanes {
            self.shared.hint(Hint::Queued(lane));
        }
    }
}

/// Cuts where an entry shares a component with a different earlier one: each of the two changes what the other may
/// join, so they cannot go in by the same statement.
fn independent_chunks(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut chunks = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut owners: HashMap<&ComponentKey, &str> = HashMap::new();
        let length = rest
            .iter()
            .position(|entry| {
                let key = entry.dedupe_key.as_str();
                entry.components.iter().any(|component| *owners.entry(component).or_insert(key) != key)
            })
            .unwrap_or(rest.len());
        let (chunk, later) = rest.split_at(length);
        chunks.push(chunk);
        rest = later;
    }
    chunks
}

impl SubmitAll {
    async fn write_chunk(
        &self,
        chunk: &[Entry],
        transaction: &mut dyn Transaction,
    ) -> sqlx::Result<Vec<Verdict>> {
        let in_flight = in_flight(chunk, transaction).await?;
        let mut room = self.room(transaction).await?;
        let mut joinable: HashMap<&str, Token> = HashMap::new();
        let mut accepted = Vec::new();
        let mut verdicts = Vec::with_capacity(chunk.len());
        for entry in chunk {
            let key = entry.dedupe_key.as_str();
            verdicts.push(if let Some(token) = in_flight.get(key).or_else(|| joinable.get(key)) {
                Verdict::Joined(*token)
            } else if room == 0 {
                Verdict::Refused
            } else {
                room -= 1;
                joinable.insert(key, entry.token);
                accepted.push(entry);
                Verdict::Accepted(entry.token)
            });
        }
        if !accepted.is_empty() {
            insert_all(&accepted, transaction).await?;
        }
        Ok(verdicts)
    }

    /// How many more tasks may wait.
    async fn room(&self, transaction: &mut dyn Transaction) -> sqlx::Result<i64> {
        let max = i64::from(self.shared.limits.max_queued);
        let rows = transaction.fetch(QUEUED, args![max]).await?;
        let queued = rows.first().map_or(Ok(0), |row| row.int(0))?;
        Ok((max - queued).max(0))
    }
}

async fn insert_all(accepted: &[&Entry], transaction: &mut dyn Transaction) -> sqlx::Result<()> {
    let (run_at, submitted_at) = (transaction.now(), transaction.time_of_day());
    let mut first = i64::MAX;
    let mut rest = accepted;
    while let Some((sql, rows, later)) = INSERTS
        .iter()
        .find_map(|(size, sql)| rest.split_at_checked(*size).map(|(rows, later)| (sql, rows, later)))
    {
        rest = later;
        let values: Vec<Arg<'_>> = rows.iter().flat_map(|entry| entry.values(run_at, submitted_at)).collect();
        for row in transaction.fetch(Statement::both(sql), &values).await? {
            first = first.min(row.int(0)?);
        }
    }
    if accepted.iter().all(|entry| entry.components.is_empty()) {
        return Ok(());
    }
    for statement in [COMPONENTS, BLOCK, SUPERSEDE] {
        transaction.execute(statement, args![first]).await?;
    }
    Ok(())
}

/// The tasks that entries may join, by dedupe key.
async fn in_flight(
    chunk: &[Entry],
    transaction: &mut dyn Transaction,
) -> sqlx::Result<HashMap<String, Token>> {
    let keys: Vec<&str> = chunk.iter().map(|entry| entry.dedupe_key.as_str()).collect();
    transaction
        .fetch(IN_FLIGHT, args![&to_json(&keys)?])
        .await?
        .iter()
        .map(|row| Ok((row.text(0)?.to_owned(), row.name(1, |text| text.parse().ok())?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::NewTask;

    fn entry(operation: Operation, components: &[&str]) -> Entry {
        let task = NewTask {
            operation,
            components: components.iter().map(|name| ComponentKey::new(*name, "dev")).collect(),
            targets: Vec::new(),
            fingerprint: "f".to_owned(),
            payload: serde_json::Value::Null,
            max_attempts: None,
        };
        Entry::new(&Submission { token: Token::random(), task, max_attempts: 1 }).unwrap()
    }

    /// In a batch as one after the other: a request joins what would leave its components as it asks, and nothing
    /// that another one follows.
    #[test]
    fn a_batch_is_cut_where_the_order_matters() {
        use Operation::{Provision, Unprovision, Validate};
        let lengths = |entries: &[Entry]| -> Vec<usize> {
            independent_chunks(entries).iter().map(|chunk| chunk.len()).collect()
        };
        let up = |name| entry(Provision, &[name]);
        let down = |name| entry(Unprovision, &[name]);
        assert_eq!(lengths(&[]), Vec::<usize>::new());
        assert_eq!(lengths(&[up("a"), up("b"), up("a"), down("c")]), [4]);
        assert_eq!(lengths(&[up("a"), down("a"), up("a")]), [1, 1, 1]);
        assert_eq!(lengths(&[up("a"), up("a"), down("b"), down("a"), up("b")]), [3, 2]);
        assert_eq!(lengths(&[up("a"), entry(Provision, &["a", "b"]), up("b")]), [1, 1, 1]);
        assert_eq!(lengths(&[entry(Validate, &[]), entry(Validate, &[]), up("a")]), [3]);
    }

    #[test]
    fn parameters_are_numbered_through() {
        let sql = insert(2);
        assert!(sql.contains("VALUES ($1, $2"), "{sql}");
        assert!(sql.contains("$12), ($13, $14") && sql.ends_with("$24) RETURNING seq"), "{sql}");
    }
}
