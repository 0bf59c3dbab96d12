//! `x-davit`: what davit adds to a document. For the whole document, a path or an operation, key by key; the innermost holds.

use davit_api::{
    Access, HostPattern, HttpSettings, ManifestRoute, MethodMatch, PathPattern, PathPrefix, PayloadFormat,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::place::{Problem, below};

/// The extension's name.
pub(crate) const NAME: &str = "x-davit";

/// Its keys: those of a route in `davit.toml`, and what an export says, which an import passes over.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    host: Option<HostPattern>,
    payload: Option<PayloadFormat>,
    access: Option<Access>,
    timeout_seconds: Option<u32>,
    strip_prefix: Option<PathPrefix>,
    add_prefix: Option<PathPrefix>,
    http: Option<Box<HttpSettings>>,
    /// Whether requests are held to the operation.
    #[serde(default = "yes")]
    pub(crate) validate: bool,
    #[serde(default, rename = "path_address")]
    _path_address: IgnoredAny,
    #[serde(default, rename = "namespace")]
    _namespace: IgnoredAny,
    #[serde(default, rename = "function")]
    _function: IgnoredAny,
    #[serde(default, rename = "version")]
    _version: IgnoredAny,
    #[serde(default, rename = "left_out")]
    _left_out: IgnoredAny,
}

fn yes() -> bool {
    true
}

impl Settings {
    /// Those of an operation, with what holds for its path and its document.
    pub(crate) fn of(outside: [&Value; 2], operation: &Value, pointer: &str) -> Result<Self, Problem> {
        let mut all = Map::new();
        for value in outside.into_iter().chain([operation]) {
            match value.get(NAME) {
                None => {}
                Some(Value::Object(own)) => {
                    all.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
                Some(_) => return Err(Problem::at(&below(pointer, NAME), "must be an object")),
            }
        }
        serde_json::from_value(Value::Object(all))
            .map_err(|error| Problem::at(&below(pointer, NAME), error.to_string()))
    }

    /// The route that they describe.
    pub(crate) fn route(
        self,
        host: Option<&HostPattern>,
        method: MethodMatch,
        path: PathPattern,
    ) -> ManifestRoute {
        ManifestRoute {
            host: self.host.or_else(|| host.cloned()),
            method,
            path,
            payload: self.payload,
            access: self.access,
            timeout_seconds: self.timeout_seconds,
            strip_prefix: self.strip_prefix,
            add_prefix: self.add_prefix,
            http: self.http,
        }
    }
}
