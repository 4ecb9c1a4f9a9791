#[path = "../golden/mod.rs"]
mod golden;

use golden::tasks::responses::CreateTaskResponse;
use golden::tasks::types;

fn main() {
    // 400 is a Problem.
    let _ = CreateTaskResponse::BadRequest(types::Failed { message: String::new() });
}
