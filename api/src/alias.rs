//! Aliases: names for a version of a function, or for several with a share of the calls each.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{AliasName, ApiError, FunctionName, limits};

/// The alias that a function's own address, its routes, schedules and the queue lead to.
pub const LIVE: &str = "live";

/// A version with its share of an alias's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionWeight {
    /// The version's number.
    pub version: u32,
    /// Calls of a hundred that it gets, 1 to 100.
    pub weight: u32,
}

/// What decides which version a call goes to, where an alias has several: the value of a header or of a cookie. Equal
/// values go to the same version for as long as the weights stay. A call without one goes where chance sends it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sticky {
    /// A header's name, in lower case.
    Header(Box<str>),
    /// A cookie's name.
    Cookie(Box<str>),
}

/// Longest name of a header or cookie.
const NAME_CHARS: usize = 64;

impl FromStr for Sticky {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let rule = "write header:NAME or cookie:NAME, such as header:x-user-id";
        let (kind, name) = text.split_once(':').ok_or(rule)?;
        // A token (RFC 9110, section 5.6.2), which both names of headers and of cookies (RFC 6265, 4.1.1) are.
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > NAME_CHARS || !name.bytes().all(token) {
            return Err(format!("{rule}; the name is 1 to {NAME_CHARS} letters, digits and -._"));
        }
        match kind {
            "header" => {
                let name = name.to_ascii_lowercase();
                // Callers cannot set these, or they are the same for everybody.
                if name.starts_with("x-davit-") || matches!(name.as_str(), "host" | "cookie" | "connection") {
                    return Err(format!("{name} tells no caller from another; {rule}"));
                }
                Ok(Self::Header(name.into()))
            }
            "cookie" => Ok(Self::Cookie(name.into())),
            _ => Err(rule.to_owned()),
        }
    }
}

impl TryFrom<String> for Sticky {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Sticky> for String {
    fn from(sticky: Sticky) -> String {
        sticky.to_string()
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

impl fmt::Debug for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an alias is to be: replaces all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AliasSettings {
    /// Its versions and their weights, which are 100 together. Of `live`, the first one's routes, schedules and
    /// subscriptions are in force.
    pub versions: Vec<VersionWeight>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What decides which version a call goes to; without it, chance does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "header:x-user-id")]
    pub sticky: Option<Sticky>,
    /// Whether its address `/<namespace>/<function>@<alias>` is as open as its version's `access` says. Otherwise callers
    /// need a token with the right to invoke.
    #[serde(default)]
    pub public: bool,
}

impl AliasSettings {
    /// An alias of one version.
    pub fn of(version: u32) -> Self {
        let versions = vec![VersionWeight { version, weight: 100 }];
        Self { versions, description: None, sticky: None, public: false }
    }

    /// Checks every bound; the error names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.versions.is_empty() || self.versions.len() > limits::ALIAS_VERSIONS {
            let text = format!("1 to {}, not {}", limits::ALIAS_VERSIONS, self.versions.len());
            return Err(ApiError::field("versions", text));
        }
        let mut seen = std::collections::HashSet::new();
        for (n, one) in self.versions.iter().enumerate() {
            if !(1..=100).contains(&one.weight) {
                let text = format!("1 to 100, not {}; leave out a version that gets no call", one.weight);
                return Err(ApiError::field(&format!("versions[{n}].weight"), text));
            }
            if !seen.insert(one.version) {
                return Err(ApiError::field("versions", format!("version {} is listed twice", one.version)));
            }
        }
        let total: u32 = self.versions.iter().map(|v| v.weight).sum();
        if total != 100 {
            return Err(ApiError::field("versions", format!("the weights are {total} together, not 100")));
        }
        check_description(self.description.as_deref())
    }
}

/// A version's or an alias's description.
pub(crate) fn check_description(text: Option<&str>) -> Result<(), ApiError> {
    let Some(text) = text else { return Ok(()) };
    let chars = text.chars().count();
    if chars == 0 || chars > limits::DESCRIPTION_CHARS || text.contains(char::is_control) {
        let most = limits::DESCRIPTION_CHARS;
        return Err(ApiError::field("description", format!("1 to {most} characters, no control characters")));
    }
    Ok(())
}

/// An alias as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AliasView {
    /// Its name.
    pub name: AliasName,
    /// Its versions, and how many calls of a hundred each gets; the one whose routes are in force first.
    pub versions: Vec<VersionWeight>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What decides which version a call goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "header:x-user-id")]
    pub sticky: Option<Sticky>,
    /// Whether its address is as open as its version says.
    pub public: bool,
    /// When it last moved.
    pub moved_at: DateTime<Utc>,
}

/// An alias's share of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AliasShare {
    /// The alias.
    pub alias: AliasName,
    /// Calls of a hundred.
    pub weight: u32,
}

/// One of a function's versions, by its number or by an alias's name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Qualifier {
    /// This version.
    Version(u32),
    /// The version that this alias leads to when it is asked.
    Alias(AliasName),
}

