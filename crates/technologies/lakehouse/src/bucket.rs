//! Storage areas: directory buckets.
//!
//! A bucket is `WAREHOUSE/buckets/NAME`, a marked directory with the content of its users. After an unprovision
//! without its data, it stays where it is, marked as released, and the same component restores it. With its data, it
//! is purged.

use super::files::Place;
use super::marked::{self, Found, Mark, State};
use super::{Opened, Step, access, blocking, change, naming};
use landfall_adapter::descriptor::{Problem, SpecificReader};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{Action, Change, Context, Info, Intent, Owner, Plan, Work};

/// A component that is a bucket.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    name: String,
    /// "bucket `name`", in messages and plans.
    what: String,
    owner: Owner,
}

impl Bucket {
    /// Reads `specific`, or returns all problems. An unprovision needs only the name.
    pub(super) fn read(work: &Work, intent: Intent) -> Result<Self, Vec<Problem>> {
        let mut specific = SpecificReader::new(&work.component.specific);
        let given = specific.string("bucket");
        let name = match given {
            Some(name) => name.to_owned(),
            None => naming::bucket(work.component.id.as_str(), &work.environment),
        };
        let fault = naming::bucket_problem(&name);
        if let Some(fault) = fault {
            specific.problem("bucket", fault, "choose a name such as `finance-cashflows`");
        }
        let mistyped = given.is_none() && specific.value("bucket").is_some();
        let problems = specific.finish();
        if intent != Intent::Provision && fault.is_none() && !mistyped || problems.is_empty() {
            let what = format!("bucket `{name}`");
            return Ok(Self { name, what, owner: work.owner() });
        }
        Err(problems)
    }
}

impl Opened {
    fn bucket_place(&self, bucket: &Bucket) -> Place {
        self.buckets.join(&bucket.name)
    }

    async fn observe_bucket(&self, bucket: &Bucket) -> Result<(Found, bool)> {
        let (path, owner) = (self.bucket_place(bucket), bucket.owner.clone());
        blocking(move |_| Ok((marked::observe(&path)?, marked::has_leftovers(&path, &owner)?))).await
    }

    pub(super) async fn find_bucket(&self, bucket: &Bucket) -> Result<landfall_adapter::Found> {
        let (found, _) = self.observe_bucket(bucket).await?;
        let what = || vec![bucket.what.clone()];
        Ok(match found.owned_by(&bucket.owner, &bucket.what)?.map(|mark| mark.state) {
            None | Some(State::Purging) => landfall_adapter::Found::Nothing,
            Some(State::Active) => landfall_adapter::Found::Provisioned(what()),
            Some(State::Released) => landfall_adapter::Found::Kept(what()),
        })
    }

    pub(super) async fn plan_bucket(
        &self,
        bucket: &Bucket,
        work: &Work,
        intent: Intent,
    ) -> Result<Plan<Step>> {
        let (found, leftovers) = self.observe_bucket(bucket).await?;
        let mark = found.owned_by(&bucket.owner, &bucket.what)?;
        let step = |action, summary: &str, step| change(action, &bucket.what, summary, step);
        let mut changes = Vec::new();
        if leftovers && intent != Intent::UpdateAccess {
            changes.push(step(Action::Drop, "delete what an interrupted purge left", Step::Clear));
        }
        let wanted = work.access.as_ref();
        let reconcile = |changes: &mut Vec<Change<Step>>, mark: Option<&Mark>| {
            let recorded = mark.and_then(|mark| mark.access.clone()).unwrap_or_else(access::none);
            changes.extend(
                wanted.into_iter().flat_map(|wanted| access::changes(&recorded, wanted, &bucket.what)),
            );
        };
        match (intent, mark) {
            (Intent::Provision, None) => {
                changes.push(step(Action::Create, "create the bucket", Step::Create));
                reconcile(&mut changes, None);
            }
            (Intent::Provision, Some(mark)) => {
                if mark.state != State::Active {
                    let summary = "take back the bucket and the data that were kept";
                    changes.push(step(Action::Restore, summary, Step::Restore));
                }
                reconcile(&mut changes, Some(&mark));
            }
            (Intent::UpdateAccess, Some(mark)) if mark.state == State::Active => {
                reconcile(&mut changes, Some(&mark));
            }
            (Intent::UpdateAccess, _) => return Err(bucket.owner.not_provisioned()),
            (Intent::Unprovision { remove_data: true }, Some(_)) => {
                changes.push(step(Action::Drop, "delete the bucket and all that is in it", Step::Purge));
            }
            (Intent::Unprovision { remove_data: false }, Some(mark)) if mark.state == State::Active => {
                let summary = "release the bucket, and keep what is in it";
                changes.push(step(Action::Release, summary, Step::Release));
            }
            (Intent::Unprovision { .. }, _) => {}
        }
        Ok(Plan::new(changes).with_notes(vec![access::NOTE.to_owned()]))
    }

    pub(super) async fn apply_bucket(
        &self,
        bucket: &Bucket,
        work: &Work,
        step: &Step,
        context: &Context,
    ) -> Result<()> {
        context.check_cancelled()?;
        let path = self.bucket_place(bucket);
        let (wanted, scratch) = (work.access.clone(), self.scratch.clone());
        let (step, Bucket { what, owner, .. }) = (step.clone(), bucket.clone());
        blocking(move |cancellation| {
            let mark = || marked::observe(&path)?.owned_by(&owner, &what);
            let set = |state: State| match mark()? {
                Some(mark) if mark.state == state => Ok(()),
                Some(mark) => marked::write_mark(&path, &Mark { state, ..mark }, &scratch),
                None => Err(Error::retryable(format!("{what} is gone"))),
            };
            match &step {
                Step::Clear => marked::sweep(&path, &owner, cancellation),
                Step::Create => match mark()? {
                    None => marked::create(&path, &Mark::active(owner.clone()), &scratch),
                    Some(_) => Ok(()),
                },
                Step::Restore => set(State::Active),
                Step::Release => set(State::Released),
                Step::Purge => marked::purge(&path, &owner, &what, cancellation),
                Step::Revoke { .. } | Step::Grant { .. } | Step::Fields => {
                    let Some(mark) = mark()? else {
                        return Err(Error::retryable(format!("{what} is gone")));
                    };
                    let recorded = mark.access.clone().unwrap_or_else(access::none);
                    match access::after(&recorded, &step, wanted.as_ref()) {
                        Some(access) => marked::write_mark(
                            &path,
                            &Mark { access: Some(access), ..mark.clone() },
                            &scratch,
                        ),
                        None => Ok(()),
                    }
                }
                other => Err(Error::permanent(format!("a bucket has no step {other:?}"))),
            }
        })
        .await
    }

    pub(super) async fn describe_bucket(&self, bucket: &Bucket) -> Result<Info> {
        let (found, _) = self.observe_bucket(bucket).await?;
        let Some(mark) = found.owned_by(&bucket.owner, &bucket.what)? else { return Ok(Info::default()) };
        if mark.state != State::Active {
            return Ok(Info::default());
        }
        let location = super::location(&self.bucket_place(bucket).path());
        let info = Info::default()
            .text("bucket", "Bucket", &bucket.name)
            .text("location", "Location", &location)
            .private("target", &self.target);
        let access = mark.access.unwrap_or_else(access::none);
        Ok(super::with_access(info, &location, &access, "Open"))
    }
}
