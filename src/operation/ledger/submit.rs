//! Many submissions, few statements.
//!
//! Submissions gather while those before are being committed; then all of them go into the tables by a few
//! statements. The cost of a submission under load is that of its rows, not of its statements.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::commit::{Write, closed, unavailable};
use super::sql::{Arg, Dialect, Statement, Transaction, args, to_json};
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

/// `max_attempts`, by which an older version of Landfall bounds how often it tries a task; this one does not read it.
const NO_BOUND: i64 = i32::MAX as i64;

/// The insertion of so many rows. A few sizes, each prepared once, serve every number of rows.
static INSERTS: LazyLock<[Insert; 7]> = LazyLock::new(|| [64, 32, 16, 8, 4, 2, 1].map(Insert::of));

struct Insert {
    rows: usize,
    sqlite: String,
    postgres: String,
}

impl Insert {
    fn of(rows: usize) -> Self {
        let mut insert = format!("INSERT INTO task ({}) VALUES ", COLUMNS.join(", "));
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
                let _ = write!(insert, "{before}${}", row * COLUMNS.len() + column + 1);
            }
        }
        Self {
            rows,
            sqlite: format!("{insert}) RETURNING seq"),
            // The rows of their components go in by the same statement: each one is a way to the server and back.
            postgres: format!(
                "WITH new AS ({insert}) RETURNING seq, components), \
                 held AS (INSERT INTO task_component (component, environment, task_seq) \
                   SELECT c.value ->> 'component', c.value ->> 'environment', new.seq \
                   FROM new, jsonb_array_elements(new.components::jsonb) AS c (value)) \
                 SELECT seq FROM new"
            ),
        }
    }

    fn statement(&self) -> Statement<'_> {
        Statement::each(&self.sqlite, &self.postgres)
    }
}

/// What there is before an insertion, in one look. The first row: the newest task's number, and whether an unfinished
/// task has one of the components of `$2`. The others: tasks that the requests of `$1` may join.
pub(in crate::operation) const LOOK: Statement<'_> = Statement::each(
    "SELECT NULL, NULL, (SELECT max(seq) FROM task), \
       EXISTS (SELECT 1 FROM json_each($2) mine JOIN task_component earlier \
         ON earlier.component = mine.value ->> 'component' \
         AND earlier.environment = mine.value ->> 'environment') \
     UNION ALL SELECT dedupe_key, id, NULL, NULL FROM task WHERE dedupe_key IS NOT NULL \
     AND dedupe_key IN (SELECT value FROM json_each($1))",
    // An array has PostgreSQL look each key up, and so has a limit for each component.
    "SELECT NULL, NULL, (SELECT max(seq) FROM task), \
       (SELECT count(*) FROM jsonb_array_elements($2::jsonb) AS mine (value), LATERAL \
         (SELECT FROM task_component earlier WHERE earlier.component = mine.value ->> 'component' \
          AND earlier.environment = mine.value ->> 'environment' LIMIT 1) AS found) \
     UNION ALL SELECT dedupe_key, id, NULL, NULL FROM task WHERE dedupe_key IS NOT NULL \
     AND dedupe_key = ANY (ARRAY (SELECT jsonb_array_elements_text($1::jsonb)))",
);
/// How many tasks wait, counted up to `$1`, and how many run.
pub(in crate::operation) const UNFINISHED: Statement<'_> = Statement::both(
    "SELECT (SELECT count(*) FROM (SELECT 1 FROM task WHERE state = 'queued' LIMIT $1) AS queued), \
     (SELECT count(*) FROM task WHERE lease_until IS NOT NULL)",
);
/// For SQLite; PostgreSQL has it in [`INSERTS`].
pub(in crate::operation) const COMPONENTS: &str = "INSERT INTO task_component (component, environment, task_seq) \
     SELECT c.value ->> 'component', c.value ->> 'environment', t.seq \
     FROM task t, json_each(t.components) c WHERE t.seq >= $1";
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
    let counted = Arc::new(Mutex::new(None));
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        let (entries, replies): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|waiting| (waiting.entry, waiting.reply)).unzip();
        let max_queued = shared.limits.max_queued;
        let all = SubmitAll { entries, shared: shared.clone(), counted: Arc::clone(&counted) };
        match database.queue().write(all).await {
            Ok(Written { verdicts, .. }) => {
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
    payload: Arc<str>,
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
            payload: Arc::clone(&task.payload),
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
            Arg::from(&*self.payload),
            Arg::from(NO_BOUND),
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

/// What was counted when the queue was last counted. To count it for each commit would cost more than the commit, where
/// many wait.
#[derive(Clone, Copy)]
struct Counted {
    /// Tasks that waited or ran, up to the limit.
    unfinished: i64,
    /// The newest task's number at the time.
    newest: i64,
}

impl Counted {
    /// No more than these wait now that `newest` is the newest task's number: whatever waits has waited then, or has
    /// run then, or has come since. By whichever process.
    fn at_most(self, newest: i64) -> i64 {
        self.unfinished.saturating_add((newest - self.newest).max(0))
    }
}

struct SubmitAll {
    entries: Vec<Entry>,
    shared: Shared,
    /// Of the last commit that counted.
    counted: Arc<Mutex<Option<Counted>>>,
}

/// What came of all submissions of a batch.
pub(super) struct Written {
    verdicts: Vec<Verdict>,
    counted: Option<Counted>,
}

#[async_trait]
impl Write for SubmitAll {
    type Answer = Written;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Written> {
        let mut verdicts = Vec::with_capacity(self.entries.len());
        let mut counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in independent_chunks(&self.entries) {
            verdicts.extend(self.write_chunk(chunk, &mut counted, transaction).await?);
        }
        Ok(Written { verdicts, counted })
    }

    fn committed(&self, Written { verdicts, counted }: &Written) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = *counted;
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
        counted: &mut Option<Counted>,
        transaction: &mut dyn Transaction,
    ) -> sqlx::Result<Vec<Verdict>> {
        let Look { in_flight, newest, contended } = look(chunk, transaction).await?;
        let mut room = self.room(chunk.len(), newest, counted, transaction).await?;
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
            insert_all(&accepted, contended, transaction).await?;
        }
        Ok(verdicts)
    }

    /// How many more tasks may wait: no more than that, and all that may where it is less than what is `wanted`.
    async fn room(
        &self,
        wanted: usize,
        newest: i64,
        counted: &mut Option<Counted>,
        transaction: &mut dyn Transaction,
    ) -> sqlx::Result<i64> {
        let max = i64::from(self.shared.limits.max_queued);
        let enough = i64::try_from(wanted).unwrap_or(i64::MAX);
        let at_least = counted.map_or(0, |counted| max - counted.at_most(newest));
        if at_least >= enough {
            return Ok(at_least);
        }
        let rows = transaction.fetch(UNFINISHED, args![max]).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let (queued, running) = (row.int(0)?, row.int(1)?);
        *counted = Some(Counted { unfinished: queued.saturating_add(running), newest });
        Ok((max - queued).max(0))
    }
}

