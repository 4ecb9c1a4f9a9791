//! Output ports in PostgreSQL: the cost of one in a database with many, compared with a database with one.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Client, post};
use crate::landfall::{Landfall, folder};
use crate::place;
use crate::postgres::{Durability, PostgresServer};
use crate::report::{Goal, Line, Report};
use crate::{Error, Result};

/// Callers that fill a database.
const CALLERS: u64 = 4;

/// How output ports are spread over data products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// All in one data product, so in one schema.
    OneProduct,
    /// Each in a data product and a schema of its own.
    ProductEach,
    /// All in one data product, as views on one table. The others are tables.
    ViewsOfOne,
}

/// A PostgreSQL with a database of output ports, and the Landfall server that creates them. The database server is
/// not shared, because roles belong to all its databases.
struct Site {
    landfall: Landfall,
    spread: Spread,
    postgres: PostgresServer,
    database: String,
}

impl Site {
    /// Creates a site with this many output ports.
    async fn with(spread: Spread, ports: u64) -> Result<Self> {
        let postgres = PostgresServer::start(Durability::Safe)?;
        let (url, database) = postgres.new_target()?;
        postgres.psql(&format!("REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC"))?;
        for person in ["alice", "bob"] {
            postgres.psql(&format!("CREATE ROLE \"{person}@example.com\" LOGIN"))?;
        }
        let home = folder()?;
        let secret = home.path().join("url");
        std::fs::write(&secret, &url)?;
        let config = format!(
            "[server]\nrespond_within = \"30s\"\n[targets.PG]\ndriver = \"postgresql\"\nurl = {{ file = {secret:?} }}\n\
             [[routes]]\ntechnology = \"PostgreSQL\"\ngroup = \"postgresql\"\n"
        );
        let store = format!("sqlite://{}", home.path().join("landfall.db").display());
        let landfall = Landfall::start_with(&store, &home, &config)?;
        if spread == Spread::ViewsOfOne {
            done(&mut landfall.client().await?, &source()).await?;
        }
        let mut tasks = JoinSet::new();
        for caller in 0..CALLERS {
            let mut client = landfall.client().await?;
            tasks.spawn(async move {
                for number in (0..ports).filter(|number| number % CALLERS == caller) {
                    done(&mut client, &provision(spread, number)).await?;
                }
                Ok::<_, Error>(())
            });
        }
        while let Some(one) = tasks.join_next().await {
            one??;
        }
        // The server does this by itself at some time; here it is done now, on both sides.
        postgres.psql_in(&database, "VACUUM ANALYZE")?;
        place::checkpoint(&postgres)?;
        Ok(Self { landfall, spread, postgres, database })
    }

    /// Milliseconds to provision a new output port, to provision it again, to change its readers, and to remove it.
    async fn round(&self) -> Result<[f64; 4]> {
        // Numbers of the existing output ports end below this.
        let number = 1_000_000 + self.landfall.number();
        let mut client = self.landfall.client().await?;
        let mut times = [0.0; 4];
        let requests = [
            provision(self.spread, number),
            provision(self.spread, number),
            updateacl(self.spread, number),
            unprovision(self.spread, number),
        ];
        for (time, request) in times.iter_mut().zip(&requests) {
            let begun = Instant::now();
            done(&mut client, request).await?;
            *time = begun.elapsed().as_secs_f64() * 1e3;
        }
        Ok(times)
    }

    /// The number of output ports, counted in PostgreSQL.
    fn ports(&self) -> Result<u64> {
        let tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'port\\_%' AND relkind IN ('r', 'v')";
        let rows = self.postgres.psql_in(&self.database, tables)?;
        Ok(rows.into_iter().flatten().flatten().next().ok_or("no row")?.parse()?)
    }
}

