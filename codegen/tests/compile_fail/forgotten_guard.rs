#[path = "../golden/mod.rs"]
mod golden;

use golden::boxes::server;

struct Implementor;

// The contract is behind a guard, which nothing can stand in for.
impl server::Boxes for Implementor {}

fn main() {}