/// `contended`: an unfinished task has one of the components.
async fn insert_all(
    accepted: &[&Entry],
    contended: bool,
    transaction: &mut dyn Transaction,
) -> sqlx::Result<()> {
    let (run_at, submitted_at) = (transaction.now(), transaction.time_of_day());
    let mut first = i64::MAX;
    let mut rest = accepted;
    while let Some((insert, rows, later)) = INSERTS
        .iter()
        .find_map(|insert| rest.split_at_checked(insert.rows).map(|(rows, later)| (insert, rows, later)))
    {
        rest = later;
        let values: Vec<Arg<'_>> = rows.iter().flat_map(|entry| entry.values(run_at, submitted_at)).collect();
        for row in transaction.fetch(insert.statement(), &values).await? {
            first = first.min(row.int(0)?);
        }
    }
    if accepted.iter().all(|entry| entry.components.is_empty()) {
        return Ok(());
    }
    if transaction.dialect() == Dialect::Sqlite {
        transaction.execute(Statement::both(COMPONENTS), args![first]).await?;
    }
    if contended {
        for statement in [BLOCK, SUPERSEDE] {
            transaction.execute(statement, args![first]).await?;
        }
    }
    Ok(())
}

/// What [`LOOK`] tells.
struct Look {
    /// The tasks that entries may join, by dedupe key.
    in_flight: HashMap<String, Token>,
    newest: i64,
    contended: bool,
}

async fn look(chunk: &[Entry], transaction: &mut dyn Transaction) -> sqlx::Result<Look> {
    let keys: Vec<&str> = chunk.iter().map(|entry| entry.dedupe_key.as_str()).collect();
    let components: Vec<&ComponentKey> = chunk.iter().flat_map(|entry| &entry.components).collect();
    let rows = transaction.fetch(LOOK, args![&to_json(&keys)?, &to_json(&components)?]).await?;
    let mut look = Look { in_flight: HashMap::new(), newest: 0, contended: false };
    for row in &rows {
        match row.optional_text(0)? {
            None => {
                look.newest = row.optional_int(2)?.unwrap_or(0);
                look.contended = row.int(3)? != 0;
            }
            Some(key) => {
                look.in_flight.insert(key.to_owned(), row.name(1, |text| text.parse().ok())?);
            }
        }
    }
    Ok(look)
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
            payload: "null".into(),
        };
        Entry::new(&Submission { token: Token::random(), task }).unwrap()
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
        let Insert { sqlite, postgres, .. } = Insert::of(2);
        for sql in [&sqlite, &postgres] {
            assert!(sql.contains("VALUES ($1, $2") && sql.contains("$12), ($13, $14"), "{sql}");
        }
        assert!(sqlite.ends_with("$24) RETURNING seq"), "{sqlite}");
    }

    /// Every number of rows is made of the sizes there are.
    #[test]
    fn the_sizes_of_insertions_go_down_to_one() {
        assert!(INSERTS.windows(2).all(|pair| pair[0].rows > pair[1].rows));
        assert_eq!(INSERTS.last().map(|insert| insert.rows), Some(1));
    }

    #[test]
    fn what_was_counted_bounds_what_waits_later() {
        let counted = Counted { unfinished: 7, newest: 100 };
        assert_eq!(counted.at_most(100), 7);
        assert_eq!(counted.at_most(105), 12);
        // The newest were finished and collected meanwhile.
        assert_eq!(counted.at_most(90), 7);
    }
}
