// An implementor of the golden contract. It is included twice, for the contract as it is and for one whose paths
// moved, so it cannot know a path. The file that includes it says which `contract` is meant.

use std::sync::Mutex;

use super::golden::runtime::{Failure, Limits, Rejection, RequestContext};
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

impl server::Tasks for Implementor {
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

    fn fail_with_failed(&self, context: &RequestContext, failure: Failure) -> types::Failed {
        types::Failed { message: format!("{}: {failure}", context.operation().operation_id) }
    }

    async fn create_task(
        &self,
        context: &RequestContext,
        body: types::CreateTaskRequest,
    ) -> CreateTaskResponse {
        CreateTaskResponse::Accepted(format!("token-{}", body.name).into(), context.text_or_json())
    }

    async fn read_note(&self, _context: &RequestContext, task_id: String, note_id: String) -> ReadNoteResponse {
        match note_id.as_str() {
            "none" => ReadNoteResponse::NotFound,
            _ => ReadNoteResponse::Ok(format!("{task_id}|{note_id}").into()),
        }
    }

    async fn check_task(&self, _context: &RequestContext, body: types::Person) -> CheckTaskResponse {
        CheckTaskResponse::Ok(types::CheckTaskOkBody { good: true, reason: Some(body.name) })
    }

    async fn ping(&self, _context: &RequestContext, task_id: String) -> PingResponse {
        if task_id == "none" { PingResponse::NotFound } else { PingResponse::NoContent }
    }
}
