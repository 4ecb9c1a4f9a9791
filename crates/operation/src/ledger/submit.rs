//! Many submissions with few statements.
//!
//! Submissions gather while earlier ones are committed. Then a few statements insert all of them. Under load, a
//! submission costs only its rows.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::commit::{Write, closed};
use super::fault::failed;
use super::formats::FORMAT;
use super::sql::{Arg, Dialect, Statement, Transaction, args, to_json};
use super::{Database, Shared};
use crate::operation::{Lane, Operation};
use crate::state::State;
use crate::store::{Hint, Limits, Submission};
use crate::task::{ComponentKey, Submitted, Token};
use landfall_adapter::error::{Error, Result};

/// The maximum number of submissions in one commit.
const BATCH: usize = 512;

const COLUMNS: [&str; 15] = [
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
    "format",
    "place",
    "bytes",
];

/// `max_attempts` limits the attempts in older versions of Landfall; this version does not read it.
const NO_BOUND: i64 = i32::MAX as i64;

/// The line of a task is named after the JSON list of its targets. Up to this length in bytes, the list itself
/// is the name; a longer list is hashed, because index keys are limited.
const LONGEST_PLACE: usize = 200;

/// Insert statements for 64, 32, ... and 1 rows. A few sizes, each prepared once, cover every number of rows.
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
            // The same statement inserts the rows of their components, because each statement is a round trip.
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

/// If fewer tasks than this were added since the last count, they are read one by one; otherwise the queue is
/// counted again.
const SINCE: usize = 2_000;

/// Everything that is read before an insert. The first row has the number of the newest task, and whether an
/// unfinished task has one of the components of `$2`. Then follow tasks that the requests of `$1` may join, and
/// the lanes and sizes of tasks after `$3`, at most `$4`.
pub(crate) const LOOK: Statement<'_> = Statement::each(
    "SELECT NULL, NULL, (SELECT max(seq) FROM task), \
       EXISTS (SELECT 1 FROM json_each($2) mine JOIN task_component earlier \
         ON earlier.component = mine.value ->> 'component' \
         AND earlier.environment = mine.value ->> 'environment') \
     UNION ALL SELECT dedupe_key, id, NULL, NULL FROM task WHERE dedupe_key IS NOT NULL \
     AND dedupe_key IN (SELECT value FROM json_each($1)) \
     UNION ALL SELECT * FROM (SELECT lane, NULL, bytes, NULL FROM task WHERE seq > $3 LIMIT $4)",
    // With an array, PostgreSQL looks up each key, and so applies the limit for each component.
    "SELECT NULL, NULL, (SELECT max(seq) FROM task), \
       (SELECT count(*) FROM jsonb_array_elements($2::jsonb) AS mine (value), LATERAL \
         (SELECT FROM task_component earlier WHERE earlier.component = mine.value ->> 'component' \
          AND earlier.environment = mine.value ->> 'environment' LIMIT 1) AS found) \
     UNION ALL SELECT dedupe_key, id, NULL, NULL FROM task WHERE dedupe_key IS NOT NULL \
     AND dedupe_key = ANY (ARRAY (SELECT jsonb_array_elements_text($1::jsonb))) \
     UNION ALL (SELECT lane, NULL, bytes, NULL FROM task WHERE seq > $3 LIMIT $4)",
);
/// The number and size of waiting tasks of a lane, and of all running tasks.
pub(crate) const UNFINISHED: Statement<'_> = Statement::both(
    "SELECT queued.number, queued.bytes, running.number, running.bytes FROM \
       (SELECT count(*) AS number, CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes \
        FROM task WHERE state = 'queued' AND lane = $1) AS queued, \
       (SELECT count(*) AS number, CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes \
        FROM task WHERE lease_until IS NOT NULL) AS running",
);
/// Inserts the components of new tasks. Only for SQLite; on PostgreSQL, [`INSERTS`] does this.
pub(crate) const COMPONENTS: &str = "INSERT INTO task_component (component, environment, task_seq) \
     SELECT c.value ->> 'component', c.value ->> 'environment', t.seq \
     FROM task t, json_each(t.components) c WHERE t.seq >= $1";
