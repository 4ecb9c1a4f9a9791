//! Instances are read as a whole, from a cache while it is known to be current, and edited one at a time.
//!
//! Edits go through the queue writer, so each sees all earlier ones, from any process. No appended value is lost, and
//! no code is used twice.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::commit::Write;
use super::sql::{Row, Statement, Transaction, args, to_json};
use super::{Database, Ledger, read, unreadable};
use crate::topology::{Attributes, Edit, Instance, TopologyLimits, code_key};
use landfall_adapter::descriptor::Problem;
use landfall_adapter::error::{Error, Result};

/// The number before the first id: the first instance gets the next one.
const FIRST_ID: i64 = 11_000;

const CODE: &str = "instanceCode";

pub(crate) const REVISION: Statement<'_> = Statement::both("SELECT revision FROM topology WHERE one = 1");
/// The revision is in each row, so that one statement reads a consistent state.
pub(crate) const INSTANCES: Statement<'_> = Statement::both(
    "SELECT t.revision, i.id, i.attributes FROM topology t LEFT JOIN instance i ON 1 = 1 WHERE t.one = 1 ORDER BY i.id",
);
const REVISE: Statement<'_> =
    Statement::both("UPDATE topology SET revision = revision + 1 WHERE one = 1 RETURNING revision");
const BY_CODE: Statement<'_> = Statement::both("SELECT id FROM instance WHERE code_key = $1");
const BY_ID: Statement<'_> = Statement::both("SELECT attributes FROM instance WHERE id = $1");
const LAST: Statement<'_> = Statement::both("SELECT coalesce(max(id), $1), count(*) FROM instance");
const INSERT: Statement<'_> =
    Statement::both("INSERT INTO instance (id, code_key, attributes) VALUES ($1, $2, $3)");
const UPDATE: Statement<'_> =
    Statement::both("UPDATE instance SET code_key = $2, attributes = $3 WHERE id = $1");
const SEED: Statement<'_> =
    Statement::both("INSERT INTO seeded_target (code_key) VALUES ($1) ON CONFLICT (code_key) DO NOTHING");

/// The cached instances and their revision.
#[derive(Default)]
pub(super) struct Copy {
    latest: Latest,
    kept: Mutex<Option<(i64, Arc<[Instance]>)>>,
}

/// The last revision that this process wrote or read; zero before the first.
type Latest = Arc<AtomicI64>;

impl Copy {
    fn of(&self, revision: i64) -> Option<Arc<[Instance]>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(of, _)| *of == revision).map(|(_, instances)| Arc::clone(instances))
    }
}

/// All instances by id.
pub(super) async fn all<D: Database>(ledger: &Ledger<D>) -> Result<Arc<[Instance]>> {
    let copy = &ledger.instances;
    let revision = if ledger.database.is_exclusive() {
        // No other process can have changed them.
        copy.latest.load(Ordering::Acquire)
    } else {
        let rows = read(ledger, REVISION, args![]).await?;
        let revision = rows.first().map(|row| row.int(0)).transpose();
        revision.map_err(|error| unreadable("a topology", error))?.unwrap_or_default()
    };
    if let Some(instances) = copy.of(revision) {
        return Ok(instances);
    }
    let rows = read(ledger, INSTANCES, args![]).await?;
    let (revision, instances) = snapshot(&rows).map_err(|error| unreadable("an instance", error))?;
    copy.latest.fetch_max(revision, Ordering::AcqRel);
    *copy.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((revision, Arc::clone(&instances)));
    Ok(instances)
}

fn snapshot(rows: &[Row]) -> sqlx::Result<(i64, Arc<[Instance]>)> {
    let revision = rows.first().map_or(Ok(0), |row| row.int(0))?;
    let mut instances = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(id) = row.optional_int(1)? {
            match row.json(2) {
                Ok(attributes) => instances.push(Instance { id, attributes }),
                // Landfall places nothing new there. Other instances still work, and existing components have stored
                // deployments.
                Err(error) => {
                    log::error!(instance = id; "an instance of the topology is left out, it cannot be read: {error}");
                }
            }
        }
    }
    Ok((revision, instances.into()))
}

/// Applies an edit. Returns `None` if the instance does not exist.
pub(super) async fn edit<D: Database>(
    ledger: &Ledger<D>,
    edit: Edit,
    limits: TopologyLimits,
) -> Result<Option<Instance>> {
    let apply = Apply { edit, limits, latest: Arc::clone(&ledger.instances.latest) };
    let (edited, _) = ledger.database.queue().write(apply).await?;
    edited.map_err(Error::invalid)
}

/// Creates instances of targets that never had one. Returns how many it created.
pub(super) async fn seed<D: Database>(ledger: &Ledger<D>, seeds: Vec<Attributes>) -> Result<usize> {
    let latest = Arc::clone(&ledger.instances.latest);
    let (made, _) = ledger.database.queue().write(Seed { seeds, latest }).await?;
    Ok(made)
}