impl FromStr for Qualifier {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('v').unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            let number = digits.parse().ok().filter(|n| (1..=i32::MAX as u32).contains(n));
            return number.map(Self::Version).ok_or_else(|| format!("there is no version {digits}"));
        }
        let alias = text
            .parse()
            .map_err(|_| format!("{:?} is no version's number, such as 7, and no alias's name", cut(text)))?;
        Ok(Self::Alias(alias))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(number) => number.fmt(f),
            Self::Alias(name) => name.fmt(f),
        }
    }
}

impl fmt::Debug for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Qualifier {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Qualifier> for String {
    fn from(qualifier: Qualifier) -> String {
        qualifier.to_string()
    }
}

impl Serialize for Qualifier {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Qualifier {
    /// From `"7"`, `7` or `"beta"`.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u32),
            Text(String),
        }
        let text = match Either::deserialize(deserializer)? {
            Either::Number(number) => number.to_string(),
            Either::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A function, and which of its versions: `hello`, `hello:7` or `hello@beta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QualifiedFunction {
    /// The function.
    pub function: FunctionName,
    /// Which of its versions; without it, the live one.
    pub qualifier: Option<Qualifier>,
}

impl FromStr for QualifiedFunction {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let name = |name: &str| name.parse().map_err(|e: crate::NameError| e.to_string());
        if let Some((function, number)) = text.split_once(':') {
            return match number.parse()? {
                version @ Qualifier::Version(_) => {
                    Ok(Self { function: name(function)?, qualifier: Some(version) })
                }
                Qualifier::Alias(_) => Err(format!("write {function}@{number} for an alias")),
            };
        }
        if let Some((function, alias)) = text.split_once('@') {
            let alias = alias.parse().map_err(|e: crate::NameError| e.to_string())?;
            return Ok(Self { function: name(function)?, qualifier: Some(Qualifier::Alias(alias)) });
        }
        Ok(Self { function: name(text)?, qualifier: None })
    }
}

/// Checks the name of an alias that somebody makes.
pub fn check_alias_name(name: &AliasName) -> Result<(), ApiError> {
    let text = name.as_str();
    let digits = text.strip_prefix('v').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ApiError::field("alias", format!("{text} would be taken for a version's number")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(weights: &[(u32, u32)]) -> AliasSettings {
        let versions = weights.iter().map(|&(version, weight)| VersionWeight { version, weight }).collect();
        AliasSettings { versions, ..AliasSettings::of(1) }
    }

    #[test]
    fn weights_are_a_hundred_together() {
        for good in [&[(1, 100)][..], &[(1, 99), (2, 1)], &[(3, 34), (2, 33), (1, 33)]] {
            assert_eq!(settings(good).check(), Ok(()), "{good:?}");
        }
        for (bad, field) in [
            (&[][..], "versions:"),
            (&[(1, 99)], "versions: the weights are 99"),
            (&[(1, 100), (2, 0)], "versions[1].weight:"),
            (&[(1, 50), (1, 50)], "versions: version 1 is listed twice"),
            (&[(1, 101)], "versions[0].weight:"),
        ] {
            assert!(settings(bad).check().unwrap_err().message.starts_with(field), "{bad:?}");
        }
    }

    #[test]
    fn what_decides_is_a_header_or_a_cookie() {
        let parse = |text: &str| text.parse::<Sticky>().map(|s| s.to_string());
        assert_eq!(parse("header:X-User-Id"), Ok("header:x-user-id".into()));
        assert_eq!(parse("cookie:Session"), Ok("cookie:Session".into()));
        for bad in
            ["", "x", "header:", "header:a b", "cookie:a=b", "query:x", "header:x-davit-a", "header:Host"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_is_told_from_a_name() {
        let parse = |text: &str| text.parse::<Qualifier>();
        assert_eq!(parse("7"), Ok(Qualifier::Version(7)));
        assert_eq!(parse("v7"), Ok(Qualifier::Version(7)));
        assert_eq!(parse("beta").unwrap().to_string(), "beta");
        for bad in ["", "0", "-1", "99999999999", "A", "a b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for (name, fine) in [("beta", true), ("v7", false), ("7", false), ("v", true), ("v7a", true)] {
            assert_eq!(check_alias_name(&name.parse().unwrap()).is_ok(), fine, "{name}");
        }
    }

    #[test]
    fn a_function_may_come_with_a_version_or_an_alias() {
        let parse = |text: &str| {
            text.parse::<QualifiedFunction>()
                .map(|q| (q.function.to_string(), q.qualifier.map(|q| q.to_string())))
        };
        assert_eq!(parse("hello"), Ok(("hello".into(), None)));
        assert_eq!(parse("hello:7"), Ok(("hello".into(), Some("7".into()))));
        assert_eq!(parse("hello@beta"), Ok(("hello".into(), Some("beta".into()))));
        for bad in ["", "hello:", "hello@", "hello:beta", "he llo", "@beta", ":7"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