/// Blocks each new task that shares a component with an earlier unfinished task.
pub(crate) const BLOCK: Statement<'_> = Statement::both(
    "UPDATE task SET blocked = 1 WHERE seq >= $1 AND EXISTS (\
       SELECT 1 FROM task_component mine JOIN task_component earlier USING (component, environment) \
       WHERE mine.task_seq = task.seq AND earlier.task_seq < task.seq)",
);
/// After a new task, no request joins the earlier tasks of its components any more, because the new task
/// decides the state of the components. Only the nearest earlier task can still be joined, because its own
/// arrival did the same to those before it.
pub(crate) const SUPERSEDE: Statement<'_> = Statement::both(
    "UPDATE task SET dedupe_key = NULL WHERE dedupe_key IS NOT NULL AND seq IN (\
       SELECT (SELECT max(earlier.task_seq) FROM task_component earlier \
               WHERE earlier.component = mine.component AND earlier.environment = mine.environment \
               AND earlier.task_seq < mine.task_seq) \
       FROM task_component mine WHERE mine.task_seq >= $1)",
);

/// Accepts submissions.
pub(super) struct Submissions(mpsc::Sender<Waiting>);

struct Waiting {
    entry: Entry,
    reply: oneshot::Sender<Result<Submitted>>,
}

impl Submissions {
    /// Starts the background task that accepts submissions; it ends when this handle is dropped.
    pub(super) fn start<D: Database>(database: Arc<D>, shared: Shared) -> Self {
        let (sender, receiver) = mpsc::channel(BATCH);
        tokio::spawn(gather(receiver, database, shared));
        Self(sender)
    }

    pub(super) async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        let entry = Entry::new(submission).map_err(failed)?;
        let (reply, answer) = oneshot::channel();
        self.0.send(Waiting { entry, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

async fn gather<D: Database>(mut receiver: mpsc::Receiver<Waiting>, database: Arc<D>, shared: Shared) {
    let mut batch = Vec::with_capacity(BATCH);
    let counted = Arc::default();
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        let (entries, replies): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|waiting| (waiting.entry, waiting.reply)).unzip();
        let limits = shared.limits.clone();
        let all = SubmitAll { entries, shared: shared.clone(), counted: Arc::clone(&counted) };
        match database.queue().write(all).await {
            Ok(Written { verdicts, .. }) => {
                for (reply, verdict) in replies.into_iter().zip(verdicts) {
                    // An error means that the caller stopped waiting. The task is accepted all the same.
                    let _ = reply.send(verdict.answer(&limits));
                }
            }
            Err(error) => {
                let cause = error.report();
                for reply in replies {
                    let text = error.to_string();
                    let same =
                        if error.is_retryable() { Error::retryable(text) } else { Error::permanent(text) };
                    let _ = reply.send(Err(same.because(cause.clone())));
                }
            }
        }
    }
}

/// A submission that is ready to be written.
struct Entry {
    token: Token,
    operation: Operation,
    components: Vec<ComponentKey>,
    id: String,
    components_json: String,
    targets_json: String,
    place: String,
    fingerprint: String,
    dedupe_key: String,
    payload: Arc<str>,
}

impl Entry {
    fn new(submission: &Submission) -> sqlx::Result<Self> {
        let task = &submission.task;
        let components = task.distinct_components();
        let targets_json = to_json(&task.distinct_targets())?;
        Ok(Self {
            token: submission.token,
            operation: task.operation,
            id: submission.token.to_string(),
            components_json: to_json(&components)?,
            components,
            place: place(&targets_json),
            targets_json,
            fingerprint: task.fingerprint.clone(),
            dedupe_key: task.dedupe_key(),
            payload: Arc::clone(&task.payload),
        })
    }

    fn bytes(&self) -> i64 {
        i64::try_from(self.payload.len()).unwrap_or(i64::MAX)
    }

    /// The values of the row, in the order of [`COLUMNS`].
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
            Arg::from(FORMAT),
            Arg::from(&self.place),
            Arg::from(self.bytes()),
        ]
    }
}

/// The line in which a task for these targets waits.
fn place(targets_json: &str) -> String {
    if targets_json.len() <= LONGEST_PLACE {
        return targets_json.to_owned();
    }
    Sha256::digest(targets_json.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The result of an entry.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    Accepted(Token),
    Joined(Token),
    /// The lane has its maximum number of waiting tasks.
    TooMany(Lane),
    /// The waiting tasks of the lane, with this one, would exceed the maximum size.
    TooLarge(Lane, i64),
}

impl Verdict {
    fn answer(self, limits: &Limits) -> Result<Submitted> {
        match self {
            Self::Accepted(token) => Ok(Submitted { token, deduplicated: false }),
            Self::Joined(token) => Ok(Submitted { token, deduplicated: true }),
            Self::TooMany(lane) => Err(Error::overloaded(format!(
                "{} operations are waiting in lane `{}`, which is the limit (operations.max_queued); try again later",
                limits.max_queued,
                lane.as_str()
            ))),
            Self::TooLarge(lane, bytes) => Err(Error::overloaded(format!(
                "the operations that wait in lane `{}` and this one, of {bytes} bytes, are larger than the limit of {} \
                 bytes (operations.max_queued_bytes); try again later",
                lane.as_str(),
                limits.max_queued_bytes
            ))),
        }
    }
}

/// An upper bound of the number of waiting tasks in a lane and of their total payload size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Waits {
    tasks: i64,
    bytes: i64,
}

