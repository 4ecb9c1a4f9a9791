//! Technologies of unknown types, which the engine works with. Authors of technologies do not need this module.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_trait::async_trait;

use crate::descriptor::Problem;
use crate::error::{Error, Result};
use crate::{
    Bound, Capabilities, Context, Found, Import, ImportParams, Imported, Info, Intent, Plan, Running,
    Technology, Work,
};

/// A technology of any type. Every [`Technology`] implements it.
#[async_trait]
pub trait AnyTechnology: Send + Sync + 'static {
    /// See [`Technology::name`].
    fn name(&self) -> &str;

    /// See [`Technology::capabilities`].
    fn capabilities(&self) -> Capabilities;

    /// See [`Technology::is_known`].
    fn is_known(&self) -> bool;

    /// See [`Technology::learn`].
    async fn learn(&self, context: &Context) -> Result<()>;

    /// See [`Technology::reads_sent`].
    fn reads_sent(&self) -> bool;

    /// See [`Technology::bind`].
    fn bind(&self, work: Work, intent: Intent) -> Result<Arc<dyn AnyBound>, Vec<Problem>>;

    /// See [`Technology::check_import`].
    fn check_import(&self, params: &mut ImportParams<'_>);

    /// See [`Technology::reverse`].
    async fn reverse(&self, import: &Import, context: &Context) -> Result<Imported>;
}

/// A bound component of any technology; see [`Bound`].
#[async_trait]
pub trait AnyBound: Send + Sync + 'static {
    /// See [`Bound::has_check`].
    fn has_check(&self) -> bool;

    /// See [`Bound::check`].
    async fn check(&self, context: &Context) -> Result<Vec<Problem>>;

    /// See [`Bound::find`].
    async fn find(&self, context: &Context) -> Result<Found>;

    /// See [`Bound::plan`].
    async fn plan(&self, context: &Context) -> Result<Plan>;

    /// See [`Bound::apply`]. The step must come from a plan of the same technology.
    async fn apply(&self, step: &AnyStep, context: &Running) -> Result<()>;

    /// See [`Bound::describe`].
    async fn describe(&self, context: &Context) -> Result<Info>;
}

/// A step of any technology.
#[derive(Clone)]
pub struct AnyStep {
    step: Arc<dyn Step>,
    intent: Intent,
}

impl AnyStep {
    /// Wraps the step of a technology.
    pub fn new(step: impl fmt::Debug + PartialEq + Send + Sync + 'static, intent: Intent) -> Self {
        Self { step: Arc::new(step), intent }
    }

    /// The intent that it was planned for.
    pub fn intent(&self) -> Intent {
        self.intent
    }
}

impl PartialEq for AnyStep {
    fn eq(&self, other: &Self) -> bool {
        self.intent == other.intent && self.step.equals(&*other.step)
    }
}

impl fmt::Debug for AnyStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.step, f)
    }
}

trait Step: Any + fmt::Debug + Send + Sync {
    fn equals(&self, other: &dyn Step) -> bool;
}

impl<T: Any + fmt::Debug + PartialEq + Send + Sync> Step for T {
    fn equals(&self, other: &dyn Step) -> bool {
        (other as &dyn Any).downcast_ref::<T>() == Some(self)
    }
}

/// The problem after a panic of a technology in a request.
fn panicked(name: &str, what: &str) -> Problem {
    Problem::new("", format!("technology `{name}` failed to read {what}: an internal error"))
        .remedy("ask the administrator, whose log has more; it is no fault of the request")
}

/// A bound component whose technology is known only here.
struct Erased<B> {
    bound: B,
    intent: Intent,
}

#[async_trait]
impl<T: Technology> AnyTechnology for T {
    fn name(&self) -> &str {
        Technology::name(self)
    }

    fn capabilities(&self) -> Capabilities {
        Technology::capabilities(self)
    }

    fn is_known(&self) -> bool {
        Technology::is_known(self)
    }

    async fn learn(&self, context: &Context) -> Result<()> {
        Technology::learn(self, context).await
    }

    fn reads_sent(&self) -> bool {
        Technology::reads_sent(self)
    }

