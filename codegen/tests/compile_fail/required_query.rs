#[path = "../golden/mod.rs"]
mod golden;

use golden::boxes::responses::FindBoxesResponse;
use golden::boxes::{server, types};
use golden::runtime::{Denial, Failure, Rejection, RequestContext};

struct Implementor;

impl server::Boxes for Implementor {
    async fn authorize(&self, _: &RequestContext) -> Result<(), Denial> {
        Ok(())
    }
    fn deny_with_problem(&self, _: &RequestContext, _: &Denial) -> types::Problem {
        loop {}
    }
    fn deny_with_failed(&self, _: &RequestContext, _: &Denial) -> types::Failed {
        loop {}
    }
    fn reject_with_problem(&self, _: &RequestContext, _: Rejection) -> types::Problem {
        loop {}
    }
    fn fail_with_failed(&self, _: &RequestContext, _: Failure) -> types::Failed {
        loop {}
    }
    // `label` may be absent.
    async fn find_boxes(&self, _: &RequestContext, _: String, _: String) -> FindBoxesResponse {
        FindBoxesResponse::Forbidden
    }
}

fn main() {}
