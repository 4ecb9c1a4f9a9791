//! The baselines that speak HTTP: an actix server, in a process of its own, that answers every status request with
//! the same bytes, and inserts every body durably without any other work.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use actix_web::{App, HttpResponse, HttpServer, web};

use crate::Result;
use crate::landfall::Program;
use crate::raw::{self, GroupCommit};

/// The variable with the file of the fixed answer; set for the copy of this program that serves it.
const ANSWER: &str = "LANDFALL_BENCH_ANSWER";
/// The variable with the database to insert into: a folder for SQLite, a URL for PostgreSQL.
const DATABASE: &str = "LANDFALL_BENCH_DATABASE";

/// Starts the baseline that sends `answer` to every status request.
pub(crate) fn answering(folder: &Path, answer: &[u8]) -> Result<Program> {
    let file = folder.join("answer");
    std::fs::write(&file, answer)?;
    Program::start(Command::new(std::env::current_exe()?).env(ANSWER, file))
}

/// Starts the baseline that inserts every body into `database`. Its answer has the size of a token.
pub(crate) fn inserting(folder: &Path, database: &str) -> Result<Program> {
    let file = folder.join("answer");
    std::fs::write(&file, [b'x'; 36])?;
    Program::start(Command::new(std::env::current_exe()?).env(ANSWER, file).env(DATABASE, database))
}

/// Serves if this process is the copy that was started as a baseline. Returns whether it did.
pub(crate) async fn serve() -> Result<bool> {
    let Some(file) = std::env::var_os(ANSWER) else { return Ok(false) };
    let answer = web::Bytes::from(std::fs::read(file)?);
    let writer = match std::env::var(DATABASE) {
        Ok(url) if url.starts_with("postgres") => Some(raw::postgres(&url, "").await?),
        Ok(folder) => Some(raw::sqlite(Path::new(&folder), "").await?),
        Err(_) => None,
    };
    let shared = web::Data::new(Baseline { answer, writer });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .route("/v1/provision/{token}/status", web::get().to(status))
            .route("/v1/provision", web::post().to(insert))
    })
    // The same number of workers as Landfall.
    .workers(2)
    .bind("127.0.0.1:0")?;
    if let Some(address) = server.addrs().first() {
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening on http://{address}")?;
        out.flush()?;
    }
    server.run().await?;
    Ok(true)
}

struct Baseline {
    answer: web::Bytes,
    writer: Option<GroupCommit>,
}

async fn status(baseline: web::Data<Baseline>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(baseline.answer.clone())
}

async fn insert(baseline: web::Data<Baseline>, body: String) -> HttpResponse {
    match &baseline.writer {
        Some(writer) if writer.insert(body).await.is_ok() => {
            HttpResponse::Accepted().content_type("text/plain").body(baseline.answer.clone())
        }
        _ => HttpResponse::InternalServerError().finish(),
    }
}
