//! What a version is: everything that decides how its instances run. Immutable once the version is ready.

mod debug;
mod image;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use debug::{DEBUGGER_PROTOCOL, DebugSettings};

use crate::{
    ApiError, CallerPattern, Destinations, EnvName, FunctionSubscription, HttpSettings, ImageName,
    NetworkClass, OpenApiDocument, PathPattern, PayloadFormat, RetryPolicy, RouteSpec, RuntimeName,
    SecretFileName, SecretName, limits,
};

/// How a function is spoken to.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FunctionKind {
    /// Event in, result out: the Lambda programming model.
    Handler,
    /// Any program that listens on `$PORT`; requests pass through byte for byte.
    Server,
}

/// Who may call a function's HTTP address.
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
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Nobody: it has no HTTP address. `davit invoke`, schedules and the queue reach it.
    #[default]
    Private,
    /// Callers with a token for its namespace whose role is at least `invoke`.
    Token,
    /// Everyone who reaches the gateway.
    Public,
}

/// Everything that decides how a version runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionSpec {
    /// Which runtime image it runs in; `image` for one of its own, which `image` or `dockerfile` says.
    pub runtime: RuntimeName,
    /// The image that it runs in: found in the engine, or pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// The file of the source that its image is built by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The secret that opens the image's registry, or those of the Dockerfile: a Docker config in JSON, or `user:password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_secret: Option<SecretName>,
    /// How it is spoken to.
    pub kind: FunctionKind,
    /// What the runtime calls, `module.function` or for Java `package.Class::method`; otherwise empty, or handed to the
    /// program as `_HANDLER`.
    #[serde(default)]
    pub handler: String,
    /// Program and arguments for `provided` and `server`; empty means `./bootstrap`, or what the function's own image starts.
    #[serde(default)]
    pub command: Vec<String>,
    /// Whether the source is what runs, built elsewhere: it is packed as it is, and no dependencies are installed. Layers lie below
    /// [`LAYERS`] in it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub prebuilt: bool,
    /// Who may call its HTTP address.
    #[serde(default)]
    pub access: Access,
    /// Functions that may call it. Absent: those of its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_callers: Option<Vec<CallerPattern>>,
    /// What a handler gets when it is called by its path address.
    #[serde(default)]
    pub payload: PayloadFormat,
    /// Memory in MiB; the container's hard limit.
    pub memory_mb: u32,
    /// CPU in thousandths of a core.
    pub cpu_millis: u32,
    /// Time budget of a call in seconds, counted from its arrival.
    pub timeout_seconds: u32,
    /// Time budget of one attempt of an asynchronous call in seconds, counted from the attempt's start. Absent: `timeout_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub async_timeout_seconds: Option<u32>,
    /// Calls at a time in one instance.
    pub concurrency: u32,
    /// Instances at a time, over all gateways.
    pub max_instances: u32,
    /// Instances that are kept while the version is live, even when nobody calls, over all gateways.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_instances: u32,
    /// Size of /tmp in MiB.
    pub ephemeral_mb: u32,
    /// Longest idle time before an instance is let go, in seconds. Absent: automatic, by what the function's calls
    /// are like, up to an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive_seconds: Option<u32>,
    /// What its instances can reach.
    #[serde(default)]
    pub network: NetworkClass,
    /// Plain environment variables.
    #[serde(default)]
    pub env: BTreeMap<EnvName, String>,
    /// Environment variables whose values are secrets: variable → secret.
    #[serde(default)]
    pub secrets: BTreeMap<EnvName, SecretName>,
    /// Files below [`SECRET_FOLDER`] whose contents are secrets: file → secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_files: BTreeMap<SecretFileName, SecretName>,
    /// Addresses besides the path address.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// The operations that some of the routes are, as OpenAPI 3.1, with what they refer to. Lists of versions leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub openapi: Option<OpenApiDocument>,
    /// What holds for requests to its HTTP addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<HttpSettings>>,
    /// Promise for asynchronous invocations.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// Where the outcomes of asynchronous invocations are sent on to.
    #[serde(default, skip_serializing_if = "Destinations::is_empty")]
    pub destinations: Destinations,
    /// Topics whose messages it gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<FunctionSubscription>,
    /// That it can be debugged, and how: `davit dev --debug` deploys such versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug: Option<DebugSettings>,
}

