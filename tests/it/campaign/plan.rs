//! The plan of a campaign. One seed determines all of it before the campaign begins.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::lake::{self, Kept, LakeComponent};
use super::trace::Accepted;
use crate::harness::{
    acl_request, cashflow, cashflow_named, cashflow_with_rows, component_request, replace_once,
};

/// Random numbers from a seed (SplitMix64).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end`, exclusive.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn millis(&mut self, end: usize) -> Duration {
        Duration::from_millis(self.below(end) as u64)
    }
}

/// A request of a submitter, which sends it after its previous request is accepted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Submission {
    pub(super) path: &'static str,
    pub(super) body: Value,
    /// Whether the submitter sends the request twice at the same time.
    pub(super) twice: bool,
}

/// A disturbance of the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disturbance {
    /// The number of accepted submissions before this disturbance.
    pub(super) after: usize,
    pub(super) pause: Duration,
    pub(super) what: Fault,
    /// The time until the campaign ends the disturbance.
    pub(super) lasts: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9 of one server.
    Kill(usize),
    /// kill -9 of all servers.
    KillAll,
    /// An immediate shutdown of PostgreSQL.
    KillPostgres,
    /// SIGSTOP of one server, for longer than its lease.
    Freeze(usize),
}

pub(super) const SUBMITTERS: usize = 4;
/// Components of the mock for each submitter. No other submitter uses them, so the order of acceptance is the order of
/// submission.
const QUEUES: usize = 3;
const LAKES: usize = 1;

/// The whole campaign.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) submitters: Vec<Vec<Submission>>,
    pub(super) disturbances: Vec<Disturbance>,
    /// The serials in the requests for each mock component, in order.
    pub(super) serials: Accepted,
    /// The expected content of the lakehouse at the end.
    pub(super) lakes: Vec<LakeComponent>,
}

impl Plan {
    /// Makes the plan for `replicas` servers. Two or more share a PostgreSQL server, which the plan disturbs,
    /// too.
    pub(super) fn new(seed: u64, operations: usize, replicas: usize, lease: Duration) -> Self {
        let mut rng = Rng::new(seed);
        let mut plan = Self {
            submitters: vec![Vec::new(); SUBMITTERS],
            disturbances: Vec::new(),
            serials: BTreeMap::new(),
            lakes: Vec::new(),
        };
        for submitter in 0..SUBMITTERS {
            let count = operations / SUBMITTERS + usize::from(submitter < operations % SUBMITTERS);
            plan.submit(submitter, count, &mut rng);
        }
        plan.disturb(operations, replicas, lease, &mut rng);
        plan
    }

    fn submit(&mut self, submitter: usize, count: usize, rng: &mut Rng) {
        let mut lakes: Vec<LakeComponent> = (0..LAKES)
            .flat_map(|lake| {
                let name = format!("lake{submitter}{lake}");
                [LakeComponent::new(lake::Kind::Table, &name), LakeComponent::new(lake::Kind::Bucket, &name)]
            })
            .collect();
        for _ in 0..count {
            let twice = rng.chance(15);
            let (path, body) = if rng.chance(70) {
                let queue = rng.below(QUEUES);
                let name = format!("queue{submitter}{queue}");
                let component = format!("urn:dmb:cmp:finance:{name}:0:cashflow-calculation");
                let serials = self.serials.entry(component.clone()).or_default();
                let serial = serials.last().map_or(1, |last| last + 1);
                serials.push(serial);
                let text = replace_once(
                    &cashflow_named(&cashflow(), &name),
                    "    specific: {}",
                    &format!("    specific: {{ serial: {serial} }}"),
                );
                // Blocking threads do the work of every second queue.
                let text = match queue % 2 {
                    0 => replace_once(&text, "technology: Spark", "technology: Threads"),
                    _ => text,
                };
                ("/v1/provision", component_request(&text, &component))
            } else {
                let index = rng.below(lakes.len());
                next_request(&mut lakes[index], rng)
            };
            self.submitters[submitter].push(Submission { path, body, twice });
        }
        self.lakes.append(&mut lakes);
    }