struct Apply {
    edit: Edit,
    limits: TopologyLimits,
    latest: Latest,
}

#[async_trait]
impl Write for Apply {
    /// The instance (`None` if it does not exist) or its problems, and the new revision.
    type Answer = (Result<Option<Instance>, Vec<Problem>>, i64);

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Self::Answer> {
        let (id, before, attributes) = match &self.edit {
            Edit::Create(attributes) => (None, None, attributes.clone()),
            Edit::Replace(id, _) | Edit::Patch(id, _) => {
                let Some(row) = transaction.fetch(BY_ID, args![*id]).await?.into_iter().next() else {
                    return Ok((Ok(None), 0));
                };
                let before = row.json::<Attributes>(0).ok();
                let attributes = match (&self.edit, &before) {
                    (Edit::Create(attributes) | Edit::Replace(_, attributes), _) => attributes.clone(),
                    (Edit::Patch(_, patch), Some(before)) => before.clone().patched(patch.clone()),
                    (Edit::Patch(..), None) => {
                        let what = format!("the attributes of instance {id} as stored cannot be read");
                        let problem = Problem::new("", what).remedy("replace all of them");
                        return Ok((Err(vec![problem]), 0));
                    }
                };
                (Some(*id), before, attributes)
            }
        };
        let attributes = attributes.without_repetition();
        let mut problems = attributes.check(before.as_ref(), &self.limits);
        let key = code_key(&attributes.code);
        // An invalid code is not looked up, because the database may not be able to store it.
        if problems.iter().all(|problem| problem.path != CODE) {
            problems.extend(self.taken(transaction, id, &key, &attributes.code).await?);
        }
        let is_full = id.is_none() && last(transaction).await?.1 >= i64::from(self.limits.max_instances);
        if is_full {
            let what = format!("{} instances are kept, and there are as many", self.limits.max_instances);
            problems
                .push(Problem::new("", what).remedy("change one of them, or raise topology.max_instances"));
        }
        if !problems.is_empty() {
            return Ok((Err(problems), 0));
        }
        let id = match id {
            Some(id) => {
                transaction.execute(UPDATE, args![id, &key, &to_json(&attributes)?]).await?;
                id
            }
            None => insert(transaction, &key, &attributes).await?,
        };
        Ok((Ok(Some(Instance { id, attributes })), revise(transaction).await?))
    }

    fn committed(&self, (_, revision): &Self::Answer) {
        self.latest.fetch_max(*revision, Ordering::AcqRel);
    }
}

impl Apply {
    /// The problem if another instance has the same code.
    async fn taken(
        &self,
        transaction: &mut dyn Transaction,
        id: Option<i64>,
        key: &str,
        code: &str,
    ) -> sqlx::Result<Option<Problem>> {
        let rows = transaction.fetch(BY_CODE, args![key]).await?;
        let other = rows.first().map(|row| row.int(0)).transpose()?.filter(|other| Some(*other) != id);
        Ok(other.map(|other| {
            Problem::new(CODE, format!("instance {other} has this code")).value(code).remedy(format!(
                "choose another one, in which case makes no difference, or change instance {other}"
            ))
        }))
    }
}

/// The last id, and the number of instances.
async fn last(transaction: &mut dyn Transaction) -> sqlx::Result<(i64, i64)> {
    let rows = transaction.fetch(LAST, args![FIRST_ID]).await?;
    rows.first().map_or(Ok((FIRST_ID, 0)), |row| Ok((row.int(0)?, row.int(1)?)))
}

/// Inserts with the next id, and returns that id.
async fn insert(transaction: &mut dyn Transaction, key: &str, attributes: &Attributes) -> sqlx::Result<i64> {
    let id = last(transaction).await?.0 + 1;
    transaction.execute(INSERT, args![id, key, &to_json(attributes)?]).await?;
    Ok(id)
}

async fn revise(transaction: &mut dyn Transaction) -> sqlx::Result<i64> {
    transaction.fetch(REVISE, args![]).await?.first().map_or(Ok(0), |row| row.int(0))
}

struct Seed {
    seeds: Vec<Attributes>,
    latest: Latest,
}

#[async_trait]
impl Write for Seed {
    /// The number of created instances, and the next revision.
    type Answer = (usize, i64);

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Self::Answer> {
        let mut made = 0;
        for attributes in &self.seeds {
            let key = code_key(&attributes.code);
            let is_new = transaction.execute(SEED, args![&key]).await? > 0;
            if is_new && transaction.fetch(BY_CODE, args![&key]).await?.is_empty() {
                insert(transaction, &key, attributes).await?;
                made += 1;
            }
        }
        let revision = if made > 0 { revise(transaction).await? } else { 0 };
        Ok((made, revision))
    }

    fn committed(&self, (_, revision): &Self::Answer) {
        self.latest.fetch_max(*revision, Ordering::AcqRel);
    }
}
