#[path = "../golden/mod.rs"]
mod golden;

use golden::tasks::server;

struct Implementor;

// Neither what refuses nor any operation may be left out.
impl server::Tasks for Implementor {}

fn main() {}
