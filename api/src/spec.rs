//! What a version is: everything that decides how its instances run. Immutable once the version is ready.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ApiError, CallerPattern, Destinations, EnvName, FunctionSubscription, HttpSettings, ImageName,
    NetworkClass, PathPattern, PayloadFormat, RetryPolicy, RouteSpec, SecretName,
};

/// Bounds of a version's settings. Where AWS Lambda has a bound its value is taken (Lambda quotas page), so
/// that what fits there fits here.
pub mod limits {
    /// Memory of an instance in MiB.
    pub const MEMORY_MB: std::ops::RangeInclusive<u32> = 64..=10_240;
    /// CPUs of an instance, in thousandths.
    pub const CPU_MILLIS: std::ops::RangeInclusive<u32> = 50..=16_000;
    /// Time budget of a call in seconds.
    pub const TIMEOUT_SECONDS: std::ops::RangeInclusive<u32> = 1..=900;
    /// Calls at a time in one instance.
    pub const CONCURRENCY: std::ops::RangeInclusive<u32> = 1..=1_000;
    /// Instances of one version at a time.
    pub const MAX_INSTANCES: std::ops::RangeInclusive<u32> = 1..=1_000;
    /// Size of /tmp in MiB.
    pub const EPHEMERAL_MB: std::ops::RangeInclusive<u32> = 16..=10_240;
    /// Idle time before an instance is let go, in seconds.
    pub const KEEP_ALIVE_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;
    /// The same where the manifest leaves it to davit. What comes less often than that is started ahead of time
    /// where it is regular, and cold where it is not.
    pub const AUTOMATIC_KEEP_ALIVE_SECONDS: u32 = 3_600;
    /// Environment variables of a version.
    pub const ENV_COUNT: usize = 256;
    /// All names and values of the environment together, in bytes.
    pub const ENV_BYTES: usize = 32 * 1024;
    /// Event or result of a call, in bytes: 6 MiB and a margin, as at AWS.
    pub const PAYLOAD_BYTES: usize = 6_291_556;
    /// Largest body of a request that a server can be set to take, in bytes.
    pub const REQUEST_BYTES: u64 = 1 << 40;
    /// Levels of arrays and objects in each other in a JSON event. What languages' parsers take varies (Python's gives
    /// up somewhere between 9,000 and 20,000, others at 1,000 or less): this is below them, so that none is blamed.
    pub const JSON_DEPTH: usize = 500;
    /// Asynchronous invocations in one batch.
    pub const BATCH: usize = 1_000;
    /// Longest time that an asynchronous invocation can be put off: 30 days, in seconds.
    pub const DELAY_SECONDS: u32 = 30 * 86_400;
    /// Longest ordering key.
    pub const ORDERING_KEY_CHARS: usize = 128;
    /// Longest idempotency key.
    pub const IDEMPOTENCY_KEY_CHARS: usize = 256;
    /// Payload of an asynchronous invocation, in bytes.
    pub const ASYNC_PAYLOAD_BYTES: usize = 1024 * 1024;
    /// Missed instants of a schedule that may run.
    pub const MISSED_RUNS: u32 = 100;
    /// Schedules of one function, those of its `davit.toml` included.
    pub const SCHEDULES: u32 = 1_000;
    /// Event sources of one namespace: gateways hold all of them in memory.
    pub const SOURCES: u32 = 200;
    /// Events of a source that are fetched and accepted at a time.
    pub const SOURCE_BATCH: std::ops::RangeInclusive<u32> = 1..=1_000;
    /// How long a source's batch that is not full may wait for more, in milliseconds.
    pub const SOURCE_BATCH_WAIT_MS: std::ops::RangeInclusive<u32> = 0..=60_000;
    /// Calls of a function that have not ended, at which its sources stop fetching.
    pub const SOURCE_BACKLOG: std::ops::RangeInclusive<u32> = 1..=100_000;
    /// Columns that a source of table changes may name.
    pub const SOURCE_COLUMNS: usize = 200;
    /// How far a sender's signed time may lie from the gateway's, in seconds.
    pub const TOLERANCE_SECONDS: std::ops::RangeInclusive<u32> = 1..=3_600;
    /// Longest id of a delivery that a sender may give, in characters. Of longer ones the digest is taken.
    pub const DELIVERY_ID_CHARS: usize = 128;
    /// A source archive as uploaded (compressed), in bytes.
    pub const SOURCE_BYTES: usize = 64 * 1024 * 1024;
    /// Layers of a version, as at AWS.
    pub const LAYERS: usize = 5;
    /// A source archive or bundle unpacked, in bytes: as at AWS.
    pub const UNPACKED_BYTES: u64 = 262_144_000;
    /// Entries of an archive.
    pub const ARCHIVE_ENTRIES: usize = 100_000;
    /// An event of a topic in its JSON form, in bytes.
    pub const EVENT_BYTES: usize = 256 * 1024;
    /// Events in one publication, which together are at most [`ASYNC_PAYLOAD_BYTES`].
    pub const EVENTS: usize = 100;
    /// Topics of a namespace.
    pub const TOPICS: usize = 1_000;
    /// Subscriptions of a topic, and of a function. With [`EVENT_BYTES`] it bounds what one event becomes.
    pub const SUBSCRIPTIONS: usize = 100;
    /// Versions that one alias leads to.
    pub const ALIAS_VERSIONS: usize = 10;
    /// Aliases of one function.
    pub const ALIASES: usize = 50;
    /// Projects of a namespace.
    pub const PROJECTS: usize = 500;
    /// What one project looks after.
    pub const PROJECT_OBJECTS: usize = 2_000;
    /// Length of a version's or an alias's description, in characters.
    pub const DESCRIPTION_CHARS: usize = 500;
    /// Steps of a canary.
    pub const CANARY_STEPS: usize = 20;
    /// How long a step of a canary lasts at least, in seconds.
    pub const CANARY_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;
    /// Ready versions of a function that are kept whatever their age.
    pub const KEEP_VERSIONS: std::ops::RangeInclusive<u32> = 1..=1_000;
    /// Days for which all of them are kept.
    pub const KEEP_DAYS: std::ops::RangeInclusive<u32> = 0..=3_650;
    /// Longest chain of functions that cause each other, by calls, publications and destinations: what runs in a circle
    /// must not do so for ever.
    pub const HOPS: u8 = 8;
    /// Entries of the list of a function's callers.
    pub const CALLERS: usize = 100;
    /// Routes of one function.
    pub const ROUTES: usize = 64;
    /// Length of a handler setting, in characters.
    pub const HANDLER_CHARS: usize = 128;
    /// Length of a Dockerfile's path within its folder, in characters.
    pub const DOCKERFILE_CHARS: usize = 255;
    /// Length of a secret's value, in bytes.
    pub const SECRET_BYTES: usize = 64 * 1024;
}