/// Measures each way to spread output ports, with one output port and with `many`.
pub(crate) async fn measure(many: u64, rounds: usize, report: &mut Report) -> Result<()> {
    for (spread, name) in [
        (Spread::OneProduct, "tables of one data product"),
        (Spread::ProductEach, "tables of a data product each"),
        (Spread::ViewsOfOne, "views on one table"),
    ] {
        let few = Site::with(spread, 1).await?;
        let begun = Instant::now();
        let full = Site::with(spread, many).await?;
        let seconds = begun.elapsed().as_secs();
        let (of_few, of_full) = (few.ports()?, full.ports()?);
        if (of_few, of_full) != (1, many) {
            return Err(format!("{of_few} and {of_full} output ports, where 1 and {many} were due").into());
        }
        report.heading(&format!(
            "PostgreSQL as a technology: output ports, {name}; {many} made in {seconds} s"
        ));
        let mut times = [const { (Vec::new(), Vec::new()) }; 4];
        for _ in 0..rounds {
            let (of_few, of_full) = (few.round().await?, full.round().await?);
            for (times, (of_few, of_full)) in times.iter_mut().zip(of_few.into_iter().zip(of_full)) {
                times.0.push(of_few);
                times.1.push(of_full);
            }
        }
        let steps = ["provision", "provision again", "change who reads it", "unprovision"];
        for (step, (few, full)) in steps.into_iter().zip(&times) {
            report.line(&Line {
                subject: "an output port where there are many against one where there is one",
                what: format!("{step}, {many} there, {name}"),
                unit: "ms",
                figures: full,
                baseline: "1 there",
                base: few,
                goal: Goal::AtMost(1.2),
            });
        }
    }
    Ok(())
}

/// Sends a request whose task must have ended when the answer arrives.
async fn done(client: &mut Client, request: &[u8]) -> Result<()> {
    let (status, body) = client.call(request).await?;
    let text = String::from_utf8_lossy(body).into_owned();
    let state = serde_json::from_str::<Value>(&text).ok().and_then(|body| body.get("status").cloned());
    if status == 200 && state.as_ref().and_then(Value::as_str) == Some("COMPLETED") {
        Ok(())
    } else {
        Err(format!("{status}: {text}").into())
    }
}

fn provision(spread: Spread, number: u64) -> Vec<u8> {
    with_descriptor("/v1/provision", &descriptor(spread, number), false)
}

fn unprovision(spread: Spread, number: u64) -> Vec<u8> {
    with_descriptor("/v1/unprovision", &descriptor(spread, number), true)
}

fn with_descriptor(path: &str, descriptor: &str, remove_data: bool) -> Vec<u8> {
    let body = json!({
        "descriptorKind": "COMPONENT_DESCRIPTOR",
        "descriptor": descriptor,
        "removeData": remove_data,
    });
    post(path, &body.to_string())
}

fn updateacl(spread: Spread, number: u64) -> Vec<u8> {
    let body = json!({
        "refs": ["user:alice_example.com", "user:bob_example.com"],
        "provisionInfo": { "request": descriptor(spread, number), "result": "" },
    });
    post("/v1/updateacl", &body.to_string())
}

const COLUMNS: [&str; 8] = ["BIGINT", "STRING", "DATE", "TIMESTAMP", "DOUBLE", "BOOLEAN", "INT", "UUID"];

fn columns() -> String {
    let column = |kind: &&str| format!("{{name: a_{kind}, dataType: {kind}, description: A column}}");
    COLUMNS.iter().map(column).collect::<Vec<_>>().join(", ")
}

fn descriptor(spread: Spread, number: u64) -> String {
    let product = match spread {
        Spread::OneProduct | Spread::ViewsOfOne => "finance:bench:0".to_owned(),
        Spread::ProductEach => format!("finance:bench-{number}:0"),
    };
    let specific = match spread {
        Spread::OneProduct | Spread::ProductEach => "{kind: table}",
        Spread::ViewsOfOne => "{kind: view, source: {schema: source, name: source}}",
    };
    let rest = format!("dataContract: {{schema: [{}]}}\n      specific: {specific}", columns());
    component(&product, "outputport", &format!("port-{number}"), &rest)
}

/// The storage area with the table that the views read.
fn source() -> Vec<u8> {
    let rest = format!("specific: {{schema: source, tables: [{{name: source, columns: [{}]}}]}}", columns());
    with_descriptor("/v1/provision", &component("finance:bench:0", "storage", "source", &rest), false)
}

fn component(product: &str, kind: &str, name: &str, rest: &str) -> String {
    format!(
        "dataProduct:
  environment: production
  domain: finance
  kind: dataproduct
  id: urn:dmb:dp:{product}
  name: Bench
  description: Data product with output ports
  version: 0.1.0
  dataProductOwner: user:alice_example.com
  devGroup: group:developers
  components:
    - kind: {kind}
      id: urn:dmb:cmp:{product}:{name}
      name: {name}
      description: One of many
      version: 0.1.0
      infrastructureTemplateId: urn:dmb:itm:postgresql:1
      useCaseTemplateId: urn:dmb:utm:postgresql:1
      dependsOn: []
      platform: PostgreSQL
      technology: PostgreSQL
      tags: []
      {rest}
componentIdToProvision: urn:dmb:cmp:{product}:{name}
"
    )
}
