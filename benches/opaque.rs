//! Validation of one component of a large descriptor whose other components are opaque: the cost of eight times as
//! much text.

use std::fmt::Write;
use std::time::Instant;

use serde_json::{Value, json};

use crate::Result;
use crate::client::{Client, as_f64, post};
use crate::landfall::{Landfall, folder};
use crate::report::{Goal, Line, Report, median};

/// Large enough to be measured, and short enough to run without interruption.
const MEGABYTE: usize = 1_000_000;
/// The factor between the two sides.
const TIMES: usize = 8;

/// The form of the other components.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Many, of some 700 bytes each.
    Many,
    /// One, with enough values in its `specific`.
    Large,
    /// Long texts.
    Texts,
}

impl Shape {
    /// Components of other adapters, of at least this many bytes together.
    fn neighbours(self, bytes: usize) -> Result<String> {
        let mut text = String::with_capacity(bytes + 4096);
        match self {
            Self::Many => {
                let mut number = 0;
                while text.len() < bytes {
                    number += 1;
                    writeln!(
                        text,
                        "    - kind: dashboard
      id: board/{number}
      name: Board {number}
      technology: Elsewhere
      tags: [sales, {{tagFQN: PII.Name, source: Tag}}]
      dependsOn: [board/1, another-adapter]
      dataContract: {{schema: [{{name: a, dataType: whatever}}, {{name: b, dataType: whatever, children: [{{name: c}}]}}]}}
      specific:
        panels:
          - {{title: Orders of the day, query: 'select * from orders where day = :day', width: 6, height: 4}}
          - {{title: Orders of the year, query: 'select * from orders where year = :year', width: 6, height: 4}}
        refresh: 5m
        owners: [ann, bob]"
                    )?;
                }
            }
            Self::Large => {
                text.push_str("    - kind: dashboard\n      id: board\n      specific:\n        panels:\n");
                let mut number = 0;
                while text.len() < bytes {
                    number += 1;
                    writeln!(
                        text,
                        "          - {{title: Panel {number}, width: 6, series: [1, 2.5, three]}}"
                    )?;
                }
            }
            Self::Texts => {
                let line =
                    "What this is about is told here at length, in a text that nothing of ours reads. ";
                let mut number = 0;
                while text.len() < bytes {
                    number += 1;
                    let told = line.repeat(MEGABYTE / 10 / line.len());
                    writeln!(text, "    - {{id: page/{number}, name: Page, description: '{told}'}}")?;
                }
            }
        }
        Ok(text)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Many => "many small components",
            Self::Large => "one large component",
            Self::Texts => "long texts",
        }
    }
}

/// A configuration whose limits accept the large descriptor.
const CONFIG: &str = "[server]
max_body_bytes = 33554432
max_inflight_bytes = 134217728
[descriptor]
max_bytes = 33554432
max_nodes = 100000000
max_scalar_bytes = 134217728
[targets.QUICK]
driver = \"mock\"
[[routes]]
technology = \"Quick\"
group = \"mock\"
";

/// Measures each form, once with the base size and once with eight times as much text.
pub(crate) async fn measure(rounds: usize, report: &mut Report) -> Result<()> {
    let home = folder()?;
    let store = format!("sqlite://{}", home.path().join("landfall.db").display());
    let landfall = Landfall::start_with(&store, &home, CONFIG)?;
    let mut client = landfall.client().await?;
    report.heading("validation of one component among what is opaque");
    for shape in [Shape::Many, Shape::Large, Shape::Texts] {
        let (once, often) = (request(shape, MEGABYTE)?, request(shape, MEGABYTE * TIMES)?);
        let (mut of_once, mut of_often) = (Vec::new(), Vec::new());
        // A first request that is not measured: the allocator grows.
        validated(&mut client, &often).await?;
        for _ in 0..rounds {
            of_once.push(validated(&mut client, &once).await?);
            of_often.push(validated(&mut client, &often).await?);
        }
        let name = shape.name();
        report.line(&Line {
            subject: "the cost of validation grows linearly with what is opaque",
            what: format!("{TIMES} MB of {name}"),
            unit: "ms",
            figures: &of_often,
            baseline: "1 MB of them",
            base: &of_once,
            // Eight times as much may take eight times the time and a fifth more.
            goal: Goal::AtMost(9.6),
        });
        let times = as_f64(u64::try_from(TIMES)?);
        let (once, often) = (median(&mut of_once), median(&mut of_often) / times);
        println!("  a megabyte of {name}: {once:.1} ms of 1, {often:.1} ms of {TIMES}");
    }
    Ok(())
}

/// Milliseconds until the answer, which must be `valid`.
async fn validated(client: &mut Client, request: &[u8]) -> Result<f64> {
    let begun = Instant::now();
    let (status, body) = client.call(request).await?;
    let time = begun.elapsed().as_secs_f64() * 1e3;
    let answer: Value = serde_json::from_slice(body)?;
    if status == 200 && answer.get("valid") == Some(&Value::Bool(true)) {
        Ok(time)
    } else {
        Err(format!("{status}: {answer}").into())
    }
}

fn request(shape: Shape, bytes: usize) -> Result<Vec<u8>> {
    let descriptor = format!(
        "dataProduct:
  id: urn:dmb:dp:finance:bench:0
  name: Bench
  version: 0.1.0
  environment: production
  domain: finance
  components:
    - kind: workload
      id: urn:dmb:cmp:finance:bench:0:ours
      name: Ours
      technology: Quick
{}componentIdToProvision: urn:dmb:cmp:finance:bench:0:ours
",
        shape.neighbours(bytes)?
    );
    let body = json!({ "descriptorKind": "COMPONENT_DESCRIPTOR", "descriptor": descriptor });
    Ok(post("/v1/validate", &body.to_string()))
}
