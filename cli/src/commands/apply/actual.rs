//! Asks davit for what there is of what is wanted or owned. Only reads.

use std::collections::{BTreeMap, BTreeSet};

use davit_api::{
    ErrorCode, FunctionName, ProjectObject, ProjectView, SecretName, SourceView, TopicDetail, TopicName,
    VersionState,
};
use tokio::task::JoinSet;

use super::check::Known;
use super::load::Given;
use super::plan::Owners;
use super::settings::{self, Objects, Wanted};
use crate::api::Api;
use crate::failure::{Failure, Result};

/// Questions that are asked at a time.
const AT_A_TIME: usize = 8;

/// What davit says.
pub(super) struct Actual {
    pub(super) objects: Objects,
    /// Everything that can be named, wanted or not.
    pub(super) known: Known,
    pub(super) owners: Owners,
    /// The project's record, if there is one.
    pub(super) record: Option<ProjectView>,
}

/// Nothing is there of that name.
fn absent<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Refused(body)) if body.code == ErrorCode::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Asks about each of them, several at a time.
async fn each<K, T, F>(keys: impl IntoIterator<Item = K>, ask: impl Fn(K) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let (mut running, mut answers) = (JoinSet::new(), Vec::new());
    for key in keys {
        if running.len() >= AT_A_TIME
            && let Some(done) = running.join_next().await
        {
            answers.push(done.map_err(|e| Failure::while_doing("asking", e))??);
        }
        running.spawn(ask(key));
    }
    while let Some(done) = running.join_next().await {
        answers.push(done.map_err(|e| Failure::while_doing("asking", e))??);
    }
    Ok(answers)
}

/// Reads it. `wanted` are the functions as their folders have them.
pub(super) async fn read(
    api: &Api,
    given: &Given,
    wanted: &BTreeMap<FunctionName, Wanted>,
) -> Result<Actual> {
    let projects = api.projects().await?;
    let name = given.project.as_ref().map(|p| &p.file.name);
    let (own, others): (Vec<_>, Vec<_>) = projects.into_iter().partition(|p| Some(&p.name) == name);
    let record = own.into_iter().next();
    let owners = Owners {
        own: name.map(|_| record.iter().flat_map(|r| r.objects.iter().cloned()).collect()),
        others: others
            .into_iter()
            .flat_map(|p| p.objects.into_iter().map(move |o| (o, p.name.to_string())))
            .collect(),
    };
    let of_interest = Interest::of(given, &owners);
    let mut actual = Actual { objects: Objects::new(), known: Known(BTreeSet::new()), owners, record };
    actual.read_functions(api, &of_interest, wanted).await?;
    actual.read_topics(api, &of_interest).await?;
    actual.read_sources(api.sources().await?);
    actual.read_secrets(api, given).await?;
    actual.check_aliases(api, given).await?;
    // What will be made can be named as well.
    let coming = super::wanted::objects(given, wanted)?.into_keys();
    let has_value = |object: &ProjectObject| match object {
        ProjectObject::Secret(name) => !given.not_given.contains_key(name),
        _ => true,
    };
    actual.known.0.extend(coming.filter(has_value));
    Ok(actual)
}

/// What is looked at more closely.
struct Interest {
    functions: BTreeSet<FunctionName>,
    topics: BTreeSet<TopicName>,
}

impl Interest {
    fn of(given: &Given, owners: &Owners) -> Self {
        let mut interest =
            Self { functions: given.functions.keys().cloned().collect(), topics: BTreeSet::new() };
        if let Some(project) = &given.project {
            interest.topics.extend(project.file.topics.iter().map(|t| t.name.clone()));
            interest.functions.extend(project.file.aliases.iter().map(|a| a.function.clone()));
        }
        for object in owners.own.iter().flatten() {
            match object {
                ProjectObject::Function(name) | ProjectObject::Alias(name, _) => {
                    interest.functions.insert(name.clone());
                }
                ProjectObject::Topic(name) | ProjectObject::Subscription(name, _) => {
                    interest.topics.insert(name.clone());
                }
                ProjectObject::Secret(_) | ProjectObject::Source(_) => {}
            }
        }
        interest
    }
}

