//! A component bound to a plug-in: which verb runs when, and what is remembered between runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use landfall_adapter::access::{Directory, Known};
use landfall_adapter::descriptor::{ComponentKind, Object, Problem};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{
    AccessMode, Action, Bound, Capabilities, Change, Context, Found, Import, ImportParams, Imported, Info,
    Intent, Kinds, Part, Plan, Running, Technology, Work, naming,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::protocol::{
    AccessMeaning, AccessPart, ChangePart, ImportPart, OperationPart, Outcome, OwnerPart, PROTOCOL,
    Principal, Published, Request, TargetPart, Verb,
};
use crate::run::{Checkpoints, NoCheckpoints, Program};
use crate::schema::Schema;
use crate::verdict::problem;

/// The key of the schema for every other kind.
const ANY_KIND: &str = "*";

/// A plug-in on one target.
#[derive(Clone)]
pub struct Plugin(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) program: Arc<Program>,
    /// The code of the target.
    pub(crate) target: String,
    pub(crate) settings: Object,
    pub(crate) directory: Directory,
    pub(crate) description: OnceCell<Description>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("target", &self.0.target).finish_non_exhaustive()
    }
}

/// What a plug-in said of itself.
pub(crate) struct Description {
    name: String,
    version: Option<String>,
    verbs: BTreeSet<Verb>,
    capabilities: Capabilities,
    specific: BTreeMap<String, Schema>,
}

impl Description {
    /// Reads the result of `describe`, or returns what is wrong with it.
    fn read(outcome: &Outcome, settings: &Object) -> Result<Self, String> {
        if !outcome.protocols.iter().any(|known| known == PROTOCOL) {
            let known =
                if outcome.protocols.is_empty() { "none".to_owned() } else { outcome.protocols.join(", ") };
            return Err(format!("it does not speak `{PROTOCOL}`; its `protocols`: {known}"));
        }
        let name = outcome.name.clone().filter(|name| !name.trim().is_empty()).ok_or("it has no `name`")?;
        let kinds = match &outcome.kinds {
            None => Kinds::Any,
            Some(kinds) => Kinds::Only(kinds.iter().map(|kind| ComponentKind::of(kind)).collect()),
        };
        let verbs: BTreeSet<Verb> = outcome.verbs.iter().copied().collect();
        let mode = match (verbs.contains(&Verb::Access), outcome.access) {
            (false, None | Some(AccessMeaning::None)) => AccessMode::None,
            (false, Some(_)) => return Err("it has `access`, and not the verb `access`".to_owned()),
            (true, Some(AccessMeaning::Enforced)) => AccessMode::Enforced,
            (true, Some(AccessMeaning::Recorded)) => AccessMode::Recorded,
            (true, None | Some(AccessMeaning::Delegated)) => AccessMode::Delegated,
            (true, Some(AccessMeaning::None)) => {
                return Err("it has the verb `access`, and `access` is `none`".to_owned());
            }
        };
        let mut capabilities = Capabilities::new(kinds).access(mode).stoppable(outcome.stop.unwrap_or(true));
        if !verbs.contains(&Verb::Plan) {
            capabilities = capabilities.blind();
        }
        if verbs.contains(&Verb::Reverse) {
            capabilities = capabilities.with_import();
        }
        let compiled = |(kind, schema): (&String, &Value)| {
            let schema =
                Schema::compile(schema).map_err(|error| format!("its schema of `{kind}`: {error}"))?;
            Ok((kind.clone(), schema))
        };
        let specific = outcome.specific.iter().map(compiled).collect::<Result<_, String>>()?;
        if let Some(schema) = &outcome.settings {
            let schema =
                Schema::compile(schema).map_err(|error| format!("its schema of `settings`: {error}"))?;
            let problems = schema.problems(&Value::Object(settings.clone()), "settings");
            if !problems.is_empty() {
                let problems = problems.iter().map(Problem::with_remedy).collect::<Vec<_>>();
                return Err(format!("it refuses the settings of the target: {}", problems.join("; ")));
            }
        }
        Ok(Self { name, version: outcome.version.clone(), verbs, capabilities, specific })
    }

    /// The problems that the schema finds in `specific`.
    fn problems(&self, kind: &ComponentKind, specific: &Object) -> Vec<Problem> {
        let schema = self.specific.get(kind.name()).or_else(|| self.specific.get(ANY_KIND));
        schema.map_or_else(Vec::new, |schema| schema.problems(&Value::Object(specific.clone()), "specific"))
    }
}