/// Folder of a source in which the content of its layers lies. The runtime images show parts of it as [`LAYER_PARTS`] of `/opt`.
pub const LAYERS: &str = ".opt";
/// What of a layer a function finds below `/opt`: the folders in which AWS's runtimes, the loader and the shell look.
/// `runtime-images/base/layers.sh` has the same list.
pub const LAYER_PARTS: [&str; 7] = ["bin", "java", "lib", "nodejs", "php", "python", "ruby"];

/// Where secrets appear as files in an instance.
pub const SECRET_FOLDER: &str = "/run/secrets";

/// Left out, so that the specs of versions from before there were such stay as they are.
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Left out, so that the specs of versions from before there was a minimum stay as they are.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl VersionSpec {
    /// A spec with the defaults that `davit.toml` has.
    pub fn new(runtime: RuntimeName, kind: FunctionKind) -> Self {
        Self {
            runtime,
            image: None,
            dockerfile: None,
            image_secret: None,
            kind,
            handler: String::new(),
            command: Vec::new(),
            prebuilt: false,
            access: Access::Private,
            allow_callers: None,
            payload: PayloadFormat::V2,
            memory_mb: 256,
            cpu_millis: 1_000,
            timeout_seconds: 30,
            async_timeout_seconds: None,
            concurrency: if kind == FunctionKind::Server { 64 } else { 1 },
            max_instances: 10,
            min_instances: 0,
            ephemeral_mb: 512,
            keep_alive_seconds: None,
            network: NetworkClass::Egress,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            secret_files: BTreeMap::new(),
            routes: Vec::new(),
            openapi: None,
            http: None,
            retry: RetryPolicy::default(),
            destinations: Destinations::default(),
            subscriptions: Vec::new(),
            debug: None,
        }
    }

    /// Whether the same source with these settings is the same function for ever. It is not where the tag of an image
    /// may have been given to another one since.
    pub fn is_fixed(&self) -> bool {
        self.image.as_ref().is_none_or(|image| image.digest().is_some())
    }

    /// Longest idle time before an instance is let go.
    pub fn keep_alive(&self) -> Duration {
        let seconds = self.keep_alive_seconds.unwrap_or(limits::AUTOMATIC_KEEP_ALIVE_SECONDS);
        Duration::from_secs(seconds.into())
    }

    /// Time budget of a call that somebody waits for.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }

    /// Time budget of one attempt of an asynchronous call.
    pub fn async_timeout(&self) -> Duration {
        Duration::from_secs(self.async_timeout_seconds.unwrap_or(self.timeout_seconds).into())
    }

    /// The secrets that its instances get: the field that names each, the variable or file, and the secret.
    pub fn wanted_secrets(&self) -> impl Iterator<Item = (&'static str, &str, &SecretName)> {
        let variables = self.secrets.iter().map(|(name, secret)| ("secrets", name.as_str(), secret));
        let files = self.secret_files.iter().map(|(name, secret)| ("secret_files", name.as_str(), secret));
        variables.chain(files)
    }

    /// Checks every bound; the error names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        let within = |field: &str, value: u32, range: std::ops::RangeInclusive<u32>| {
            if range.contains(&value) {
                Ok(())
            } else {
                Err(ApiError::field(
                    field,
                    format!("must be {} to {}, not {value}", range.start(), range.end()),
                ))
            }
        };
        within("memory_mb", self.memory_mb, limits::MEMORY_MB)?;
        within("cpu_millis", self.cpu_millis, limits::CPU_MILLIS)?;
        within("timeout_seconds", self.timeout_seconds, limits::TIMEOUT_SECONDS)?;
        if let Some(seconds) = self.async_timeout_seconds {
            within("async_timeout_seconds", seconds, limits::ASYNC_TIMEOUT_SECONDS)?;
        }
        within("concurrency", self.concurrency, limits::CONCURRENCY)?;
        within("max_instances", self.max_instances, limits::MAX_INSTANCES)?;
        within("ephemeral_mb", self.ephemeral_mb, limits::EPHEMERAL_MB)?;
        if let Some(seconds) = self.keep_alive_seconds {
            within("keep_alive_seconds", seconds, limits::KEEP_ALIVE_SECONDS)?;
        }
        if self.min_instances > self.max_instances {
            return Err(ApiError::field(
                "min_instances",
                format!("must be at most max_instances, {}, not {}", self.max_instances, self.min_instances),
            ));
        }
        self.retry.check().map_err(|e| ApiError::field("retry", e))?;
        self.destinations.check().map_err(|e| ApiError::field("destinations", e))?;
        crate::topic::check_subscriptions(&self.subscriptions)?;
        if self.allow_callers.as_ref().is_some_and(|callers| callers.len() > limits::CALLERS) {
            return Err(ApiError::field("allow_callers", format!("at most {}", limits::CALLERS)));
        }
        self.check_image()?;
        self.check_debug()?;
        self.check_text()?;
        self.check_env()?;
        if let Some(http) = &self.http {
            http.check(self.kind)?;
        }
        if let Some(document) = &self.openapi {
            document.check().map_err(|problem| ApiError::field("openapi", problem))?;
        }
        self.check_routes()
    }

    fn check_text(&self) -> Result<(), ApiError> {
        if self.handler.chars().count() > limits::HANDLER_CHARS || self.handler.contains(char::is_control) {
            return Err(ApiError::field(
                "handler",
                "at most 128 characters, none of them control characters",
            ));
        }
        if self.command.len() > 64 || self.command.iter().any(|a| a.len() > 4096 || a.contains('\0')) {
            return Err(ApiError::field("command", "at most 64 arguments of 4,096 bytes, without NUL"));
        }
        Ok(())
    }

    fn check_env(&self) -> Result<(), ApiError> {
        if let Some(twice) = self.env.keys().find(|name| self.secrets.contains_key(*name)) {
            return Err(ApiError::field("env", format!("{twice} is set in both env and secrets")));
        }
        if self.env.len() + self.secrets.len() > limits::ENV_COUNT {
            return Err(ApiError::field("env", format!("at most {} variables", limits::ENV_COUNT)));
        }
        let bytes: usize = self.env.iter().map(|(k, v)| k.as_str().len() + v.len()).sum();
        if bytes > limits::ENV_BYTES {
            return Err(ApiError::field("env", format!("{bytes} bytes, the limit is {}", limits::ENV_BYTES)));
        }
        if let Some((name, _)) = self.env.iter().find(|(_, v)| v.contains('\0')) {
            return Err(ApiError::field("env", format!("{name} holds a NUL character")));
        }
        if self.secret_files.len() > limits::SECRET_FILES {
            return Err(ApiError::field("secret_files", format!("at most {}", limits::SECRET_FILES)));
        }
        Ok(())
    }

    fn check_routes(&self) -> Result<(), ApiError> {
        if self.routes.len() > limits::ROUTES {
            return Err(ApiError::field("routes", format!("at most {}", limits::ROUTES)));
        }
        let mut seen = std::collections::HashSet::new();
        for route in &self.routes {
            if !seen.insert((route.host.as_ref(), route.method, PathPattern::shape(&route.path))) {
                return Err(ApiError::field(
                    "routes",
                    format!("{} {} is listed twice", route.method, route.path),
                ));
            }
            route.check(self).map_err(|problem| {
                ApiError::field("routes", format!("{} {}: {problem}", route.method, route.path))
            })?;
        }
        Ok(())
    }
}