    fn disturb(&mut self, operations: usize, replicas: usize, lease: Duration, rng: &mut Rng) {
        let several = replicas > 1;
        let mut whats = Vec::new();
        for _ in 0..(operations / 20).max(4) {
            whats.push(if several && rng.chance(15) {
                Fault::KillAll
            } else {
                Fault::Kill(rng.below(replicas))
            });
        }
        if several {
            whats.extend((0..(operations / 45).max(2)).map(|_| Fault::KillPostgres));
            whats.extend((0..(operations / 150).max(1)).map(|_| Fault::Freeze(rng.below(replicas))));
        }
        for what in whats {
            let lasts = match what {
                Fault::Freeze(_) => lease + lease / 4 + rng.millis(200),
                // Mostly short, and sometimes long enough for leases to expire.
                _ if rng.chance(25) => lease / 2 + rng.millis(1000),
                _ => rng.millis(150),
            };
            let after = operations / 20 + rng.below((operations * 9 / 10).max(1));
            self.disturbances.push(Disturbance { after, pause: rng.millis(40), what, lasts });
        }
        self.disturbances.sort_by_key(|disturbance| disturbance.after);
    }
}

/// A request that is valid for a component in its current state.
fn next_request(lake: &mut LakeComponent, rng: &mut Rng) -> (&'static str, Value) {
    lake.requests += 1;
    let provision = lake.kept != Kept::Everything || rng.chance(35);
    if provision {
        if lake.extra_columns < 6 && rng.chance(60) {
            lake.extra_columns += 1;
        }
        lake.kept = Kept::Everything;
        lake.provisioned_columns = lake.extra_columns;
        lake.provisioned_version = lake.version();
        return ("/v1/provision", component_request(&descriptor_of(lake), &lake.component));
    }
    if rng.chance(60) {
        let people = ["user:alice_example.com", "user:bob_example.com", "group:developers", "group:auditors"];
        let refs: Vec<&str> = people.into_iter().filter(|_| rng.chance(50)).collect();
        lake.refs = refs.iter().map(|name| (*name).to_owned()).collect();
        return ("/v1/updateacl", acl_request(&descriptor_of(lake), &lake.component, &refs));
    }
    let remove_data = rng.chance(50);
    lake.kept = if remove_data { Kept::Nothing } else { Kept::Data };
    let mut request = component_request(&descriptor_of(lake), &lake.component);
    request["removeData"] = json!(remove_data);
    ("/v1/unprovision", request)
}

/// The descriptor of a lakehouse component, with its current number of columns.
fn descriptor_of(lake: &LakeComponent) -> String {
    let text = cashflow_named(&cashflow_with_rows(), &lake.name);
    let text = replace_once(&text, "version: 0.1.0", &format!("version: {}", lake.version()));
    let anchor = "description: identifier of the counterparty\n          tags: []\n";
    let columns: String = (1..=lake.extra_columns)
        .map(|n| format!("        - name: extra{n}\n          dataType: string\n"))
        .collect();
    replace_once(&text, anchor, &format!("{anchor}{columns}"))
}

#[test]
fn plan_is_determined_by_its_seed() {
    let lease = Duration::from_secs(2);
    let plan = Plan::new(1, 1000, 2, lease);
    assert_eq!(plan, Plan::new(1, 1000, 2, lease));
    assert_ne!(plan, Plan::new(2, 1000, 2, lease));

    let submissions: Vec<_> = plan.submitters.iter().flatten().collect();
    assert_eq!(submissions.len(), 1000);
    let different: BTreeSet<String> = submissions.iter().map(|s| format!("{}{}", s.path, s.body)).collect();
    assert_eq!(different.len(), 1000, "no two requests are equal");
    assert!(submissions.iter().any(|submission| submission.twice));
    for technology in ["technology: Threads", "technology: Spark"] {
        let of = |submission: &&&Submission| {
            submission.body.to_string().contains(technology) && submission.body.to_string().contains("serial")
        };
        assert!(submissions.iter().filter(of).count() > 100, "{technology}");
    }
    for path in ["/v1/provision", "/v1/unprovision", "/v1/updateacl"] {
        assert!(submissions.iter().any(|submission| submission.path == path), "{path}");
    }
    let count = |of: fn(&Fault) -> bool| plan.disturbances.iter().filter(|one| of(&one.what)).count();
    assert!(count(|what| *what == Fault::KillPostgres) >= 20);
    assert!(count(|what| *what == Fault::KillAll) > 0);
    assert!(count(|what| matches!(what, Fault::Freeze(_))) > 0);
    for replica in 0..2 {
        assert!(plan.disturbances.iter().any(|one| one.what == Fault::Kill(replica)), "{replica}");
    }
    let alone = Plan::new(1, 1000, 1, lease);
    assert!(alone.disturbances.iter().all(|one| one.what == Fault::Kill(0)), "{:?}", alone.disturbances);
}
