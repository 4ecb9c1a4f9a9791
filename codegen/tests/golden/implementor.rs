// An implementor of the golden contract. It is included twice, for the contract as it is and for one whose paths
// moved, so it cannot know a path. The file that includes it says which `contract` is meant.

use std::sync::Mutex;

use super::golden::runtime::{Answer, IntoResponse, Limits, Rejection, RequestContext};
use self::contract::responses::*;
use self::contract::{server, types};

/// Keeps what it refused.
#[derive(Default)]
pub(super) struct Implementor {
    pub(super) limits: Limits,
    pub(super) rejections: Mutex<Vec<Rejection>>,
}

impl Implementor {
    fn keep(&self, rejection: &Rejection) {
        self.rejections.lock().unwrap().push(rejection.clone());
    }
}

/// What an operation fails with.
pub(super) enum Failure {
    Refused,
    Broken,
}

fn refused() -> types::Problem {
    types::Problem { problem: "refused".to_owned(), where_: None }
}

fn broken(context: &RequestContext) -> types::Failed {
    types::Failed { message: format!("{} is broken", context.operation().operation_id) }
}

/// All operations that declare both.
impl<R> IntoResponse<Implementor, R> for Failure
where
    R: Answer<400, types::Problem> + Answer<500, types::Failed>,
{
    fn into_response(self, context: &RequestContext) -> R {
        match self {
            Self::Refused => <R as Answer<400, _>>::answer(refused()),
            Self::Broken => <R as Answer<500, _>>::answer(broken(context)),
        }
    }
}

impl IntoResponse<Implementor, ListTasksResponse> for Failure {
    fn into_response(self, context: &RequestContext) -> ListTasksResponse {
        ListTasksResponse::InternalServerError(broken(context))
    }
}

impl IntoResponse<Implementor, CheckTaskResponse> for Failure {
    fn into_response(self, context: &RequestContext) -> CheckTaskResponse {
        CheckTaskResponse::InternalServerError(broken(context))
    }
}

impl IntoResponse<Implementor, DeleteNoteResponse> for Failure {
    fn into_response(self, context: &RequestContext) -> DeleteNoteResponse {
        match self {
            Self::Refused => DeleteNoteResponse::BadRequest,
            Self::Broken => DeleteNoteResponse::NotImplemented(broken(context)),
        }
    }
}

/// What a handler calls has errors of its own: `?` converts them.
impl From<std::num::ParseIntError> for Failure {
    fn from(_: std::num::ParseIntError) -> Self {
        Self::Refused
    }
}

impl server::Tasks for Implementor {
    type Error = Failure;

    fn limits(&self) -> Limits {
        self.limits
    }

    fn reject_with_problem(&self, _context: &RequestContext, rejection: Rejection) -> types::Problem {
        self.keep(&rejection);
        types::Problem { problem: rejection.message, where_: rejection.field }
    }

    fn reject_check_task(&self, _context: &RequestContext, rejection: Rejection) -> CheckTaskResponse {
        self.keep(&rejection);
        CheckTaskResponse::Ok(types::CheckTaskOkBody { good: false, reason: Some(rejection.to_string()) })
    }

    fn reject_ping(&self, _context: &RequestContext, _rejection: Rejection) -> PingResponse {
        PingResponse::NotFound
    }

    async fn list_tasks(&self, _context: &RequestContext) -> Result<ListTasksResponse, Failure> {
        Err(Failure::Broken)
    }

    async fn create_task(
        &self,
        context: &RequestContext,
        body: types::CreateTaskRequest,
    ) -> Result<CreateTaskResponse, Failure> {
        match body.name.as_str() {
            "refused" => Err(Failure::Refused),
            "broken" => Err(Failure::Broken),
            name => {
                Ok(CreateTaskResponse::Accepted(format!("token-{name}").into(), context.text_or_json()))
            }
        }
    }

    async fn read_note(
        &self,
        _context: &RequestContext,
        task_id: String,
        note_id: String,
    ) -> Result<ReadNoteResponse, Failure> {
        Ok(match note_id.as_str() {
            "none" => ReadNoteResponse::NotFound,
            _ => ReadNoteResponse::Ok(format!("{task_id}|{note_id}").into()),
        })
    }

    async fn delete_note(
        &self,
        _context: &RequestContext,
        _task_id: String,
        note_id: String,
    ) -> Result<DeleteNoteResponse, Failure> {
        match note_id.parse::<u8>()? {
            0 => Err(Failure::Broken),
            _ => Ok(DeleteNoteResponse::NoContent),
        }
    }

    async fn check_task(
        &self,
        _context: &RequestContext,
        body: types::Person,
    ) -> Result<CheckTaskResponse, Failure> {
        Ok(CheckTaskResponse::Ok(types::CheckTaskOkBody { good: true, reason: Some(body.name) }))
    }

    async fn ping(&self, _context: &RequestContext, task_id: String) -> PingResponse {
        if task_id == "none" { PingResponse::NotFound } else { PingResponse::NoContent }
    }
}
