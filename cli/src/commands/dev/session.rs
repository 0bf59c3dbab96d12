//! Functions in a namespace for development: deployed from their folders again and again, and removed at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use davit_api::{
    DebugSettings, Digest, ErrorCode, FunctionName, NamespaceName, NewVersion, RetentionPolicy, SecretName,
    TopicName, TopicView, VersionView,
};

use super::address::Local;
use super::trial::{Trial, variables};
use crate::api::Api;
use crate::commands::apply::load::{Folder, Given};
use crate::commands::deploy::{follow, served};
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::note;
use crate::progress::Progress;

/// What versions made here are described as. A function without such a version is somebody else's and is left alone.
const MARK: &str = "davit dev";
/// Where they are made unless the command line names another namespace.
pub(crate) const NAMESPACE: &str = "dev";

/// One run.
pub(crate) struct Session {
    pub(crate) api: Api,
    /// Where values of variables come from, and whether it has to be there.
    env_file: (PathBuf, bool),
    /// What each function was last deployed from.
    deployed: BTreeMap<FunctionName, Deployed>,
    /// What a build of it failed with: the same again would fail again.
    failed: BTreeMap<FunctionName, (Digest, Trial)>,
    /// Functions that were not there before, secrets and topics likewise.
    made: BTreeSet<FunctionName>,
    made_secrets: BTreeSet<SecretName>,
    /// The project's secrets as they were set last.
    given_secrets: BTreeMap<SecretName, String>,
    topics_before: BTreeSet<TopicName>,
    /// Whether functions that an earlier run has left behind are removed at the end as well.
    adopts: bool,
    /// The function that is deployed to be debugged.
    debugged: Option<(FunctionName, DebugSettings)>,
}

struct Deployed {
    source: Digest,
    trial: Trial,
    local: Local,
}

/// What a look at a function's folder led to.
pub(crate) enum Outcome {
    /// It is as it was.
    Same,
    /// It was deployed, in this time.
    Deployed(Box<VersionView>, Duration),
}

impl Session {
    /// Looks for the namespace, and makes it if need be.
    pub(crate) async fn start(
        globals: &Globals,
        namespace: NamespaceName,
        env_file: Option<&Path>,
        given: &Given,
        adopts: bool,
    ) -> Result<Self> {
        let api = globals.api_in(namespace.clone())?.with_gateway().await?;
        match api.ensure_namespace(&namespace).await {
            // Whoever may not make one may still use one that is there.
            Err(Failure::Refused(body)) if body.code == ErrorCode::Forbidden => {}
            done => done?,
        }
        let topics_before = api.topics().await?.into_iter().map(|t| t.name).collect();
        let env_file = match env_file {
            Some(path) => (path.to_owned(), true),
            None => (given.root.join(".env"), false),
        };
        read_variables(&env_file)?;
        Ok(Self {
            api,
            env_file,
            deployed: BTreeMap::new(),
            failed: BTreeMap::new(),
            made: BTreeSet::new(),
            made_secrets: BTreeSet::new(),
            given_secrets: BTreeMap::new(),
            topics_before,
            adopts,
            debugged: None,
        })
    }

    /// Deploys that function to be debugged, from the next time on.
    pub(super) fn debug(&mut self, function: FunctionName, settings: DebugSettings) {
        self.debugged = Some((function, settings));
    }

    /// The functions that are deployed now.
    pub(super) fn locals(&self) -> Vec<Local> {
        self.deployed.values().map(|one| one.local.clone()).collect()
    }

    /// Secrets of a project whose values are given at hand, and are not what they were the last time. What somebody has set otherwise
    /// stays.
    pub(crate) async fn set_secrets(&mut self, given: &Given) -> Result<()> {
        if given.secrets == self.given_secrets {
            return Ok(());
        }
        let known: BTreeSet<SecretName> = self.api.secrets().await?.into_iter().map(|s| s.name).collect();
        for (name, value) in &given.secrets {
            if !known.contains(name) {
                self.made_secrets.insert(name.clone());
            }
            if self.made_secrets.contains(name) {
                self.api.set_secret(name, value).await?;
            }
        }
        self.given_secrets.clone_from(&given.secrets);
        Ok(())
    }

    /// Deploys a folder, if anything of it is different from what was deployed last.
    pub(crate) async fn look_at(&mut self, folder: &Folder) -> Result<Outcome> {
        let begun = Instant::now();
        let name = &folder.manifest.name;
        let packed = folder.pack()?;
        let variables = read_variables(&self.env_file)?;
        let debugged = self.debugged.as_ref().filter(|(which, _)| which == name);
        let debug = debugged.map(|(_, settings)| *settings);
        let trial = Trial::of(&folder.manifest, self.api.namespace(), &variables, debug);
        let trial = trial.map_err(Failure::Usage)?;
        let before = self.deployed.get(name);
        let is_this = |source: &Digest, of: &Trial| *source == packed.digest && *of == trial;
        if before.is_some_and(|before| is_this(&before.source, &before.trial))
            || self.failed.get(name).is_some_and(|(source, of)| is_this(source, of))
        {
            return Ok(Outcome::Same);
        }
        if before.is_none() {
            self.check_ownership(name).await?;
        }
        if self.deployed.get(name).is_none_or(|before| before.trial.values != trial.values) {
            self.provide(folder, &trial).await?;
        }
        let progress = Progress::start(&format!("building {name}"));
        self.api.put_artifact(&packed.digest, packed.bytes, &progress).await?;
        let new = NewVersion {
            schedules: trial.schedules.clone(),
            description: Some(MARK.into()),
            ..NewVersion::of(trial.spec.clone(), packed.digest)
        };
        let accepted = self.api.create_version(name, &new).await.map_err(|failure| failure.at(name))?;
        let mut version = accepted.version;
        if !accepted.unchanged {
            match self.build(name, version, &progress).await {
                Ok(built) => version = built,
                Err(failure) => {
                    if let Failure::Failed(_) = &failure {
                        self.failed.insert(name.clone(), (packed.digest, trial));
                    }
                    return Err(failure);
                }
            }
        }
        self.failed.remove(name);
        served(&self.api, name, version.number).await;
        let first = !self.deployed.contains_key(name);
        let local = Local::of(name, &new.spec);
        let deployed = Deployed { source: packed.digest, trial, local };
        self.deployed.insert(name.clone(), deployed);
        if first {
            let few = RetentionPolicy { versions: Some(2), days: Some(0) };
            self.api.set_retention(Some(name), &few).await?;
        }
        Ok(Outcome::Deployed(Box::new(version), begun.elapsed()))
    }

