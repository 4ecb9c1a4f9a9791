#[path = "../golden/mod.rs"]
mod golden;

use std::convert::Infallible;

use golden::boxes::responses::*;
use golden::boxes::{server, types};
use golden::runtime::{Denial, IntoResponse, Rejection, RequestContext};

struct Implementor;

impl<R> IntoResponse<Implementor, R> for Infallible {
    fn into_response(self, _: &RequestContext) -> R {
        match self {}
    }
}

impl server::Boxes for Implementor {
    type Error = Infallible;
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
    async fn read_box(
        &self,
        _: &RequestContext,
        _: String,
        _: String,
        _: Option<String>,
    ) -> Result<ReadBoxResponse, Infallible> {
        loop {}
    }
    async fn replace_box(
        &self,
        _: &RequestContext,
        _: String,
        _: String,
        _: types::NewBox,
    ) -> Result<ReplaceBoxResponse, Infallible> {
        loop {}
    }
    // `label` may be absent.
    async fn find_boxes(&self, _: &RequestContext, _: String, _: String) -> Result<FindBoxesResponse, Infallible> {
        loop {}
    }
}

fn main() {}
