//! Carries a plan out. What is built is built first and changes nothing that is live: when a build fails, everything stays as it
//! was. Each step can be done again, so that an apply that was cut short is finished by the next.

use std::collections::{BTreeMap, BTreeSet};

use davit_api::{
    AliasSettings, FunctionName, NewVersion, ProjectObject, ProjectRecord, ProjectView, Promote, Qualifier,
    Rollout, VersionView,
};
use tokio::task::JoinSet;

use super::actual::Actual;
use super::load::{Folder, Given};
use super::plan::{Plan, Step, Verb};
use super::settings::{Objects, Wanted};
use super::wanted;
use crate::api::Api;
use crate::commands::deploy::{follow, git_commit, served};
use crate::failure::{Failure, Result};
use crate::output;
use crate::progress::{Progress, Several};

/// Functions that are packed, uploaded and built at a time. The controller bounds builds by itself; the archives are in memory.
const AT_A_TIME: usize = 4;

/// Everything that is needed for it.
pub(super) struct Work<'a> {
    pub(super) api: &'a Api,
    pub(super) given: &'a Given,
    pub(super) functions: &'a BTreeMap<FunctionName, Wanted>,
    pub(super) objects: &'a Objects,
    pub(super) plan: &'a Plan,
    pub(super) quiet: bool,
}