impl Waits {
    fn add(&mut self, bytes: i64) {
        self.tasks = self.tasks.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// The reason why `entry` may not wait in its lane; `None` if it may. The size of a task does not matter if
    /// no other task waits.
    fn refuses(self, entry: &Entry, limits: &Limits) -> Option<Verdict> {
        let lane = entry.operation.lane();
        let max_bytes = i64::try_from(limits.max_queued_bytes).unwrap_or(i64::MAX);
        if self.tasks >= i64::from(limits.max_queued) {
            Some(Verdict::TooMany(lane))
        } else if self.tasks > 0 && self.bytes.saturating_add(entry.bytes()) > max_bytes {
            Some(Verdict::TooLarge(lane, entry.bytes()))
        } else {
            None
        }
    }
}

/// The last count of the queue, plus the tasks that any process added since: an upper bound of what waits. Counting
/// the queue for each commit would cost more than the commit if many tasks wait.
#[derive(Clone, Default)]
struct Counted {
    /// Waiting and running tasks by lane, at the last count.
    lanes: HashMap<Lane, Waits>,
    /// The newest task at the last look.
    newest: i64,
}

impl Counted {
    /// Adds the tasks after [`Self::newest`], given by lane and size. `None` means that there are too many;
    /// then the counts are discarded.
    fn catch_up(&mut self, since: Option<Vec<(String, i64)>>, newest: i64) {
        match since {
            None => self.lanes.clear(),
            Some(since) => {
                for (lane, waits) in &mut self.lanes {
                    since
                        .iter()
                        .filter(|(of, _)| of == lane.as_str())
                        .for_each(|(_, bytes)| waits.add(*bytes));
                }
            }
        }
        self.newest = newest;
    }
}

struct SubmitAll {
    entries: Vec<Entry>,
    shared: Shared,
    /// The counts as of the last commit.
    counted: Arc<Mutex<Counted>>,
}

/// The results of all submissions of a batch.
pub(super) struct Written {
    verdicts: Vec<Verdict>,
    counted: Counted,
}

#[async_trait]
impl Write for SubmitAll {
    type Answer = Written;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Written> {
        let mut verdicts = Vec::with_capacity(self.entries.len());
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for chunk in independent_chunks(&self.entries) {
            verdicts.extend(self.write_chunk(chunk, &mut counted, transaction).await?);
        }
        Ok(Written { verdicts, counted })
    }

