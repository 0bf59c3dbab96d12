//! What holds for requests to a function's HTTP addresses besides who may call: who may read answers in a browser, how
//! often one may call, what is changed on the way.
//!
//! Given for the function (`[http]` in `davit.toml`) and for each of its routes (`http` of a route), where each key that
//! is given takes the place of the function's.

mod cors;
mod fields;
mod pages;
mod rate;

use serde::{Deserialize, Serialize};

use crate::{ApiError, FunctionKind, limits};

pub use cors::{Cors, Origin};
pub use fields::{FieldName, HeaderChanges};
pub use pages::ErrorPage;
pub use rate::{RateLimit, RateLimitBy};

/// Settings of HTTP addresses.
#[derive(
    Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// Which pages in browsers may read the answers. Without it the gateway leaves CORS to the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// How often it may be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Largest body of a request in bytes. Default: 6291556 for a handler, which is also the most; no limit for a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1099511627776u64))]
    pub max_request_bytes: Option<u64>,
    /// Whether answers are compressed (`br` or `gzip`) for clients that take it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<bool>,
    /// What is changed in a request's headers before the function gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<HeaderChanges>,
    /// What is changed in an answer's headers before the caller gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<HeaderChanges>,
    /// Bodies of errors that the platform itself answers with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error_pages: Vec<ErrorPage>,
}

impl HttpSettings {
    /// Checks every bound; the error names the field, below `http`.
    pub fn check(&self, kind: FunctionKind) -> Result<(), ApiError> {
        let named = |field: &str, problem: String| ApiError::field(&format!("http.{field}"), problem);
        let below =
            |field: &str, problem: (&str, String)| named(&format!("{field}.{}", problem.0), problem.1);
        if let Some(cors) = &self.cors {
            cors.check().map_err(|problem| below("cors", problem))?;
        }
        if let Some(limit) = &self.rate_limit {
            limit.check().map_err(|problem| below("rate_limit", problem))?;
        }
        if let Some(bytes) = self.max_request_bytes {
            let most = match kind {
                FunctionKind::Handler => limits::PAYLOAD_BYTES as u64,
                FunctionKind::Server => limits::REQUEST_BYTES,
            };
            if !(1..=most).contains(&bytes) {
                let what = if kind == FunctionKind::Handler { "a handler" } else { "a server" };
                return Err(named(
                    "max_request_bytes",
                    format!("must be 1 to {most} for {what}, not {bytes}"),
                ));
            }
        }
        for (field, changes) in
            [("request_headers", &self.request_headers), ("response_headers", &self.response_headers)]
        {
            if let Some(changes) = changes {
                changes.check().map_err(|problem| below(field, problem))?;
            }
        }
        pages::check(&self.error_pages).map_err(|problem| named("error_pages", problem))
    }

    /// These, with what they leave open taken from the function's.
    #[must_use]
    pub fn over(&self, function: &Self) -> Self {
        let (own, rest) = (self.clone(), function.clone());
        Self {
            cors: own.cors.or(rest.cors),
            rate_limit: own.rate_limit.or(rest.rate_limit),
            max_request_bytes: own.max_request_bytes.or(rest.max_request_bytes),
            compression: own.compression.or(rest.compression),
            request_headers: own.request_headers.or(rest.request_headers),
            response_headers: own.response_headers.or(rest.response_headers),
            error_pages: if own.error_pages.is_empty() { rest.error_pages } else { own.error_pages },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(toml: &str, kind: FunctionKind) -> Result<HttpSettings, String> {
        let settings: HttpSettings = toml::from_str(toml).map_err(|e| e.message().to_owned())?;
        settings.check(kind).map_err(|e| e.message)?;
        Ok(settings)
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_its_name() {
        for (toml, field) in [
            ("max_request_bytes = 0", "http.max_request_bytes: must be 1 to"),
            ("max_request_bytes = 6291557", "http.max_request_bytes: must be 1 to 6291556 for a handler"),
            ("cors = { origins = [] }", "http.cors.origins: "),
            ("cors = { origins = [\"*\"], credentials = true }", "http.cors.credentials: "),
            ("cors = { origins = [\"*\"], max_age_seconds = 86401 }", "http.cors.max_age_seconds: "),
            ("rate_limit = { requests = 0 }", "http.rate_limit.requests: "),
            ("rate_limit = { requests = 1, per_seconds = 0 }", "http.rate_limit.per_seconds: "),
            ("rate_limit = { requests = 1, burst = 0 }", "http.rate_limit.burst: "),
            ("request_headers = { remove = [\"Host\"] }", "http.request_headers.remove: host "),
            ("response_headers = { set = { te = \"x\" } }", "http.response_headers.set: te "),
            ("response_headers = { set = { a = \"x\\ny\" } }", "http.response_headers.set: the value of a"),
            (
                "response_headers = { set = { a = \"x\" }, remove = [\"A\"] }",
                "http.response_headers.remove: a ",
            ),
            ("error_pages = [{ statuses = [], body = \"x\" }]", "http.error_pages: "),
            ("error_pages = [{ statuses = [200], body = \"x\" }]", "http.error_pages: 200 "),
            ("error_pages = [{ statuses = [503, 503], body = \"x\" }]", "http.error_pages: 503 "),
            (
                "error_pages = [{ statuses = [503], body = \"x\", content_type = \"a\\nb\" }]",
                "http.error_pages: ",
            ),
        ] {
            let refused = checked(toml, FunctionKind::Handler).unwrap_err();
            assert!(refused.starts_with(field), "{toml}: {refused}");
        }
        assert!(checked("max_request_bytes = 6291557", FunctionKind::Server).is_ok());
        let settings = checked(
            "cors = { origins = [\"https://a.example.com\"], credentials = true }\n\
             rate_limit = { requests = 10, by = \"token\" }\ncompression = true",
            FunctionKind::Handler,
        );
        assert!(settings.is_ok(), "{settings:?}");
    }

    #[test]
    fn a_routes_keys_come_before_the_functions() {
        let read = |toml: &str| checked(toml, FunctionKind::Server).unwrap();
        let function = read("compression = true\nmax_request_bytes = 5\nrate_limit = { requests = 1 }");
        let route = read("compression = false\nrate_limit = { requests = 2 }");
        let both = route.over(&function);
        assert_eq!((both.compression, both.max_request_bytes), (Some(false), Some(5)));
        assert_eq!(both.rate_limit.map(|limit| limit.requests), Some(2));
        assert_eq!(HttpSettings::default().over(&function), function);
    }
}
