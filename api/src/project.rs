//! Projects: what one `davit apply` looks after. The file that says so is in `project/file.rs`; the record of what was
//! applied, by which a later one knows what is its own, is here.

mod file;

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    AliasName, ApiError, FunctionName, ProjectName, SecretName, SourceName, SubscriptionName, TopicName,
    limits,
};

pub use file::{
    ProjectAlias, ProjectFile, ProjectSecret, ProjectSource, ProjectSubscription, ProjectTopic, line_naming,
};

/// A thing of a namespace that a project can look after. Its text form is its kind and its names, with slashes between.
/// The order of the kinds is that in which they are made: each needs only what comes before it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProjectObject {
    /// `secret/NAME`
    Secret(SecretName),
    /// `topic/NAME`
    Topic(TopicName),
    /// `function/NAME`
    Function(FunctionName),
    /// `subscription/TOPIC/NAME`: one that is no function's manifest's.
    Subscription(TopicName, SubscriptionName),
    /// `source/NAME`
    Source(SourceName),
    /// `alias/FUNCTION/NAME`
    Alias(FunctionName, AliasName),
}

impl fmt::Display for ProjectObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(name) => write!(f, "secret/{name}"),
            Self::Topic(name) => write!(f, "topic/{name}"),
            Self::Function(name) => write!(f, "function/{name}"),
            Self::Subscription(topic, name) => write!(f, "subscription/{topic}/{name}"),
            Self::Source(name) => write!(f, "source/{name}"),
            Self::Alias(function, name) => write!(f, "alias/{function}/{name}"),
        }
    }
}

impl fmt::Debug for ProjectObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ProjectObject {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        fn name<T: FromStr<Err = crate::NameError>>(text: &str) -> Result<T, String> {
            text.parse().map_err(|e: crate::NameError| e.to_string())
        }
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        match parts.as_slice() {
            ["secret", one] => name(one).map(Self::Secret),
            ["topic", one] => name(one).map(Self::Topic),
            ["function", one] => name(one).map(Self::Function),
            ["subscription", topic, one] => Ok(Self::Subscription(name(topic)?, name(one)?)),
            ["source", one] => name(one).map(Self::Source),
            ["alias", function, one] => Ok(Self::Alias(name(function)?, name(one)?)),
            _ => {
                let cut: String = text.chars().take(80).collect();
                Err(format!("{cut:?} is no object of a project, such as function/orders"))
            }
        }
    }
}

impl TryFrom<String> for ProjectObject {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ProjectObject> for String {
    fn from(object: ProjectObject) -> String {
        object.to_string()
    }
}

/// The record of what a project looks after: takes the place of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectRecord {
    /// The revision that this one takes the place of; none for the first. Another one was written meanwhile: 409.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// What it looks after. None of it may be another project's.
    #[schema(value_type = Vec<String>, example = json!(["topic/orders", "function/billing"]))]
    pub objects: Vec<ProjectObject>,
}

impl ProjectRecord {
    /// Checks every bound; the error names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.objects.len() > limits::PROJECT_OBJECTS {
            return Err(ApiError::field("objects", format!("at most {}", limits::PROJECT_OBJECTS)));
        }
        let mut seen = std::collections::HashSet::new();
        match self.objects.iter().find(|object| !seen.insert(*object)) {
            Some(twice) => Err(ApiError::field("objects", format!("{twice} is listed twice"))),
            None => Ok(()),
        }
    }
}

/// A project as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProjectView {
    /// Its name, unique within the namespace.
    pub name: ProjectName,
    /// Counts the writings of its record, from 1.
    pub revision: u32,
    /// What it looks after, by kind and name.
    #[schema(value_type = Vec<String>)]
    pub objects: Vec<ProjectObject>,
    /// When its record was last written.
    pub applied_at: DateTime<Utc>,
}

/// Whether a secret has the value that was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SecretComparison {
    /// It is set, and this is its value.
    pub same: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_as_it_is_written() {
        for text in [
            "secret/db",
            "topic/orders",
            "function/billing",
            "subscription/orders/partner",
            "source/pushes",
            "alias/billing/stable",
        ] {
            let object: ProjectObject = text.parse().unwrap();
            assert_eq!(object.to_string(), text);
            assert_eq!(serde_json::to_value(&object).unwrap(), text);
        }
        for bad in ["", "function", "function/", "function/A", "topic/a/b", "alias/a", "alias/a/b/c", "x/a"] {
            assert!(bad.parse::<ProjectObject>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_record_names_each_object_once() {
        let record = |objects: &[&str]| ProjectRecord {
            revision: None,
            objects: objects.iter().map(|o| o.parse().unwrap()).collect(),
        };
        assert_eq!(record(&["topic/a", "function/a"]).check(), Ok(()));
        let refused = record(&["topic/a", "topic/a"]).check().unwrap_err();
        assert!(refused.message.starts_with("objects: topic/a"), "{}", refused.message);
    }
}