    fn committed(&self, Written { verdicts, counted }: &Written) {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone_from(counted);
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

/// Splits a batch before each entry that shares a component with a different earlier entry. The later entry
/// changes which task a request may join, so one statement cannot insert both.
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
        counted: &mut Counted,
        transaction: &mut dyn Transaction,
    ) -> sqlx::Result<Vec<Verdict>> {
        let Look { in_flight, newest, contended, since } = look(chunk, counted.newest, transaction).await?;
        counted.catch_up(since, newest);
        let mut waiting = self.waiting(chunk, counted, transaction).await?;
        let mut joinable: HashMap<&str, Token> = HashMap::new();
        let mut accepted = Vec::new();
        let mut verdicts = Vec::with_capacity(chunk.len());
        for entry in chunk {
            let key = entry.dedupe_key.as_str();
            let waits = waiting.entry(entry.operation.lane()).or_default();
            verdicts.push(if let Some(token) = in_flight.get(key).or_else(|| joinable.get(key)) {
                Verdict::Joined(*token)
            } else if let Some(refused) = waits.refuses(entry, &self.shared.limits) {
                refused
            } else {
                waits.add(entry.bytes());
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

    /// What waits in the lanes of the chunk: an upper bound, or the exact value if one of the entries might be
    /// refused.
    async fn waiting(
        &self,
        chunk: &[Entry],
        counted: &mut Counted,
        transaction: &mut dyn Transaction,
    ) -> sqlx::Result<HashMap<Lane, Waits>> {
        let mut waiting: HashMap<Lane, Waits> = HashMap::new();
        for entry in chunk {
            let lane = entry.operation.lane();
            if waiting.contains_key(&lane) {
                continue;
            }
            if let Some(at_most) = counted.lanes.get(&lane) {
                let mut full = *at_most;
                let fits = chunk.iter().filter(|other| other.operation.lane() == lane).all(|other| {
                    let fits = full.refuses(other, &self.shared.limits).is_none();
                    full.add(other.bytes());
                    fits
                });
                if fits {
                    waiting.insert(lane, *at_most);
                    continue;
                }
            }
            let rows = transaction.fetch(UNFINISHED, args![lane.as_str()]).await?;
            let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            let queued = Waits { tasks: row.int(0)?, bytes: row.int(1)? };
            // Running tasks may return to the queue.
            let unfinished = Waits {
                tasks: queued.tasks.saturating_add(row.int(2)?),
                bytes: queued.bytes.saturating_add(row.int(3)?),
            };
            counted.lanes.insert(lane, unfinished);
            waiting.insert(lane, queued);
        }
        Ok(waiting)
    }
}

/// Inserts the accepted entries. `contended`: an unfinished task has one of their components.
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

/// The result of [`LOOK`].
struct Look {
    /// Tasks that entries may join, by deduplication key.
    in_flight: HashMap<String, Token>,
    newest: i64,
    contended: bool,
    /// Lane and size of each later task; `None` if there are too many of them.
    since: Option<Vec<(String, i64)>>,
}

async fn look(chunk: &[Entry], counted_until: i64, transaction: &mut dyn Transaction) -> sqlx::Result<Look> {
    let keys: Vec<&str> = chunk.iter().map(|entry| entry.dedupe_key.as_str()).collect();
    let components: Vec<&ComponentKey> = chunk.iter().flat_map(|entry| &entry.components).collect();
    let most = i64::try_from(SINCE).unwrap_or(i64::MAX);
    let (keys, components) = (to_json(&keys)?, to_json(&components)?);
    let rows = transaction.fetch(LOOK, args![&keys, &components, counted_until, most]).await?;
    let (mut in_flight, mut since) = (HashMap::new(), Vec::new());
    let (mut newest, mut contended) = (0, false);
    for row in &rows {
        match (row.optional_text(0)?, row.optional_text(1)?) {
            (None, _) => {
                newest = row.optional_int(2)?.unwrap_or(0);
                contended = row.int(3)? != 0;
            }
            (Some(lane), None) => since.push((lane.to_owned(), row.int(2)?)),
            (Some(key), Some(_)) => {
                in_flight.insert(key.to_owned(), row.name(1, |text| text.parse().ok())?);
            }
        }
    }
    let since = (since.len() < SINCE).then_some(since);
    Ok(Look { in_flight, newest, contended, since })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewTask;

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

    /// A batch behaves like single submissions: a request joins a task that leaves its components in the requested
    /// state, and that no other task follows.
    #[test]
    fn batch_ends_where_the_order_matters() {
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
    fn parameters_are_numbered_consecutively() {
        let Insert { sqlite, postgres, .. } = Insert::of(2);
        for sql in [&sqlite, &postgres] {
            assert!(sql.contains("VALUES ($1, $2") && sql.contains("$15), ($16, $17"), "{sql}");
        }
        assert!(sqlite.ends_with("$30) RETURNING seq"), "{sqlite}");
    }

    /// The sizes cover every number of rows.
    #[test]
    fn insertion_sizes_go_down_to_one() {
        assert!(INSERTS.windows(2).all(|pair| pair[0].rows > pair[1].rows));
        assert_eq!(INSERTS.last().map(|insert| insert.rows), Some(1));
    }

    #[test]
    fn last_count_and_later_tasks_limit_the_queue() {
        let waits = Waits { tasks: 7, bytes: 70 };
        let mut counted = Counted { lanes: HashMap::from([(Lane::Change, waits)]), newest: 100 };
        counted.catch_up(Some(vec![("change".to_owned(), 5), ("validation".to_owned(), 9)]), 102);
        assert_eq!(counted.lanes[&Lane::Change], Waits { tasks: 8, bytes: 75 });
        assert_eq!(
            (counted.lanes.len(), counted.newest),
            (1, 102),
            "a lane that was not counted stays unknown"
        );
        counted.catch_up(None, 9_000);
        assert!(counted.lanes.is_empty());
    }
}
