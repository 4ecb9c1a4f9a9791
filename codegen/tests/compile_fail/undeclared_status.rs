#[path = "../golden/mod.rs"]
mod golden;

use golden::tasks::responses::CreateTaskResponse;

fn main() {
    // createTask declares no 404.
    let _ = CreateTaskResponse::NotFound;
}