/// What Landfall remembers of a component.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Remembered {
    /// The last checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<Value>,
    /// Whether `provision` succeeded since the last `unprovision`.
    #[serde(default)]
    provisioned: bool,
    /// Whether a `provision` or `unprovision` began whose outcome is unknown. It runs again, also if the plan is empty,
    /// because its result was lost.
    #[serde(default)]
    unsettled: bool,
    /// Who surely has access.
    #[serde(default)]
    granted: BTreeSet<Principal>,
    /// Who may have access: also those of a run whose outcome is unknown.
    #[serde(default)]
    perhaps: BTreeSet<Principal>,
    #[serde(default)]
    public_info: Object,
    #[serde(default)]
    private_info: Object,
}

impl Remembered {
    async fn of(context: &Context) -> Result<Self> {
        Ok(context.recall().await?.unwrap_or_default())
    }

    /// Takes over what a run returned.
    fn take(&mut self, outcome: &Outcome) {
        if let Some(state) = &outcome.state {
            self.state = Some(state.clone());
        }
        if let Some(info) = &outcome.public_info {
            self.public_info.clone_from(info);
        }
        if let Some(info) = &outcome.private_info {
            self.private_info.clone_from(info);
        }
    }
}

#[async_trait]
impl Checkpoints for Remembered {
    async fn keep(&mut self, state: Value, running: &Running) -> Result<()> {
        self.state = Some(state);
        running.remember(&*self).await
    }
}

impl Plugin {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// The first kind that it takes, if it does not take every kind.
    pub(crate) fn first_kind(&self) -> Option<String> {
        match Technology::capabilities(self).kinds {
            Kinds::Any => None,
            Kinds::Only(kinds) => kinds.first().map(|kind| kind.name().to_owned()),
        }
    }

    fn description(&self) -> Result<&Description> {
        let name = &self.0.program.name;
        self.0.description.get().ok_or_else(|| {
            Error::retryable(format!("plug-in `{name}` has not described itself yet: try again later"))
        })
    }

    /// The request of a verb, without a component.
    fn request(&self, verb: Verb, context: &Context, dry_run: bool) -> Request<'_> {
        let left = self.0.program.end(context).saturating_duration_since(Instant::now());
        let left = TimeDelta::from_std(left).unwrap_or(TimeDelta::MAX);
        let attempt = context.attempt();
        Request {
            protocol: PROTOCOL,
            verb,
            operation: OperationPart {
                id: attempt.map(|attempt| attempt.token.to_string()),
                attempt: attempt.map_or(1, |attempt| attempt.number),
                deadline: Utc::now().checked_add_signed(left).unwrap_or(chrono::DateTime::<Utc>::MAX_UTC),
                dry_run,
            },
            target: TargetPart { code: &self.0.target, settings: &self.0.settings },
            environment: None,
            owner: None,
            component: None,
            product: None,
            dependencies: BTreeMap::new(),
            access: None,
            remove_data: None,
            plan_of: None,
            state: None,
            import: None,
        }
    }

    async fn run<C: Checkpoints>(
        &self,
        request: &Request<'_>,
        context: &Context,
        checkpoints: C,
    ) -> Result<(Outcome, C)> {
        let bytes = serde_json::to_vec(request).map_err(|error| {
            Error::permanent("the request for a plug-in cannot be written").because(error)
        })?;
        self.0.program.run(request.verb, self.lock(request), bytes, context, checkpoints).await
    }

    /// The name of the lock: the same for every run that could disturb this one. Verbs that change nothing take one of
    /// their own.
    fn lock(&self, request: &Request<'_>) -> String {
        let changes = matches!(request.verb, Verb::Provision | Verb::Unprovision | Verb::Access);
        let what = match &request.owner {
            Some(owner) if changes => owner.key.clone(),
            _ => uuid::Uuid::new_v4().simple().to_string(),
        };
        let program = &self.0.program;
        let settings = Value::Object(self.0.settings.clone()).to_string();
        let command = program.command.join("\0");
        let directory = program.directory.to_string_lossy();
        let digest = naming::digest(&[&self.0.target, &command, &directory, &settings, &what]);
        format!("landfall-exec-{}", naming::hex(&digest, 64))
    }
}

#[async_trait]
impl Technology for Plugin {
    type Bound = BoundPlugin;

    fn name(&self) -> &str {
        "exec"
    }

    fn capabilities(&self) -> Capabilities {
        match self.0.description.get() {
            Some(description) => description.capabilities.clone(),
            None => Capabilities::new(Kinds::Any).access(AccessMode::Delegated).blind().with_import(),
        }
    }

    fn is_known(&self) -> bool {
        self.0.description.get().is_some()
    }

