#[path = "../golden/mod.rs"]
mod golden;

use golden::runtime::{Answer, IntoResponse, Rejection, RequestContext};
use golden::tasks::responses::*;
use golden::tasks::{server, types};

struct Implementor;

struct Failure;

impl<R> IntoResponse<Implementor, R> for Failure
where
    R: Answer<400, types::Problem> + Answer<500, types::Failed>,
{
    fn into_response(self, _: &RequestContext) -> R {
        loop {}
    }
}

impl IntoResponse<Implementor, CheckTaskResponse> for Failure {
    fn into_response(self, _: &RequestContext) -> CheckTaskResponse {
        loop {}
    }
}

impl IntoResponse<Implementor, DeleteNoteResponse> for Failure {
    fn into_response(self, _: &RequestContext) -> DeleteNoteResponse {
        loop {}
    }
}

// listTasks declares no 400, and nothing else says how its errors are answered.
impl server::Tasks for Implementor {
    type Error = Failure;
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
    ) -> Result<CreateTaskResponse, Failure> {
        loop {}
    }
    async fn read_note(&self, _: &RequestContext, _: String, _: String) -> Result<ReadNoteResponse, Failure> {
        loop {}
    }
    async fn delete_note(
        &self,
        _: &RequestContext,
        _: String,
        _: String,
    ) -> Result<DeleteNoteResponse, Failure> {
        loop {}
    }
    async fn check_task(&self, _: &RequestContext, _: types::Person) -> Result<CheckTaskResponse, Failure> {
        loop {}
    }
    async fn ping(&self, _: &RequestContext, _: String) -> PingResponse {
        loop {}
    }
    async fn list_tasks(&self, _: &RequestContext) -> Result<ListTasksResponse, Failure> {
        loop {}
    }
}

fn main() {}
