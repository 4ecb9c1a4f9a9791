#[path = "../golden/mod.rs"]
mod golden;

use std::convert::Infallible;

use golden::runtime::{IntoResponse, Rejection, RequestContext};
use golden::tasks::responses::*;
use golden::tasks::{server, types};

struct Implementor;

impl<R> IntoResponse<Implementor, R> for Infallible {
    fn into_response(self, _: &RequestContext) -> R {
        match self {}
    }
}

// All but `listTasks`.
impl server::Tasks for Implementor {
    type Error = Infallible;
    fn reject_with_problem(&self, _: &RequestContext, _: Rejection) -> types::Problem {
        loop {}
    }
    fn reject_check_task(&self, _: &RequestContext, _: Rejection) -> CheckTaskResponse {
        loop {}
    }
    fn reject_ping(&self, _: &RequestContext, _: Rejection) -> PingResponse {
        loop {}
    }
    async fn create_task(
        &self,
        _: &RequestContext,
        _: types::CreateTaskRequest,
    ) -> Result<CreateTaskResponse, Infallible> {
        loop {}
    }
    async fn read_note(&self, _: &RequestContext, _: String, _: String) -> Result<ReadNoteResponse, Infallible> {
        loop {}
    }
    async fn delete_note(
        &self,
        _: &RequestContext,
        _: String,
        _: String,
    ) -> Result<DeleteNoteResponse, Infallible> {
        loop {}
    }
    async fn check_task(&self, _: &RequestContext, _: types::Person) -> Result<CheckTaskResponse, Infallible> {
        loop {}
    }
    async fn ping(&self, _: &RequestContext, _: String) -> PingResponse {
        loop {}
    }
}

fn main() {}
