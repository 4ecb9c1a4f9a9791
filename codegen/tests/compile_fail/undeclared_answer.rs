#[path = "../golden/mod.rs"]
mod golden;

use golden::runtime::Answer;
use golden::tasks::responses::ListTasksResponse;
use golden::tasks::types::Problem;

fn refuse<R: Answer<400, Problem>>() -> R {
    loop {}
}

fn main() {
    // listTasks declares no 400.
    let _ = refuse::<ListTasksResponse>();
}
