//! `davit.project.toml`: what several functions have in common, and what is nobody's alone. The functions themselves say
//! what they are in their own `davit.toml`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::{explain, line_of_key};
use crate::{
    AliasName, AliasSettings, DeliverySettings, FunctionName, ManifestError, NamespaceName, NewSubscription,
    ProjectName, SecretName, SourceName, SourceSpec, Sticky, Subscriber, SubscriptionName, TopicName,
    VersionWeight, Webhook,
};

/// What `davit apply` looks after beside the functions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "davit.project.toml")]
pub struct ProjectFile {
    /// The project's name, unique within the namespace: what it has made is on record under it.
    pub name: ProjectName,
    /// The namespace, unless the command line names one. Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceName>,
    /// Folders of functions, relative to this file. Default: every folder below it with a `davit.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<Vec<PathBuf>>,
    /// Secrets, and where their values come from. A value never stands here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SecretName, ProjectSecret>,
    /// Topics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<ProjectTopic>,
    /// Event sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<ProjectSource>,
    /// Aliases of functions, besides `live`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<ProjectAlias>,
}

/// Where a secret's value comes from: one of both, or neither for one that somebody has set already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectSecret {
    /// An environment variable of whoever applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file, relative to this one; one final line end is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// A topic, with the subscriptions that are not in a function's `davit.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectTopic {
    /// Its name.
    pub name: TopicName,
    /// Webhooks, and functions of others, that get its messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<ProjectSubscription>,
}

/// A subscription: to one of `function` and `webhook`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectSubscription {
    /// Its name, unique within the topic.
    pub name: SubscriptionName,
    /// A function that is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// An address that is sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Which messages, and how they are delivered.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    pub settings: DeliverySettings,
}

impl ProjectSubscription {
    /// As the API takes it; the error is for [`ManifestError`].
    pub fn body(&self) -> Result<NewSubscription, String> {
        let to = match (&self.function, &self.webhook) {
            (Some(name), None) => Subscriber::Function(name.clone()),
            (None, Some(hook)) => Subscriber::Webhook(hook.clone()),
            _ => return Err(format!("{}: give one of function and webhook", self.name)),
        };
        let new =
            NewSubscription { name: self.name.clone(), to, settings: self.settings.clone(), replace: true };
        new.check().map_err(|error| format!("{}: {}", self.name, error.message))?;
        Ok(new)
    }
}

/// An event source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectSource {
    /// Its name, unique within the namespace.
    pub name: SourceName,
    /// The function that gets its events.
    pub function: FunctionName,
    /// Whether it takes nothing for now. Default: false.
    #[serde(default)]
    pub paused: bool,
    /// `kind = "webhook"` or `kind = "postgres"`, and what that needs.
    #[serde(flatten)]
    #[schemars(with = "serde_json::Value")]
    pub spec: SourceSpec,
}

