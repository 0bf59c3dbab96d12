//! Routes: which requests reach a function besides its path address.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Access, HttpSettings, VersionSpec, limits};

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

crate::text::text_like! {
    /// A path pattern such as `/orders/{id}` or `/files/{rest+}`, valid by construction.
    ///
    /// Segments are literal or one parameter; the last may be `{name+}`, which takes one or more segments.
    /// Literals use the unreserved characters of RFC 3986, so that no encoding can spell the same path twice.
    pub struct PathPattern = "/orders/{id}";
}

impl PathPattern {
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
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
                {
                    return bad("a parameter is written {name}, with letters, digits and _ - .");
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

crate::text::text_like! {
    /// A host name for a route: lower-case DNS name, optionally with `*.` in front.
    pub struct HostPattern = "api.example.com";
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

crate::text::text_like! {
    /// The beginning of a path: one or more literal segments, such as `/api/v2`.
    pub struct PathPrefix = "/api";
}

impl PathPrefix {
    /// Whether every path that a pattern takes begins with it.
    pub fn begins(&self, pattern: &PathPattern) -> bool {
        pattern.0.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}
impl FromStr for PathPrefix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let literal = |s: &str| {
            !matches!(s, "" | "." | "..")
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        let good =
            text.len() <= 256 && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(literal));
        if good {
            Ok(Self(text.into()))
        } else {
            Err(format!(
                "path prefix {:?}: write literal segments such as /api/v2, without a slash at the end",
                text.chars().take(80).collect::<String>()
            ))
        }
    }
}

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
    /// Who may call it; without it, the function's `access` decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Time budget of a call in seconds, at most the function's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    /// What of the path the function does not get to see; the pattern begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<PathPrefix>,
    /// What the function sees in front of the path, after `strip_prefix` has been taken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_prefix: Option<PathPrefix>,
    /// What holds for requests to it, in place of the function's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<HttpSettings>>,
    /// The operation of the version's OpenAPI document that it is, as `POST /orders/{id}` with the document's own path. What
    /// the operation says of requests holds for those to the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Box<str>>,
}

impl RouteSpec {
    /// A route for all hosts, to which everything applies that applies to its function.
    pub fn new(method: MethodMatch, path: PathPattern, payload: PayloadFormat) -> Self {
        Self {
            host: None,
            method,
            path,
            payload,
            access: None,
            timeout_seconds: None,
            strip_prefix: None,
            add_prefix: None,
            http: None,
            operation: None,
        }
    }

    /// What is wrong with it as a route of this function; names the field.
    pub(crate) fn check(&self, function: &VersionSpec) -> Result<(), String> {
        if let Some(seconds) = self.timeout_seconds {
            let most = function.timeout_seconds;
            let least = *limits::TIMEOUT_SECONDS.start();
            if !(least..=most).contains(&seconds) {
                return Err(format!(
                    "timeout_seconds: must be {least} to {most}, the function's own, not {seconds}"
                ));
            }
        }
        if let Some(prefix) = &self.strip_prefix
            && !prefix.begins(&self.path)
        {
            return Err(format!("strip_prefix: the path does not begin with {prefix}"));
        }
        if let Some(operation) = &self.operation
            && function.openapi.as_ref().is_none_or(|document| document.operation(operation).is_none())
        {
            return Err(format!("operation: there is no {operation} in the version's OpenAPI document"));
        }
        match &self.http {
            Some(http) => http.check(function.kind).map_err(|error| error.message),
            None => Ok(()),
        }
    }
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

    #[test]
    fn a_prefix_ends_where_a_segment_does() {
        let begins =
            |prefix: &str, path: &str| prefix.parse::<PathPrefix>().unwrap().begins(&path.parse().unwrap());
        assert!(begins("/api", "/api") && begins("/api", "/api/{id}") && begins("/api/x", "/api/x/{r+}"));
        assert!(!begins("/api", "/apis") && !begins("/api/x", "/api/{x}") && !begins("/api", "/"));
        for bad in ["", "/", "api", "/api/", "//a", "/{a}", "/a/..", "/a%20b", "/a?b"] {
            assert!(bad.parse::<PathPrefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_route_is_refused_by_the_field_that_is_wrong() {
        let function = VersionSpec::new("provided".parse().unwrap(), crate::FunctionKind::Handler);
        let refused = |fields: &str| {
            let route: RouteSpec =
                serde_json::from_str(&format!(r#"{{"path": "/api/{{id}}", {fields}}}"#)).unwrap();
            route.check(&function).map_err(|e| e.split(": ").next().unwrap().to_owned())
        };
        assert_eq!(refused(r#""timeout_seconds": 30, "strip_prefix": "/api", "add_prefix": "/v1""#), Ok(()));
        assert_eq!(refused(r#""timeout_seconds": 31"#), Err("timeout_seconds".into()));
        assert_eq!(refused(r#""timeout_seconds": 0"#), Err("timeout_seconds".into()));
        assert_eq!(refused(r#""strip_prefix": "/v1""#), Err("strip_prefix".into()));
        assert_eq!(refused(r#""http": {"max_request_bytes": 0}"#), Err("http.max_request_bytes".into()));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[/a-z{}+.%\\PC]{0,40}") {
            let _ = text.parse::<PathPattern>();
            let _ = text.parse::<PathPrefix>();
            let _ = text.parse::<HostPattern>();
        }
    }
}