impl Work<'_> {
    /// Does everything, in order.
    pub(super) async fn carry_out(&self, actual: &Actual) -> Result<()> {
        // What will be made is on record before it is, so that nothing is forgotten when this is cut short.
        let before = actual.owners.own.clone().unwrap_or_default();
        let owned = self.plan.owned(self.objects);
        let all: BTreeSet<ProjectObject> = before.union(&owned).cloned().collect();
        let record = self.write_down(actual.record.clone(), &all).await?;
        // A function that is new goes live when it is built: what it needs is there before.
        let needed =
            |object: &ProjectObject| matches!(object, ProjectObject::Secret(_) | ProjectObject::Topic(_));
        let first = |step: &Step| step.action == Verb::Create && needed(&step.object);
        for step in self.steps(first) {
            self.make(step).await?;
        }
        let built = self.build().await?;
        let is_function = |step: &Step| matches!(step.object, ProjectObject::Function(_));
        let made = |step: &Step| !matches!(step.action, Verb::Remove | Verb::TakeOver) && !first(step);
        let (earlier, later): (Vec<_>, Vec<_>) =
            self.steps(|step| made(step) && !is_function(step)).partition(|step| needed(&step.object));
        for step in earlier {
            self.make(step).await?;
        }
        self.go_live(built).await?;
        for step in later {
            self.make(step).await?;
        }
        for step in self.steps(|step| step.action == Verb::Remove) {
            self.remove(step).await?;
        }
        self.write_down(record, &owned).await.map(|_| ())
    }

    fn steps(&self, which: impl Fn(&Step) -> bool) -> impl Iterator<Item = &Step> {
        self.plan.steps.iter().filter(move |step| which(step))
    }

    /// Writes the project's record, unless it says so already. A project without anything has none.
    async fn write_down(
        &self,
        before: Option<ProjectView>,
        objects: &BTreeSet<ProjectObject>,
    ) -> Result<Option<ProjectView>> {
        let Some(project) = &self.given.project else { return Ok(None) };
        let said: BTreeSet<ProjectObject> = before.iter().flat_map(|b| b.objects.iter().cloned()).collect();
        if said == *objects && (before.is_some() || objects.is_empty()) {
            return Ok(before);
        }
        let name = &project.file.name;
        if objects.is_empty() {
            self.api.remove_project(name).await?;
            return Ok(None);
        }
        let revision = before.map(|before| before.revision);
        let record = ProjectRecord { revision, objects: objects.iter().cloned().collect() };
        self.api.put_project(name, &record).await.map(Some)
    }

    /// Builds every function that is not as it should be, several at a time; none goes live by it, unless it is new.
    async fn build(&self) -> Result<Vec<VersionOf>> {
        let several = Several::new();
        let mut waiting =
            self.steps(|step| matches!(step.action, Verb::Create | Verb::Update)).filter_map(|step| {
                match &step.object {
                    ProjectObject::Function(name) => Some(name),
                    _ => None,
                }
            });
        let (mut running, mut built, mut failures) = (JoinSet::new(), Vec::new(), Vec::new());
        loop {
            while running.len() < AT_A_TIME
                && let Some(name) = waiting.next()
            {
                let (folder, wanted) = (&self.given.functions[name], &self.functions[name]);
                let (new, bytes) = self.prepare(folder, wanted)?;
                let progress = several.one(name.as_str(), "uploading");
                running.spawn(build(self.api.clone(), name.clone(), new, bytes, progress, self.quiet));
            }
            let Some(done) = running.join_next().await else { break };
            match done.map_err(|e| Failure::while_doing("building", e))? {
                Ok(version) => built.push(version),
                Err(failure) => failures.push(failure),
            }
        }
        match failures.len() {
            0 => Ok(built),
            1 => failures.pop().map_or(Ok(built), Err),
            many => {
                failures.iter().for_each(output::complain);
                Err(Failure::Failed(format!(
                    "{many} functions could not be built; what was live is live, and nothing else was changed"
                )))
            }
        }
    }

    fn prepare(&self, folder: &Folder, wanted: &Wanted) -> Result<(NewVersion, Vec<u8>)> {
        let packed = folder.pack()?;
        if packed.digest != wanted.source {
            let text = "its files were changed while they were looked at; apply again";
            return Err(Failure::Failed(text.into()).at(folder.path.display()));
        }
        let new = NewVersion {
            git_commit: git_commit(&folder.path),
            schedules: wanted.schedules.clone(),
            rollout: Rollout::Hold,
            ..NewVersion::of(wanted.spec.clone(), packed.digest)
        };
        Ok((new, packed.bytes))
    }

    /// Lets what was built go live, each as its `davit.toml` says.
    async fn go_live(&self, built: Vec<VersionOf>) -> Result<()> {
        let mut running = JoinSet::new();
        for VersionOf { name, version, progress } in built {
            // One that is live already only gets its routes and schedules back.
            let canary = self.given.functions[&name].manifest.canary.clone().filter(|_| !version.live);
            let api = self.api.clone();
            running.spawn(async move {
                let body = Promote { version: Qualifier::Version(version.number), canary };
                let version = api.promote(&name, &body).await.map_err(|failure| failure.at(&name))?;
                if version.live {
                    served(&api, &name, version.number).await;
                }
                let state = if version.live { "is live" } else { "goes live in steps" };
                progress.done(&format!("version {} {state}", version.number));
                Ok::<_, Failure>(())
            });
        }
        let mut first = Ok(());
        while let Some(done) = running.join_next().await {
            let done = done.map_err(|e| Failure::while_doing("going live", e))?;
            match (&first, done) {
                // The last word is the first failure's; none is swallowed.
                (Err(_), Err(failure)) => output::complain(&failure),
                (Ok(()), done) => first = done,
                (Err(_), Ok(())) => {}
            }
        }
        first
    }

    /// Makes or changes anything but a function.
    async fn make(&self, step: &Step) -> Result<()> {
        let Some(project) = &self.given.project else { return Ok(()) };
        let (api, file) = (self.api, &project.file);
        let done = async {
            match &step.object {
                ProjectObject::Secret(name) => match self.given.secrets.get(name) {
                    Some(value) => api.set_secret(name, value).await,
                    None => Ok(()),
                },
                ProjectObject::Topic(name) => api.create_topic(name).await.map(|_| ()),
                ProjectObject::Function(_) => Ok(()),
                ProjectObject::Subscription(topic, name) => {
                    let all = file.topics.iter().filter(|t| t.name == *topic).flat_map(|t| &t.subscriptions);
                    for one in all.filter(|one| one.name == *name) {
                        api.subscribe(topic, &one.body().map_err(Failure::Usage)?).await?;
                    }
                    Ok(())
                }
                ProjectObject::Source(name) => {
                    for one in file.sources.iter().filter(|one| one.name == *name) {
                        match step.action {
                            Verb::Update => {
                                let verb = if one.paused { "pause" } else { "resume" };
                                api.switch_source(name, verb).await?;
                                continue;
                            }
                            Verb::Replace => api.remove_source(name, false).await?,
                            _ => {}
                        }
                        api.create_source(&wanted::source(one)).await?;
                    }
                    Ok(())
                }
                ProjectObject::Alias(function, name) => {
                    let all = file.aliases.iter().filter(|a| a.function == *function && a.name == *name);
                    for one in all {
                        let settings: AliasSettings = one.settings();
                        api.set_alias(function, name, &settings).await?;
                    }
                    Ok(())
                }
            }
        };
        done.await.map_err(|failure: Failure| failure.at(&step.object))?;
        said(step);
        Ok(())
    }

    async fn remove(&self, step: &Step) -> Result<()> {
        let api = self.api;
        let done = match &step.object {
            ProjectObject::Secret(name) => api.remove_secret(name).await,
            ProjectObject::Topic(name) => api.delete_topic(name).await,
            ProjectObject::Function(name) => api.delete_function(name).await,
            ProjectObject::Subscription(topic, name) => api.unsubscribe(topic, name).await,
            ProjectObject::Source(name) => api.remove_source(name, false).await,
            ProjectObject::Alias(function, name) => api.remove_alias(function, name).await,
        };
        match done {
            // It went with what was removed before it.
            Err(Failure::Refused(body)) if body.code == davit_api::ErrorCode::NotFound => {}
            done => done.map_err(|failure| failure.at(&step.object))?,
        }
        said(step);
        Ok(())
    }
}

fn said(step: &Step) {
    let word = match step.action {
        Verb::Create => "made",
        Verb::Update => "changed",
        Verb::Replace => "made anew",
        Verb::TakeOver => "taken over",
        Verb::Remove => "removed",
    };
    output::note(format!("  {} {word}", step.object));
}

/// What was built.
struct VersionOf {
    name: FunctionName,
    version: VersionView,
    progress: Progress,
}

async fn build(
    api: Api,
    name: FunctionName,
    new: NewVersion,
    bytes: Vec<u8>,
    progress: Progress,
    quiet: bool,
) -> Result<VersionOf> {
    let built = async {
        api.put_artifact(&new.source, bytes, &progress).await?;
        let accepted = api.create_version(&name, &new).await?;
        if accepted.unchanged {
            return Ok(accepted.version);
        }
        progress.step(&format!("building version {}", accepted.version.number));
        follow(&api, &name, accepted.version, &progress, quiet).await
    };
    match built.await {
        Ok(version) => {
            progress.status(&format!("version {} is ready", version.number));
            Ok(VersionOf { name, version, progress })
        }
        Err(failure @ Failure::Failed(_)) => Err(failure),
        Err(failure) => Err(failure.at(&name)),
    }
}
