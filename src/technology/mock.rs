//! The mock: turns any component green, as the platform's own mock adapter does.
//!
//! It makes nothing, so there is nothing to observe and nothing that differs: its plan is empty, and the operation
//! completes. That is what keeps the promise that an operation sent again changes nothing. It says what it would
//! have stood for, and that nothing was made.
//!
//! For demonstrations of slow work and of stopping, [`MockSettings`] can make a plan of idle steps. They are there
//! every time, because doing nothing leaves no trace that they were done; a target configured so is for trying
//! Landfall out, not for keeping anything.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::{
    AccessMode, Action, Capabilities, Change, Context, Info, Intent, Plan, ReverseRequest, Technology, Work,
};
use crate::descriptor::{ComponentKind, Object, Problem};
use crate::error::{Error, Result};

/// How a mock keeps itself busy. The default does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MockSettings {
    /// Idle changes in every plan.
    pub steps: u32,
    /// How long each of them takes; it ends early when the work is stopped.
    pub step_delay: Duration,
    /// How long a step takes to end when the work is stopped.
    pub stop_delay: Duration,
    /// Whether it can only be stopped before it begins: a step then goes on whatever it is told.
    pub unstoppable: bool,
}

/// See the module documentation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mock {
    settings: MockSettings,
}

impl Mock {
    /// A mock with these settings.
    pub fn new(settings: MockSettings) -> Self {
        Self { settings }
    }
}

#[async_trait]
impl Technology for Mock {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kinds: &ComponentKind::ALL,
            access: AccessMode::None,
            reverse: false,
            stop: !self.settings.unstoppable,
        }
    }

    fn check(&self, _work: &Work, _intent: &Intent) -> Vec<Problem> {
        Vec::new()
    }

    async fn plan(&self, work: &Work, intent: &Intent, context: &Context) -> Result<Plan> {
        context.check_cancelled()?;
        let component = &work.component;
        let what = match intent {
            Intent::Provision => "provisioned",
            Intent::Unprovision { .. } => "unprovisioned",
            Intent::UpdateAccess => "granted or revoked",
        };
        let mut notes = vec![format!("`{}` is a mock: nothing was {what}", component.name)];
        if *intent == Intent::UpdateAccess || work.access.is_some() {
            notes.push("a mock keeps no access list: it is accepted and ignored".to_owned());
        }
        let changes = (1..=self.settings.steps)
            .map(|step| Change {
                action: Action::Alter,
                resource: format!("mock `{}`", component.name),
                summary: format!("idle step {step} of {}", self.settings.steps),
                detail: json!({ "step": step }),
            })
            .collect();
        Ok(Plan { changes, notes })
    }

    async fn apply(&self, _work: &Work, change: &Change, context: &Context) -> Result<()> {
        let MockSettings { step_delay, stop_delay, unstoppable, .. } = self.settings;
        if unstoppable {
            tokio::time::sleep(step_delay).await;
        } else {
            context.check_cancelled()?;
            tokio::select! {
                () = tokio::time::sleep(step_delay) => {}
                () = context.cancel.cancelled() => {
                    tokio::time::sleep(stop_delay).await;
                    context.check_cancelled()?;
                }
            }
        }
        context.journal.info(format!("{}: {}", change.resource, change.summary));
        Ok(())
    }

    async fn describe(&self, work: &Work, context: &Context) -> Result<Info> {
        context.check_cancelled()?;
        let entry = |label: &str, value: &str| json!({ "type": "string", "label": label, "value": value });
        let mut public = Object::new();
        public.insert(
            "provisionedBy".to_owned(),
            entry("Provisioned by", "Landfall's mock: nothing is behind it"),
        );
        if let Some(technology) = &work.component.technology {
            public.insert("technology".to_owned(), entry("Technology", technology));
        }
        Ok(Info { public, private: Object::new() })
    }

    async fn reverse(&self, _request: &ReverseRequest, _context: &Context) -> Result<Object> {
        Err(Error::unsupported("a mock has nothing to import: route the template to another technology"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::technology::conformance::{self, Case, Subject};
    use crate::technology::testing;

    struct Green(Mock);

    #[async_trait]
    impl Subject for Green {
        async fn fresh() -> Self {
            Self(Mock::default())
        }

        fn technology(&self) -> &dyn Technology {
            &self.0
        }

        fn cases(&self) -> Vec<Case> {
            [testing::PORT, testing::WORKLOAD, testing::STORAGE]
                .map(|id| Case { work: testing::work(testing::CASHFLOW, id), changed: None })
                .into()
        }
    }

    #[tokio::test]
    async fn conforms() {
        conformance::conforms::<Green>().await;
    }

    #[tokio::test]
    async fn idle_steps_stop_on_request() {
        let settings = MockSettings { steps: 2, step_delay: Duration::from_secs(60), ..Default::default() };
        let mock = Mock::new(settings);
        let work = testing::work(testing::CASHFLOW, testing::WORKLOAD);
        let context = Context::default();
        let plan = mock.plan(&work, &Intent::Provision, &context).await.unwrap();
        assert_eq!(plan.changes.len(), 2);
        let started = Instant::now();
        let stop = context.cancel.clone();
        let (applied, ()) =
            tokio::join!(mock.apply(&work, &plan.changes[0], &context), async move { stop.cancel() });
        assert_eq!(*applied.unwrap_err().kind(), crate::error::Kind::Cancelled);
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn a_mock_that_cannot_stop_says_so_and_goes_on() {
        assert!(Mock::default().capabilities().stop);
        let settings = MockSettings { steps: 1, unstoppable: true, ..Default::default() };
        let mock = Mock::new(settings);
        assert!(!mock.capabilities().stop);
        let work = testing::work(testing::CASHFLOW, testing::WORKLOAD);
        let context = Context::default();
        let plan = mock.plan(&work, &Intent::Provision, &context).await.unwrap();
        context.cancel.cancel();
        mock.apply(&work, &plan.changes[0], &context).await.unwrap();
    }
}
