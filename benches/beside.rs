//! Components side by side: a data product of forty output ports, each of which takes a while.

use std::fmt::Write;
use std::time::Instant;

use serde_json::json;

use crate::Result;
use crate::client::{Client, post};
use crate::landfall::{Landfall, folder};
use crate::report::{Goal, Line, Report};

/// Output ports of the data product.
const PORTS: usize = 40;

/// Milliseconds that the mock takes for each.
const EACH: usize = 200;

/// Measures eight components at once, compared with one after the other.
pub(crate) async fn measure(rounds: usize, report: &mut Report) -> Result<()> {
    let (eight, one) = (server(8)?, server(1)?);
    let (mut of_eight, mut of_one) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        of_eight.push(provisioned(&mut eight.client().await?).await?);
        of_one.push(provisioned(&mut one.client().await?).await?);
    }
    report.heading("components side by side");
    report.line(&Line {
        subject: "independent components of a data product run side by side",
        what: format!("{PORTS} output ports of {EACH} ms, components_at_once = 8"),
        unit: "data products/s",
        figures: &of_eight,
        baseline: "components_at_once = 1",
        base: &of_one,
        goal: Goal::AtLeast(6.0),
    });
    Ok(())
}

fn server(at_once: usize) -> Result<Landfall> {
    let home = folder()?;
    let store = format!("sqlite://{}", home.path().join("landfall.db").display());
    let config = format!(
        "[server]\nrespond_within = \"60s\"\n[operations]\ncomponents_at_once = {at_once}\n[targets.SLOW]\n\
         driver = \"mock\"\nsteps = 1\nstep_delay = \"{EACH}ms\"\n[[routes]]\ntechnology = \"Slow\"\ngroup = \"mock\"\n"
    );
    Landfall::start_with(&store, &home, &config)
}

/// Provisions the data product; returns its provisionings per second.
async fn provisioned(client: &mut Client) -> Result<f64> {
    let mut descriptor = "id: urn:dmb:dp:finance:beside:0
name: Beside
version: 0.1.0
environment: production
domain: finance
components:
"
    .to_owned();
    for number in 0..PORTS {
        writeln!(
            descriptor,
            "  - {{kind: outputport, id: 'urn:dmb:cmp:finance:beside:0:port-{number}', name: Port {number}, version: 0.1.0,
     technology: Slow, dataContract: {{schema: [{{name: id, dataType: INT}}]}}, specific: {{}}}}"
        )?;
    }
    let body = json!({ "descriptorKind": "DATAPRODUCT_DESCRIPTOR", "descriptor": descriptor });
    let request = post("/v1/provision", &body.to_string());
    let begun = Instant::now();
    let (status, body) = client.call(&request).await?;
    let time = begun.elapsed().as_secs_f64();
    if status == 200 && String::from_utf8_lossy(body).contains("COMPLETED") {
        Ok(1.0 / time)
    } else {
        Err(format!("{status}: {}", String::from_utf8_lossy(body)).into())
    }
}