    /// Follows a build, whose output is of interest only when it fails.
    async fn build(
        &self,
        name: &FunctionName,
        version: VersionView,
        progress: &Progress,
    ) -> Result<VersionView> {
        let number = version.number;
        let built = follow(&self.api, name, version, progress, true).await;
        if let Err(Failure::Failed(_)) = &built {
            for event in self.api.build_events(name, number, 0, 0).await? {
                event.line.lines().for_each(|line| progress.line(line));
            }
        }
        built
    }

    /// A function that is there must be one of these.
    async fn check_ownership(&mut self, name: &FunctionName) -> Result<()> {
        match self.api.function(name).await {
            Err(Failure::Refused(body)) if body.code == ErrorCode::NotFound => {
                self.made.insert(name.clone());
                Ok(())
            }
            Err(failure) => Err(failure),
            Ok(detail) => {
                let mut versions = detail.live.iter().chain(&detail.latest);
                // One whose first build failed has no live version; nobody calls it.
                if versions.all(|version| version.description.as_deref() == Some(MARK)) {
                    if self.adopts {
                        note(format!(
                            "{name} is there from another davit dev: this one goes on with it, and removes it at its end"
                        ));
                        self.made.insert(name.clone());
                    }
                    return Ok(());
                }
                let namespace = self.api.namespace();
                Err(Failure::Usage(format!(
                    "namespace {namespace} has a function {name} that was deployed otherwise; --namespace chooses another one"
                )))
            }
        }
    }

    /// Sets the secrets that the function wants and that are given here; those that nobody has set are named.
    async fn provide(&mut self, folder: &Folder, trial: &Trial) -> Result<()> {
        if trial.values.given.is_empty() && trial.values.wanted.is_empty() {
            return Ok(());
        }
        let known: BTreeSet<SecretName> = self.api.secrets().await?.into_iter().map(|s| s.name).collect();
        for (name, value) in &trial.values.given {
            let known = known.contains(name) && !self.made_secrets.contains(name);
            // What somebody has set elsewhere than in the namespace for development is theirs.
            if known && self.api.namespace().as_str() != NAMESPACE {
                continue;
            }
            if !known {
                self.made_secrets.insert(name.clone());
            }
            self.api.set_secret(name, value).await?;
        }
        let missing = trial.values.wanted.iter().find(|(name, _)| !known.contains(*name));
        missing.map_or(Ok(()), |(name, variable)| {
            let namespace = self.api.namespace();
            let text = format!(
                "the secret {name} is not set in namespace {namespace}: write {variable}=… into .env, or davit secret set {name} -n {namespace}"
            );
            Err(Failure::Usage(text).at(folder.place(name.as_str())))
        })
    }

    /// Removes a function whose folder is gone.
    pub(crate) async fn forget(&mut self, gone: &FunctionName) -> Result<()> {
        self.deployed.remove(gone);
        self.failed.remove(gone);
        if self.made.remove(gone) {
            self.api.delete_function(gone).await?;
        }
        Ok(())
    }

    /// The deployed functions that are not among these.
    pub(crate) fn gone(&self, there: &BTreeMap<FunctionName, Folder>) -> Vec<FunctionName> {
        self.deployed.keys().filter(|name| !there.contains_key(*name)).cloned().collect()
    }

    /// Removes what this run has made. What cannot be removed keeps nothing else from it; the first failure is told.
    pub(crate) async fn end(self) -> Result<()> {
        let mut ended = Ok(());
        let mut count = |removed: Result<()>| match removed {
            Err(Failure::Refused(body)) if body.code == ErrorCode::NotFound => {}
            Err(failure) if ended.is_ok() => ended = Err(failure),
            _ => {}
        };
        for name in &self.made {
            count(self.api.delete_function(name).await);
        }
        for name in &self.made_secrets {
            count(self.api.remove_secret(name).await);
        }
        match self.api.topics().await {
            Ok(topics) => {
                let ours = |topic: &&TopicView| {
                    !self.topics_before.contains(&topic.name) && topic.subscriptions == 0
                };
                for topic in topics.iter().filter(ours) {
                    count(self.api.delete_topic(&topic.name).await);
                }
            }
            Err(failure) => count(Err(failure)),
        }
        ended
    }
}

fn read_variables((path, must): &(PathBuf, bool)) -> Result<BTreeMap<String, String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            variables(&text).map_err(|problem| Failure::Usage(format!("{}, {problem}", path.display())))
        }
        Err(error) if !must && error.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(Failure::Usage(format!("{}: {error}", path.display()))),
    }
}
