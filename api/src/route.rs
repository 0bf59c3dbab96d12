//! Routes: which requests reach a function besides its path address.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a *handler* function receives for an HTTP request. `server` functions get the request itself.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    schemars::JsonSchema,
)]
pub enum PayloadFormat {
    /// API Gateway payload format 2.0 (HTTP API, function URL).
    #[default]
    #[serde(rename = "2.0")]
    V2,
    /// API Gateway payload format 1.0 (REST API proxy integration).
    #[serde(rename = "1.0")]
    V1,
    /// The JSON body itself is the event.
    #[serde(rename = "body")]
    Body,
}

crate::text::words! {
    /// An HTTP method, or any.
    #[derive(PartialOrd, Ord, Default, schemars::JsonSchema)]
    #[expect(missing_docs, reason = "each variant is the method of its name")]
    pub enum MethodMatch = "a method" {
        #[default]
        Any = "ANY",
        Get = "GET",
        Head = "HEAD",
        Post = "POST",
        Put = "PUT",
        Patch = "PATCH",
        Delete = "DELETE",
        Options = "OPTIONS",
    }
}

impl MethodMatch {
    /// Whether a request with this method fits.
    pub fn matches(self, method: &str) -> bool {
        self == Self::Any || self.as_str() == method
    }
}

/// A path pattern such as `/orders/{id}` or `/files/{rest+}`, valid by construction.
///
/// Segments are literal or one parameter; the last may be `{name+}`, which takes one or more segments.
/// Literals use the unreserved characters of RFC 3986, so that no encoding can spell the same path twice.
#[derive(
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    schemars::JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "/orders/{id}")]
#[schemars(with = "String")]
pub struct PathPattern(Box<str>);

impl PathPattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The pattern with parameter names removed: two routes of one shape would catch the same requests.
    pub fn shape(&self) -> String {
        self.0
            .split('/')
            .map(|s| {
                if s.ends_with("+}") {
                    "{+}"
                } else if s.starts_with('{') {
                    "{}"
                } else {
                    s
                }
            })
            .collect::<Vec<_>>()
            .join("/")
    }
}
impl FromStr for PathPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            |why: &str| Err(format!("path pattern {:?}: {why}", text.chars().take(80).collect::<String>()));
        let Some(rest) = text.strip_prefix('/') else { return bad("must start with /") };
        if text.len() > 512 {
            return bad("longer than 512 characters");
        }
        if rest.is_empty() {
            return Ok(Self(text.into()));
        }
        let mut names = std::collections::HashSet::new();
        let segments: Vec<&str> = rest.split('/').collect();
        for (index, segment) in segments.iter().enumerate() {
            if let Some(name) = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                let greedy = name.ends_with('+');
                let name = name.strip_suffix('+').unwrap_or(name);
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                    return bad("a parameter is written {name}, with letters, digits and underscores");
                }
                if greedy && index + 1 != segments.len() {
                    return bad("{name+} must be the last segment");
                }
                if !names.insert(name) {
                    return bad("a parameter is named twice");
                }
            } else if segment.is_empty() || *segment == "." || *segment == ".." {
                return bad("empty and dot segments are not allowed");
            } else if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) {
                return bad("literal segments use letters, digits and - . _ ~");
            }
        }
        // The gateway's own paths come first; a route over them would never be reached, or worse, shadow them.
        if matches!(segments[0], "v1" | "healthz") {
            return bad("/v1 and /healthz belong to the platform");
        }
        Ok(Self(text.into()))
    }
}

/// A host name for a route: lower-case DNS name, optionally with `*.` in front.
#[derive(
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    schemars::JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "api.example.com")]
#[schemars(with = "String")]
pub struct HostPattern(Box<str>);

impl HostPattern {
    /// The host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for HostPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        if text.len() <= 253 && name.split('.').all(label) {
            Ok(Self(text.into()))
        } else {
            Err(format!(
                "host {:?}: use a lower-case DNS name such as api.example.com",
                text.chars().take(80).collect::<String>()
            ))
        }
    }
}

crate::text::text_like!(PathPattern, HostPattern);

/// One custom route of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Only requests for this host; without it, every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPattern>,
    /// Only requests with this method.
    #[serde(default)]
    pub method: MethodMatch,
    /// Which paths.
    pub path: PathPattern,
    /// What a handler gets.
    #[serde(default)]
    pub payload: PayloadFormat,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_that_could_be_spelt_two_ways_are_refused() {
        for bad in [
            "", "a", "//", "/a//b", "/a/", "/../b", "/a/./b", "/%41", "/a b", "/{a}/{a}", "/{a+}/b", "/{}",
            "/v1/x", "/healthz",
        ] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad}");
        }
        for good in ["/", "/orders", "/orders/{id}", "/files/{rest+}", "/a-b/~c.d_e"] {
            assert!(good.parse::<PathPattern>().is_ok(), "{good}");
        }
    }

    #[test]
    fn parameter_names_do_not_make_a_new_shape() {
        let shape = |p: &str| p.parse::<PathPattern>().unwrap().shape();
        assert_eq!(shape("/a/{x}/{y+}"), shape("/a/{id}/{rest+}"));
        assert_ne!(shape("/a/{x}"), shape("/a/{x+}"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[/a-z{}+.%\\PC]{0,40}") {
            let _ = text.parse::<PathPattern>();
            let _ = text.parse::<HostPattern>();
        }
    }
}