/// An alias that leads to versions of a function by their numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectAlias {
    /// The function.
    pub function: FunctionName,
    /// Its name; not `live`, which goes where the functions' deployments go.
    pub name: AliasName,
    /// The versions, each with its share of the calls: `[{ version = 7, weight = 100 }]`.
    #[schemars(with = "serde_json::Value")]
    pub versions: Vec<VersionWeight>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What decides which version a call goes to: `header:NAME` or `cookie:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub sticky: Option<Sticky>,
    /// Whether its address is as open as its version's `access` says. Default: false.
    #[serde(default)]
    pub public: bool,
}

impl ProjectAlias {
    /// As the API takes it.
    pub fn settings(&self) -> AliasSettings {
        AliasSettings {
            versions: self.versions.clone(),
            description: self.description.clone(),
            sticky: self.sticky.clone(),
            public: self.public,
        }
    }
}

impl ProjectFile {
    /// What the file is called.
    pub const NAME: &str = "davit.project.toml";

    /// Reads and checks one.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let project: Self = toml::from_str(text).map_err(|error| explain(text, &error))?;
        project.check().map_err(|(field, name, message)| ManifestError {
            line: line_naming(text, &name).or_else(|| line_of_key(text, field)),
            field: Some(field.to_owned()),
            message,
            hint: None,
        })?;
        Ok(project)
    }

    /// The JSON schema of the file, for editors.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).into()
    }

    /// What no type can say: the key, the name that it is about, and what is wrong with it.
    fn check(&self) -> Result<(), (&'static str, String, String)> {
        fn unique<T: std::hash::Hash + Eq + ToString>(
            field: &'static str,
            mut all: impl Iterator<Item = (T, String)>,
        ) -> Result<(), (&'static str, String, String)> {
            let mut seen = HashSet::new();
            match all.find_map(|(key, name)| (!seen.insert(key)).then_some(name)) {
                Some(twice) => Err((field, twice.clone(), format!("{twice} is listed twice"))),
                None => Ok(()),
            }
        }
        let named = |field, name: &dyn ToString, message: String| Err((field, name.to_string(), message));
        for (name, from) in &self.secrets {
            if from.env.is_some() && from.file.is_some() {
                return named("secrets", name, format!("{name}: give one of env and file"));
            }
        }
        unique("topics", self.topics.iter().map(|t| (&t.name, t.name.to_string())))?;
        for topic in &self.topics {
            let names = topic.subscriptions.iter().map(|s| (&s.name, s.name.to_string()));
            unique("subscriptions", names)?;
            for one in &topic.subscriptions {
                one.body().map_err(|message| ("subscriptions", one.name.to_string(), message))?;
            }
        }
        unique("sources", self.sources.iter().map(|s| (&s.name, s.name.to_string())))?;
        for source in &self.sources {
            if let Err(error) = source.spec.check() {
                return named("sources", &source.name, format!("{}: {}", source.name, error.message));
            }
        }
        let pair = |a: &ProjectAlias| format!("{}@{}", a.function, a.name);
        unique("aliases", self.aliases.iter().map(|a| (pair(a), a.name.to_string())))?;
        for alias in &self.aliases {
            if alias.name.as_str() == crate::LIVE {
                let text = "live goes where the deployments go; name another one".to_owned();
                return named("aliases", &alias.name, text);
            }
            let checked = crate::check_alias_name(&alias.name).and_then(|()| alias.settings().check());
            if let Err(error) = checked {
                return named("aliases", &alias.name, format!("{}: {}", pair(alias), error.message));
            }
        }
        Ok(())
    }
}

/// The line of a TOML text that has this name for its key, else the last one that has it for a value, from 1: of two that
/// say the same, the second is too many.
pub fn line_naming(text: &str, name: &str) -> Option<usize> {
    let quoted = format!("\"{name}\"");
    let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'));
    let key = lines().find(|(_, line)| line.split_once('=').is_some_and(|(key, _)| key.trim() == name));
    key.or_else(|| lines().filter(|(_, line)| line.contains(&quoted)).last()).map(|(n, _)| n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
name = "shop"
namespace = "sales"

[secrets]
stripe = { env = "STRIPE_KEY" }
db = { file = "secrets/db" }
other = {}

[[topics]]
name = "orders"

[[topics.subscriptions]]
name = "partner"
webhook = { url = "https://example.com/hook", secret = "stripe" }
settings = { filter = { type = ["order.created"] } }

[[sources]]
name = "payments"
function = "book"
kind = "webhook"
verify = "stripe"
secret = "stripe"

[[aliases]]
function = "book"
name = "stable"
versions = [{ version = 3, weight = 90 }, { version = 4, weight = 10 }]
"#;

    #[test]
    fn everything_can_be_said() {
        let project = ProjectFile::parse(WHOLE).unwrap();
        assert_eq!(project.namespace.as_ref().unwrap().as_str(), "sales");
        assert_eq!(project.secrets.len(), 3);
        let new = project.topics[0].subscriptions[0].body().unwrap();
        assert_eq!(new.to.to_string(), "webhook https://example.com/hook");
        assert_eq!(project.sources[0].spec.kind(), "webhook");
        assert_eq!(project.aliases[0].settings().versions[1].weight, 10);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (from, to, said) in [
            ("name = \"shop\"", "nam = \"shop\"", "line 2: nam: unknown key; did you mean name?"),
            ("env = \"STRIPE_KEY\"", "env = \"A\", file = \"b\"", "line 6: secrets: stripe: give one of"),
            ("env = \"STRIPE_KEY\"", "value = \"sk\"", "line 6: value: unknown key"),
            (
                "[[sources]]",
                "[[topics]]\nname = \"orders\"\n[[sources]]",
                "line 19: topics: orders is listed twice",
            ),
            ("webhook = {", "function = \"f\"\nwebhook = {", "subscriptions: partner: give one of"),
            ("verify = \"stripe\"", "verify = \"none\"", "sources: payments: secret: "),
            ("verify = \"stripe\"", "verify = \"stipe\"", "stipe"),
            ("name = \"stable\"", "name = \"live\"", "line 27: aliases: live goes"),
            ("weight = 10 ", "weight = 20 ", "aliases: book@stable: versions: the weights"),
        ] {
            assert!(WHOLE.contains(from), "{from}");
            let error = ProjectFile::parse(&WHOLE.replace(from, to)).unwrap_err();
            let text = error.in_file(ProjectFile::NAME);
            assert!(text.starts_with("davit.project.toml") && text.contains(said), "{to}: {text}");
        }
    }

    #[test]
    fn the_checked_in_schema_is_fresh() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/davit.project.schema.json");
        let stored = std::fs::read_to_string(file).unwrap_or_else(|_| "null".to_owned());
        let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
        let fresh = stored == ProjectFile::json_schema();
        assert!(fresh, "run: davit schema --project > docs/davit.project.schema.json");
    }
}