/// The folder name of a runtime under `runtime-images/`, such as `python3.13` or `provided`.
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
#[schema(value_type = String, example = "python3.13")]
#[schemars(with = "String")]
pub struct RuntimeName(Box<str>);

impl RuntimeName {
    /// The runtimes that come with davit, each a folder under `runtime-images/`.
    pub const SHIPPED: [&str; 8] =
        ["python3.13", "node20", "java21", "ruby3.3", "php8.4", "go", "rust", "provided"];
    /// Those whose functions are programs: built in an image of the language, run in that of `provided`.
    const COMPILED: [&str; 2] = ["go", "rust"];

    /// What stands in the runtime's place where a function brings an image of its own.
    const OWN_IMAGE: &str = "image";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The name that stands for an image of the function's own.
    pub fn own_image() -> Self {
        Self(Self::OWN_IMAGE.into())
    }
    /// Whether it is none of davit's runtimes, but an image of the function's own.
    pub fn is_own_image(&self) -> bool {
        self.as_str() == Self::OWN_IMAGE
    }
    /// Whether functions are compiled to a program that needs nothing of its language to run.
    pub fn is_compiled(&self) -> bool {
        Self::COMPILED.contains(&self.as_str())
    }
    /// Whether a process of the language calls the handler, which therefore has to be named.
    pub fn calls_handler(&self) -> bool {
        let managed = ["python", "node", "java", "ruby", "php"];
        managed.iter().any(|language| self.0.starts_with(language))
    }
    /// The local image that functions of this runtime run in, such as `davit/runtime-python3.13:latest`.
    pub fn image(&self) -> String {
        format!("davit/runtime-{}:latest", if self.is_compiled() { "provided" } else { self.as_str() })
    }
    /// The local image that builds them; for most the same as [`Self::image`].
    pub fn build_image(&self) -> String {
        if self.is_compiled() { format!("davit/build-{}:latest", self.0) } else { self.image() }
    }
    /// Whether `handler` names something that this runtime could call; the error says how it is written.
    pub fn check_handler(&self, handler: &str) -> Result<(), &'static str> {
        let word = |text: &str, more: &str| {
            !text.is_empty()
                && text.chars().all(|c| c.is_alphanumeric() || "_-$".contains(c) || more.contains(c))
        };
        let path = |text: &str| {
            word(text, "./") && !text.starts_with('/') && !text.split('/').any(|part| part == "..")
        };
        if self.0.starts_with("java") {
            let (class, method) = handler.split_once("::").unwrap_or((handler, "handleRequest"));
            let good =
                word(class, ".") && !class.starts_with('.') && !class.ends_with('.') && word(method, "");
            return if good {
                Ok(())
            } else {
                Err("write package.Class::method, such as com.example.Handler::handleRequest")
            };
        }
        if self.0.starts_with("ruby") {
            // The file, then a method, or a method of a class: `app.Orders::Handler.process`.
            let good = handler.split_once('.').is_some_and(|(file, rest)| path(file) && word(rest, ".:?!"));
            return if good { Ok(()) } else { Err("write file.method, such as app.handler") };
        }
        if self.calls_handler() {
            let good = handler.rsplit_once('.').is_some_and(|(module, name)| path(module) && word(name, ""));
            return if good { Ok(()) } else { Err("write module.function, such as app.handler") };
        }
        Ok(())
    }
}
impl FromStr for RuntimeName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let good = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
            && text.as_bytes()[0].is_ascii_lowercase();
        if good {
            Ok(Self(text.into()))
        } else {
            Err("a runtime is named like python3.13: 1 to 32 lower-case letters, digits, dots and hyphens"
                .into())
        }
    }
}
crate::text::text_like!(RuntimeName);

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
    /// Calls at a time in one instance.
    pub concurrency: u32,
    /// Instances at a time, over all gateways' shares.
    pub max_instances: u32,
    /// Instances that each gateway keeps while the version is live, even when nobody calls.
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
    /// Addresses besides the path address.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
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
}