    async fn learn(&self, context: &Context) -> Result<()> {
        let describe = async || {
            let name = &self.0.program.name;
            let request = self.request(Verb::Describe, context, true);
            let (outcome, _) = self.run(&request, context, NoCheckpoints).await?;
            let description = Description::read(&outcome, &self.0.settings)
                .map_err(|error| Error::permanent(format!("plug-in `{name}` cannot be used: {error}")))?;
            let version = description.version.as_deref().unwrap_or("without a version");
            log::info!("target {}: plug-in {}, {version}", self.0.target, description.name);
            Ok(description)
        };
        self.0.description.get_or_try_init(describe).await.map(drop)
    }

    fn reads_sent(&self) -> bool {
        true
    }

    fn bind(&self, work: Work, intent: Intent) -> Result<BoundPlugin, Vec<Problem>> {
        if intent == Intent::Provision
            && let Some(description) = self.0.description.get()
        {
            let component = &work.component;
            let problems = description.problems(&component.kind, &component.specific);
            if !problems.is_empty() {
                return Err(problems);
            }
        }
        Ok(BoundPlugin { plugin: self.clone(), work, intent })
    }

    fn check_import(&self, params: &mut ImportParams<'_>) {
        params.pass_on();
    }

    async fn reverse(&self, import: &Import, context: &Context) -> Result<Imported> {
        let description = self.description()?;
        if !description.verbs.contains(&Verb::Reverse) {
            return Err(Error::unsupported(format!(
                "plug-in `{}` has nothing to import: route the template to another technology",
                description.name
            )));
        }
        let asked = import.request();
        let request = Request {
            environment: Some(&asked.environment),
            import: Some(ImportPart {
                use_case_template_id: &asked.use_case_template_id,
                params: &asked.params,
                catalog_info: &asked.catalog_info,
            }),
            ..self.request(Verb::Reverse, context, false)
        };
        let (outcome, _) = self.run(&request, context, NoCheckpoints).await?;
        let name = &self.0.program.name;
        let none =
            || Error::permanent(format!("plug-in `{name}` ended `reverse` without `updates` in its result"));
        outcome.updates.map(Imported::Updates).ok_or_else(none)
    }
}

/// A component bound to a plug-in.
#[derive(Debug)]
pub struct BoundPlugin {
    plugin: Plugin,
    work: Work,
    intent: Intent,
}

/// A run of a plug-in.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// `provision`
    Provision,
    /// `unprovision`
    Unprovision,
    /// `access`, to revoke it from these.
    Revoke(BTreeSet<Principal>),
    /// `access`, to grant it to these.
    Grant(BTreeSet<Principal>),
}

impl BoundPlugin {
    fn has(&self, verb: Verb) -> bool {
        self.plugin.0.description.get().is_some_and(|description| description.verbs.contains(&verb))
    }

    fn name(&self) -> &str {
        let described = self.plugin.0.description.get();
        described.map_or(self.plugin.0.program.name.as_str(), |description| &description.name)
    }

