#[path = "../golden/mod.rs"]
mod golden;

use golden::tasks::server;

struct Implementor;

// Operations with a declared failure may be left out; what refuses, and `ping`, may not.
impl server::Tasks for Implementor {}

fn main() {}