/// Folder of a source in which the content of its layers lies. The runtime images show parts of it as [`LAYER_PARTS`] of `/opt`.
pub const LAYERS: &str = ".opt";
/// What of a layer a function finds below `/opt`: the folders in which AWS's runtimes, the loader and the shell look.
/// `runtime-images/base/layers.sh` has the same list.
pub const LAYER_PARTS: [&str; 7] = ["bin", "java", "lib", "nodejs", "php", "python", "ruby"];

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
            concurrency: if kind == FunctionKind::Server { 64 } else { 1 },
            max_instances: 10,
            min_instances: 0,
            ephemeral_mb: 512,
            keep_alive_seconds: None,
            network: NetworkClass::Egress,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            routes: Vec::new(),
            http: None,
            retry: RetryPolicy::default(),
            destinations: Destinations::default(),
            subscriptions: Vec::new(),
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
        self.check_text()?;
        self.check_env()?;
        if let Some(http) = &self.http {
            http.check(self.kind)?;
        }
        self.check_routes()
    }

    fn check_image(&self) -> Result<(), ApiError> {
        let own = self.runtime.is_own_image();
        match (&self.image, &self.dockerfile) {
            (Some(_), Some(_)) => {
                return Err(ApiError::field("dockerfile", "an image is given or built, not both"));
            }
            (None, None) if own => {
                return Err(ApiError::field("image", "say which, or give the dockerfile that builds it"));
            }
            (None, None) if self.image_secret.is_some() => {
                return Err(ApiError::field("image_secret", "is for functions with an image of their own"));
            }
            (Some(_), None) | (None, Some(_)) if !own => {
                return Err(ApiError::field("runtime", "leave it out: the image says what runs"));
            }
            (Some(_), None) | (None, Some(_)) if self.prebuilt => {
                return Err(ApiError::field(
                    "prebuilt",
                    "an archive made elsewhere needs a runtime, not an image",
                ));
            }
            _ => {}
        }
        let plain = |part: &str| !matches!(part, "" | "." | "..");
        let good = |path: &str| {
            path.chars().count() <= limits::DOCKERFILE_CHARS
                && path.split('/').all(plain)
                && !path.contains(|c: char| c.is_control() || c == '\\')
        };
        if self.dockerfile.as_deref().is_some_and(|path| !good(path)) {
            return Err(ApiError::field("dockerfile", "write its path in the folder, such as Dockerfile"));
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_its_own_is_given_or_built_and_has_no_runtime() {
        let refused = |change: fn(&mut VersionSpec)| {
            let mut spec = VersionSpec::new(RuntimeName::own_image(), FunctionKind::Server);
            spec.image = Some("registry.example.com/app:1".parse().unwrap());
            change(&mut spec);
            spec.check().err().map(|error| error.message)
        };
        assert_eq!(refused(|_| {}), None);
        assert_eq!(refused(|s| s.image_secret = Some("registry".parse().unwrap())), None);
        let built = |s: &mut VersionSpec, path: &str| (s.image, s.dockerfile) = (None, Some(path.into()));
        assert_eq!(refused(|s| (s.image, s.dockerfile) = (None, Some("build/Dockerfile".into()))), None);
        for (field, change) in [
            ("dockerfile", (|s| s.dockerfile = Some("Dockerfile".into())) as fn(&mut VersionSpec)),
            ("image", |s| s.image = None),
            ("runtime", |s| s.runtime = "python3.13".parse().unwrap()),
            ("prebuilt", |s| s.prebuilt = true),
            ("image_secret", |s| {
                (s.image, s.runtime) = (None, "provided".parse().unwrap());
                s.image_secret = Some("registry".parse().unwrap());
            }),
        ] {
            let said = refused(change).unwrap_or_default();
            assert!(said.starts_with(&format!("{field}: ")), "{field}: {said}");
        }
        for path in ["", "/Dockerfile", "../Dockerfile", "a//b", "a\\b", "./Dockerfile"] {
            let mut spec = VersionSpec::new(RuntimeName::own_image(), FunctionKind::Handler);
            built(&mut spec, path);
            assert!(spec.check().is_err(), "{path:?}");
        }
    }

    fn runtime(name: &str) -> RuntimeName {
        name.parse().unwrap()
    }

    #[test]
    fn a_handler_is_written_as_its_language_has_it() {
        for (name, good, bad) in [
            (
                "python3.13",
                &["app.handler", "src/app.handler", "pkg.mod.f"][..],
                &["", "app", "app.", ".f", "../a.f", "/a.f", "a b.f"][..],
            ),
            ("node20", &["index.handler", "src/app.handler"], &["index", "index.", "a;b.c"]),
            (
                "java21",
                &["com.example.Handler::handleRequest", "com.example.Handler", "H::f"],
                &["", "::f", "A::", "a/b::f", ".A::f"],
            ),
            (
                "ruby3.3",
                &["app.handler", "app.Orders::Handler.process", "lib/app.ready?"],
                &["app", "app.", "../a.f", "a.b c"],
            ),
            ("php8.4", &["app.handler", "src/app.handler"], &["app", "app.", "/a.f"]),
            ("go", &["", "cmd/api"], &[]),
            ("provided", &["", "anything at all"], &[]),
        ] {
            for handler in good {
                assert_eq!(runtime(name).check_handler(handler), Ok(()), "{name} {handler}");
            }
            for handler in bad {
                assert!(runtime(name).check_handler(handler).is_err(), "{name} {handler}");
            }
        }
    }

    #[test]
    fn every_shipped_runtime_is_a_name_and_programs_run_in_one_image() {
        for name in RuntimeName::SHIPPED {
            let runtime = runtime(name);
            let own = format!("davit/runtime-{name}:latest");
            assert_eq!(runtime.image() == own, !runtime.is_compiled(), "{name}");
            assert_eq!(runtime.build_image() == runtime.image(), !runtime.is_compiled(), "{name}");
        }
        assert_eq!(runtime("go").image(), runtime("provided").image());
        assert_eq!(runtime("go").build_image(), "davit/build-go:latest");
    }
}