    fn request<'a>(
        &'a self,
        verb: Verb,
        context: &Context,
        remembered: &'a Remembered,
        dry_run: bool,
    ) -> Request<'a> {
        let Work { environment, sent, dependencies, .. } = &self.work;
        let published = |it: &landfall_adapter::Dependency| {
            let Info { public, private } = it.info.clone();
            (it.id.to_string(), Published { public_info: public, private_info: private })
        };
        let remove_data = match self.intent {
            Intent::Unprovision { remove_data } => Some(remove_data),
            Intent::Provision | Intent::UpdateAccess => None,
        };
        Request {
            environment: Some(environment),
            owner: Some(OwnerPart::from(self.work.owner())),
            component: sent.as_ref().map(landfall_adapter::descriptor::Sent::component),
            product: sent.as_ref().map(landfall_adapter::descriptor::Sent::product),
            dependencies: dependencies.iter().map(published).collect(),
            remove_data,
            state: remembered.state.as_ref(),
            ..self.plugin.request(verb, context, dry_run)
        }
    }

    /// Who should have access, and what is wrong with refs that nobody has; `None` if the plug-in has no access lists,
    /// or none was requested.
    async fn wanted(&self, context: &Context) -> Result<Option<(BTreeSet<Principal>, Vec<Problem>)>> {
        let Some(list) = self.work.access.as_ref().filter(|_| self.has(Verb::Access)) else {
            return Ok(None);
        };
        let mut wanted = BTreeSet::new();
        let mut unmet = Vec::new();
        for reference in &list.refs {
            let mut refuse = |why: String, remedy: &str| {
                unmet.push(Problem::new("", why).value(reference.to_string()).remedy(remedy));
            };
            match context.lookups.resolve(&self.plugin.0.directory, reference).await? {
                Known::Unknown(why) => {
                    refuse(
                        format!("no access was granted: {why}"),
                        "correct the ref, or add it to the identity source",
                    );
                }
                Known::Candidates(candidates) => {
                    match candidates.as_slice() {
                        [one] => wanted.extend(one.principals.iter().map(|name| Principal {
                            reference: one.reference.to_string(),
                            name: name.clone(),
                        })),
                        _ => refuse(
                            "no access was granted: the name may be a user's or a group's".to_owned(),
                            "write `user:NAME` or `group:NAME`",
                        ),
                    }
                }
            }
        }
        Ok(Some((wanted, unmet)))
    }

    /// The changes that the plug-in plans for a verb; `None` if it does not plan.
    async fn planned(&self, of: Verb, context: &Context, remembered: &Remembered) -> Result<Option<Outcome>> {
        if !self.has(Verb::Plan) {
            return Ok(None);
        }
        let request = Request { plan_of: Some(of), ..self.request(Verb::Plan, context, remembered, true) };
        let (outcome, _) = self.plugin.run(&request, context, NoCheckpoints).await?;
        Ok(Some(outcome))
    }

    /// The change that runs `access` for principals.
    fn access(&self, action: Action, step: Step, principals: &BTreeSet<Principal>) -> Change<Step> {
        /// The most names in a line.
        const NAMED: usize = 20;
        let mut names: Vec<_> = principals.iter().take(NAMED).map(|one| one.name.as_str()).collect();
        let more = format!("{} more", principals.len().saturating_sub(NAMED));
        if principals.len() > NAMED {
            names.push(&more);
        }
        let resource = format!("`{}` of plug-in `{}`", self.work.component.name, self.name());
        Change::new(action, resource, format!("{} access: {}", action.name(), names.join(", ")), step)
    }

    /// The change that runs a verb, with what the plug-in plans to do in it.
    fn run(&self, verb: Verb, step: Step, planned: &[ChangePart]) -> Change<Step> {
        let name = self.name();
        let resource = format!("`{}` of plug-in `{name}`", self.work.component.name);
        let change =
            Change::new(Action::Run, resource, format!("run `{}` of plug-in `{name}`", verb.name()), step);
        let part = |ChangePart { action, resource, summary, destructive }: &ChangePart| Part {
            action: action.to_string(),
            resource: resource.clone(),
            summary: summary.clone(),
            destructive: *destructive,
        };
        let change = change.with_parts(planned.iter().map(part).collect());
        let removes = self.intent == Intent::Unprovision { remove_data: true } && planned.is_empty();
        if removes || planned.iter().any(|part| part.destructive) { change.destructive() } else { change }
    }
}

#[async_trait]
impl Bound for BoundPlugin {
    type Step = Step;

    fn has_check(&self) -> bool {
        self.intent == Intent::Provision && self.has(Verb::Check)
    }

    async fn check(&self, context: &Context) -> Result<Vec<Problem>> {
        let remembered = Remembered::of(context).await?;
        let request = self.request(Verb::Check, context, &remembered, true);
        let (outcome, _) = self.plugin.run(&request, context, NoCheckpoints).await?;
        Ok(outcome.problems.into_iter().map(problem).collect())
    }

    async fn find(&self, _context: &Context) -> Result<Found> {
        Ok(Found::Unknown)
    }

    async fn plan(&self, context: &Context) -> Result<Plan<Step>> {
        context.check_cancelled()?;
        self.plugin.description()?;
        let remembered = Remembered::of(context).await?;
        let mut changes = Vec::new();
        let mut notes = Vec::new();
        let mut unmet = Vec::new();
        let own = match self.intent {
            Intent::Provision => Some((Verb::Provision, Step::Provision)),
            Intent::Unprovision { .. } => Some((Verb::Unprovision, Step::Unprovision)),
            Intent::UpdateAccess => None,
        };
        if let Some((verb, step)) = own {
            match self.planned(verb, context, &remembered).await? {
                None => changes.push(self.run(verb, step, &[])),
                Some(planned) => {
                    notes.extend(planned.notes);
                    let is_done =
                        remembered.provisioned == (verb == Verb::Provision) && !remembered.unsettled;
                    if !planned.changes.is_empty() || !is_done {
                        changes.push(self.run(verb, step, &planned.changes));
                    }
                }
            }
        }
        if self.intent == Intent::UpdateAccess && !remembered.provisioned {
            return Err(self.work.owner().not_provisioned());
        }
        let wants_access = !matches!(self.intent, Intent::Unprovision { .. });
        if wants_access && let Some((wanted, problems)) = self.wanted(context).await? {
            unmet = problems;
            let revoke: BTreeSet<Principal> = &remembered.perhaps - &wanted;
            // What the provisioning makes anew has no grants.
            let grant = if changes.is_empty() { &wanted - &remembered.granted } else { wanted };
            if !revoke.is_empty() {
                changes.push(self.access(Action::Revoke, Step::Revoke(revoke.clone()), &revoke));
            }
            if !grant.is_empty() {
                changes.push(self.access(Action::Grant, Step::Grant(grant.clone()), &grant));
            }
        }
        Ok(Plan::new(changes).with_notes(notes).with_unmet(unmet))
    }

