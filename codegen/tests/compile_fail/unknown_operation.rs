#[path = "../golden/mod.rs"]
mod golden;

use golden::runtime::{Failure, Rejection, RequestContext};
use golden::tasks::responses::*;
use golden::tasks::{server, types};

struct Implementor;

impl server::Tasks for Implementor {
    fn reject_with_problem(&self, _: &RequestContext, _: Rejection) -> types::Problem {
        loop {}
    }
    fn reject_check_task(&self, _: &RequestContext, _: Rejection) -> CheckTaskResponse {
        loop {}
    }
    fn reject_ping(&self, _: &RequestContext, _: Rejection) -> PingResponse {
        loop {}
    }
    fn fail_with_failed(&self, _: &RequestContext, _: Failure) -> types::Failed {
        loop {}
    }
    async fn ping(&self, _: &RequestContext, _: String) -> PingResponse {
        PingResponse::NoContent
    }
    // The contract has no such operation.
    async fn rename_task(&self, _: &RequestContext) -> PingResponse {
        PingResponse::NoContent
    }
}

fn main() {}