impl Actual {
    async fn read_functions(
        &mut self,
        api: &Api,
        interest: &Interest,
        wanted: &BTreeMap<FunctionName, Wanted>,
    ) -> Result<()> {
        let (all, _) = api.functions(None, None, None).await?;
        self.known.0.extend(all.iter().map(|f| ProjectObject::Function(f.name.clone())));
        let there = all.into_iter().map(|f| f.name).filter(|name| interest.functions.contains(name));
        let details = each(there, |name| {
            let api = api.clone();
            async move { absent(api.function(&name).await) }
        });
        for detail in details.await?.into_iter().flatten() {
            let name = detail.summary.name.clone();
            for alias in &detail.aliases {
                let object = ProjectObject::Alias(name.clone(), alias.name.clone());
                self.objects.insert(object, settings::alias_there(alias));
            }
            if let Some(found) = settings::function_there(&detail, wanted.get(&name)) {
                self.objects.insert(ProjectObject::Function(name), found);
            }
        }
        Ok(())
    }

    async fn read_topics(&mut self, api: &Api, interest: &Interest) -> Result<()> {
        let all = api.topics().await?;
        self.known.0.extend(all.iter().map(|t| ProjectObject::Topic(t.name.clone())));
        let there = all.into_iter().map(|t| t.name).filter(|name| interest.topics.contains(name));
        let details = each(there, |name| {
            let api = api.clone();
            async move { absent(api.topic(&name).await) }
        });
        for TopicDetail { topic, subscribers, .. } in details.await?.into_iter().flatten() {
            self.objects.insert(ProjectObject::Topic(topic.name.clone()), settings::topic());
            // Those of a function's manifest are the function's.
            for one in subscribers.iter().filter(|one| !one.from_manifest) {
                let object = ProjectObject::Subscription(topic.name.clone(), one.name.clone());
                self.objects.insert(object, settings::subscription_there(one));
            }
        }
        Ok(())
    }

    fn read_sources(&mut self, all: Vec<SourceView>) {
        for view in all {
            self.objects.insert(ProjectObject::Source(view.name.clone()), settings::source_there(&view));
        }
    }

    async fn read_secrets(&mut self, api: &Api, given: &Given) -> Result<()> {
        let all: BTreeSet<SecretName> = api.secrets().await?.into_iter().map(|s| s.name).collect();
        self.known.0.extend(all.iter().map(|name| ProjectObject::Secret(name.clone())));
        for name in &all {
            self.objects.insert(ProjectObject::Secret(name.clone()), settings::secret(true));
        }
        let asked = given.secrets.iter().filter(|(name, _)| all.contains(*name));
        let compared = each(asked.map(|(name, value)| (name.clone(), value.clone())), |(name, value)| {
            let api = api.clone();
            async move { Ok((api.secret_is(&name, &value).await?, name)) }
        });
        for (same, name) in compared.await? {
            self.objects.insert(ProjectObject::Secret(name), settings::secret(same));
        }
        Ok(())
    }

    /// An alias names versions by their numbers: each must be there and ready.
    async fn check_aliases(&self, api: &Api, given: &Given) -> Result<()> {
        let Some(project) = &given.project else { return Ok(()) };
        for alias in &project.file.aliases {
            for one in &alias.versions {
                let version = absent(api.version(&alias.function, one.version).await)?;
                if version.is_none_or(|version| version.state != VersionState::Ready) {
                    let text = format!("{} has no version {} that is ready", alias.function, one.version);
                    return Err(Failure::Usage(text).at(project.place(alias.name.as_str())));
                }
            }
        }
        Ok(())
    }
}