    async fn apply(&self, step: &Step, context: &Running) -> Result<()> {
        context.check_cancelled()?;
        let mut remembered = Remembered::of(context).await?;
        let before = remembered.clone();
        match step {
            Step::Provision => {
                let mut request = self.request(Verb::Provision, context, &before, false);
                if let Some((wanted, _)) = self.wanted(context).await? {
                    request.access = Some(AccessPart {
                        grant: (&wanted - &before.granted).into_iter().collect(),
                        revoke: (&before.perhaps - &wanted).into_iter().collect(),
                        principals: wanted.into_iter().collect(),
                    });
                }
                self.settle(&request, remembered, context).await
            }
            Step::Unprovision => {
                let request = self.request(Verb::Unprovision, context, &before, false);
                // What is granted after that is not known, and must be revocable later.
                remembered.granted.clear();
                self.settle(&request, remembered, context).await
            }
            Step::Revoke(revoke) => {
                remembered.granted = &remembered.granted - revoke;
                context.remember(&remembered).await?;
                let principals = remembered.granted.clone();
                let access = AccessPart {
                    principals: principals.into_iter().collect(),
                    grant: Vec::new(),
                    revoke: revoke.iter().cloned().collect(),
                };
                let mut remembered = self.change_access(access, &before, remembered, context).await?;
                remembered.perhaps = &remembered.perhaps - revoke;
                context.remember(&remembered).await
            }
            Step::Grant(grant) => {
                // A crash during the run leaves its outcome unknown: these may have to be revoked.
                remembered.perhaps = &remembered.perhaps | grant;
                context.remember(&remembered).await?;
                let principals = &remembered.granted | grant;
                let access = AccessPart {
                    principals: principals.iter().cloned().collect(),
                    grant: grant.iter().cloned().collect(),
                    revoke: Vec::new(),
                };
                let mut remembered = self.change_access(access, &before, remembered, context).await?;
                remembered.granted = principals;
                context.remember(&remembered).await
            }
        }
    }

    async fn describe(&self, context: &Context) -> Result<Info> {
        let Remembered { public_info, private_info, .. } = Remembered::of(context).await?;
        Ok(Info { public: public_info, private: private_info })
    }
}

impl BoundPlugin {
    /// Runs `provision` or `unprovision`, and takes over its result.
    async fn settle(&self, request: &Request<'_>, remembered: Remembered, context: &Running) -> Result<()> {
        let begun = Remembered { unsettled: true, ..remembered };
        context.remember(&begun).await?;
        let (outcome, mut remembered) = self.plugin.run(request, context, begun).await?;
        self.logged(&outcome, context);
        remembered.take(&outcome);
        remembered.provisioned = request.verb == Verb::Provision;
        remembered.unsettled = false;
        context.remember(&remembered).await
    }

    /// Runs `access`, and takes over its result.
    async fn change_access(
        &self,
        access: AccessPart,
        before: &Remembered,
        remembered: Remembered,
        context: &Running,
    ) -> Result<Remembered> {
        let request = Request { access: Some(access), ..self.request(Verb::Access, context, before, false) };
        let (outcome, mut remembered) = self.plugin.run(&request, context, remembered).await?;
        self.logged(&outcome, context);
        remembered.take(&outcome);
        Ok(remembered)
    }

    /// Logs what the plug-in says it changed.
    fn logged(&self, outcome: &Outcome, context: &Context) {
        for ChangePart { action, resource, summary, .. } in &outcome.changes {
            let what = if summary.is_empty() { String::new() } else { format!(": {summary}") };
            context.journal.info(format!("{action} {resource}{what}"));
        }
        if outcome.changed == Some(false) {
            context.journal.info(format!("plug-in `{}` had nothing to change", self.name()));
        }
    }
}