    fn bind(&self, work: Work, intent: Intent) -> Result<Arc<dyn AnyBound>, Vec<Problem>> {
        let bound = catch_unwind(AssertUnwindSafe(|| Technology::bind(self, work, intent)));
        let bound =
            bound.unwrap_or_else(|_| Err(vec![panicked(Technology::name(self), "this component")]))?;
        Ok(Arc::new(Erased { bound, intent }))
    }

    fn check_import(&self, params: &mut ImportParams<'_>) {
        if catch_unwind(AssertUnwindSafe(|| Technology::check_import(self, params))).is_err() {
            params.problem(panicked(Technology::name(self), "the parameters of this import"));
        }
    }

    async fn reverse(&self, import: &Import, context: &Context) -> Result<Imported> {
        Technology::reverse(self, import, context).await
    }
}

#[async_trait]
impl<B: Bound> AnyBound for Erased<B> {
    fn has_check(&self) -> bool {
        self.bound.has_check()
    }

    async fn check(&self, context: &Context) -> Result<Vec<Problem>> {
        self.bound.check(context).await
    }

    async fn find(&self, context: &Context) -> Result<Found> {
        self.bound.find(context).await
    }

    async fn plan(&self, context: &Context) -> Result<Plan> {
        let plan = self.bound.plan(context).await?;
        Ok(plan.map(|step| AnyStep::new(step, self.intent)))
    }

    async fn apply(&self, step: &AnyStep, context: &Running) -> Result<()> {
        match (&*step.step as &dyn Any).downcast_ref::<B::Step>() {
            Some(step) => self.bound.apply(step, context).await,
            None => Err(Error::permanent("the change is of another technology").because(format!("{step:?}"))),
        }
    }

    async fn describe(&self, context: &Context) -> Result<Info> {
        self.bound.describe(context).await
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Kinds;
    use crate::testing::{self, CASHFLOW, STORAGE};

    #[derive(Debug)]
    struct Clumsy;

    #[expect(clippy::panic, reason = "this is what is tested")]
    impl Technology for Clumsy {
        type Bound = Self;

        fn name(&self) -> &str {
            "clumsy"
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::new(Kinds::Any)
        }

        fn bind(&self, _: Work, _: Intent) -> Result<Self, Vec<Problem>> {
            panic!("an index is out of bounds")
        }

        fn check_import(&self, _: &mut ImportParams<'_>) {
            panic!("an index is out of bounds")
        }
    }

    #[async_trait]
    impl Bound for Clumsy {
        type Step = ();

        async fn plan(&self, _: &Context) -> Result<Plan<()>> {
            Ok(Plan::default())
        }

        async fn apply(&self, (): &(), _: &Running) -> Result<()> {
            Ok(())
        }

        async fn describe(&self, _: &Context) -> Result<Info> {
            Ok(Info::default())
        }
    }

    #[test]
    fn a_technology_that_panics_breaks_no_request() {
        let bound = AnyTechnology::bind(&Clumsy, testing::work(CASHFLOW, STORAGE), Intent::Provision);
        let told = |what: &str| {
            format!(
                "technology `clumsy` failed to read {what}: an internal error; ask the administrator, whose log has more; it \
                 is no fault of the request"
            )
        };
        let problems: Vec<_> = bound.err().unwrap().iter().map(Problem::with_remedy).collect();
        assert_eq!(problems, [told("this component")]);
        let import = testing::import("production", &json!({}), &json!({}));
        let mut params = import.params();
        AnyTechnology::check_import(&Clumsy, &mut params);
        let problems: Vec<_> = params.finish().problems.iter().map(Problem::with_remedy).collect();
        assert_eq!(problems, [told("the parameters of this import")]);
    }

    #[tokio::test]
    async fn a_step_of_another_technology_is_refused() {
        let bound = Erased { bound: Clumsy, intent: Intent::Provision };
        let running = Running::new(Context::default());
        bound.apply(&AnyStep::new((), Intent::Provision), &running).await.unwrap();
        let error = bound.apply(&AnyStep::new(7, Intent::Provision), &running).await.unwrap_err();
        assert_eq!(error.report(), "the change is of another technology: 7");
    }
}
