//! `davit.toml`, the file beside a function's code: its form, its defaults, and errors that say which line
//! and which key. The CLI reads it; the API only ever sees the [`VersionSpec`] that comes out.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Access, CallerPattern, CanarySpec, Destinations, EnvName, FunctionKind, FunctionName,
    FunctionSubscription, HostPattern, HttpSettings, ImageName, Imported, MethodMatch, MissedPolicy,
    NamespaceName, NetworkClass, OpenApiFile, OverlapPolicy, PathPattern, PathPrefix, PayloadFormat,
    RetryPolicy, RouteSpec, RuntimeName, ScheduleName, ScheduleSpec, SecretFileName, SecretName, VersionSpec,
};

/// The settings of a davit function, as written in its davit.toml.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "davit.toml")]
pub struct Manifest {
    /// The function's name: 1 to 63 lower-case letters, digits and hyphens.
    pub name: FunctionName,
    /// The namespace to deploy to, unless the command line names one. Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceName>,
    /// What the function is for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The runtime it is built for and runs in: `python3.13`, `node20`, `java21`, `ruby3.3`, `php8.4`, `go`, `rust` or `provided`.
    /// Left out where the function has an image of its own: `image`, `dockerfile`, or a file called `Dockerfile` in the folder.
    #[serde(default = "RuntimeName::own_image", skip_serializing_if = "RuntimeName::is_own_image")]
    pub runtime: RuntimeName,
    /// The image that it runs in instead, such as `registry.example.com/team/app:1.4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// The file in the folder that its image is built by. Default, without `runtime` and `image`: `Dockerfile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The secret that opens the image's registry, or those of the Dockerfile: a Docker config in JSON, or `user:password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_secret: Option<SecretName>,
    /// `handler` (event in, result out; the default) or `server` (a program that listens on $PORT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FunctionKind>,
    /// What is called: `module.function`, such as `app.handler`; for Java `package.Class::method`. For Go the folder of the main
    /// package, for Rust the program, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// For `provided`, `go`, `rust` and `server`: the program and its arguments. Default: `["./bootstrap"]`, or what the
    /// function's own image starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Who may call its HTTP address: `private` (nobody; the default), `token` or `public`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Functions that may call it: `orders` (of the same namespace), `billing/report`, `billing/*`, `*` (all of the same
    /// namespace) or `*/*`. Default: those of its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_callers: Option<Vec<CallerPattern>>,
    /// What a handler gets for an HTTP request: `2.0` (the default), `1.0`, or `body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<PayloadFormat>,
    /// Memory in MiB, a hard limit: 64 to 10240. Default: 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64, max = 10240))]
    pub memory_mb: Option<u32>,
    /// CPU in thousandths of a core: 50 to 16000. Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 50, max = 16000))]
    pub cpu_millis: Option<u32>,
    /// Time budget of a call in seconds, counted from its arrival: 1 to 900. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 900))]
    pub timeout_seconds: Option<u32>,
    /// Time budget of one attempt of an asynchronous call in seconds, counted from its start: 1 to 43200, which is 12 hours.
    /// Default: `timeout_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 43_200))]
    pub async_timeout_seconds: Option<u32>,
    /// Calls at a time in one instance: 1 to 1000. Default: 1 for a handler, 64 for a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: Option<u32>,
    /// Instances at a time: 1 to 1000. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_instances: Option<u32>,
    /// Size of /tmp in MiB: 16 to 10240. Default: 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 10240))]
    pub ephemeral_mb: Option<u32>,
    /// Instances that are kept even when nobody calls: 0 to `max_instances`. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_instances: Option<u32>,
    /// Longest idle time in seconds before an instance is let go: 1 to 86400. Default: automatic, by what the
    /// function's calls are like, up to an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub keep_alive_seconds: Option<u32>,
    /// What it can reach: `egress` (the outside world; the default) or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkClass>,
    /// Plain environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<EnvName, String>,
    /// Environment variables whose values are secrets: `VARIABLE = "secret-name"` (see `davit secret set`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<EnvName, SecretName>,
    /// Files below `/run/secrets` whose contents are secrets: `"file.name" = "secret-name"`; at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_files: BTreeMap<SecretFileName, SecretName>,
    /// Addresses besides `/<namespace>/<name>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<ManifestRoute>,
    /// An OpenAPI document (3.0 or 3.1, YAML or JSON) in the folder: each of its operations is a route, and requests that do
    /// not fit it are refused. A file, such as `openapi.yaml`, or `{ file = "openapi.yaml", base = "/api" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openapi: Option<OpenApiFile>,
    /// What that document says, once it was read.
    #[serde(skip)]
    pub imported: Option<Imported>,
    /// What holds for requests to its HTTP addresses: CORS, rate limit, size limit, compression, headers, error pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<HttpSettings>>,
    /// When the clock calls it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<ManifestSchedule>,
    /// Topics whose messages it gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<FunctionSubscription>,
    /// How often asynchronous invocations are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Where the outcomes of asynchronous invocations are sent on to.
    #[serde(default, skip_serializing_if = "Destinations::is_empty")]
    pub destinations: Destinations,
    /// Each deployment goes live in steps that are judged, unless the command line says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanarySpec>,
}

/// One address of the function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestRoute {
    /// Only requests for this host, such as `api.example.com` or `*.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPattern>,
    /// Only requests with this method. Default: `ANY`.
    #[serde(default)]
    pub method: MethodMatch,
    /// Which paths, such as `/orders/{id}` or `/files/{rest+}`.
    pub path: PathPattern,
    /// What the handler gets; default: the function's own `payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<PayloadFormat>,
    /// Who may call it: `private`, `token` or `public`. Default: the function's own `access`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Time budget of a call in seconds, at most the function's own `timeout_seconds`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 900))]
    pub timeout_seconds: Option<u32>,
    /// What of the path the function does not get to see, such as `/api`; `path` begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<PathPrefix>,
    /// What the function sees in front of the path, after `strip_prefix` has been taken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_prefix: Option<PathPrefix>,
    /// What holds for requests to it; each key takes the place of the one in the function's own `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<HttpSettings>>,
}

impl ManifestRoute {
    /// The route that this describes, of a function whose own payload format is this one.
    pub(crate) fn spec(&self, payload: PayloadFormat) -> RouteSpec {
        RouteSpec {
            host: self.host.clone(),
            access: self.access,
            timeout_seconds: self.timeout_seconds,
            strip_prefix: self.strip_prefix.clone(),
            add_prefix: self.add_prefix.clone(),
            http: self.http.clone(),
            ..RouteSpec::new(self.method, self.path.clone(), self.payload.unwrap_or(payload))
        }
    }
}

/// One schedule of the function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestSchedule {
    /// Its name, unique within the function.
    pub name: ScheduleName,
    /// Five cron fields: minute, hour, day of month, month, day of week. Or give `every`, or `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// A steady interval in whole minutes, such as `15m`, `6h` or `1d`, from `start` or from the first deployment on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// One moment: `2026-12-24T18:00` by the time zone's clock, or with an offset from UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// IANA time zone whose clock is read, such as `Europe/Berlin`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// No instant before this moment; written like `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// No instant after this moment; written like `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Width of the window over which instants are spread, such as `30s` or `5m`; at most `1d`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// The event; without it, a scheduled event in AWS EventBridge's shape. `{{due_at}}`, `{{fired_at}}`,
    /// `{{schedule}}`, `{{function}}` and `{{namespace}}` in its texts are filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<serde_json::Value>,
    /// Instants missed during downtime: `run_once` (the latest one runs, late; the default), `skip`, or `run_all` (the
    /// latest `missed_limit` run).
    #[serde(default)]
    pub missed: MissedPolicy,
    /// How many missed instants run with `run_all`: 1 to 100. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub missed_limit: Option<u32>,
    /// While the invocation of the instant before has not ended: `allow` (both run; the default), `skip`, `queue` (one
    /// after the other) or `replace` (the earlier one is cancelled).
    #[serde(default)]
    pub overlap: OverlapPolicy,
    /// How often its invocations are tried. Default: the function's own `retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Whether it rings at all. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

/// What is wrong with a `davit.toml`, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// The key, where it is known.
    pub field: Option<String>,
    /// The problem, as a sentence without the place.
    pub message: String,
    /// What to do about it, where there is a guess.
    pub hint: Option<String>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_file("davit.toml"))
    }
}

impl ManifestError {
    /// The problem with its place, for whom the file has this name.
    pub fn in_file(&self, file: &str) -> String {
        let line = self.line.map(|line| format!(", line {line}")).unwrap_or_default();
        let field = self.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
        let hint = self.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{file}{line}: {field}{}{hint}", self.message)
    }
}

impl Manifest {
    /// Reads and checks a `davit.toml`.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text).map_err(|error| explain(text, &error))?;
        manifest.checked(text)
    }

    /// Checks it once more, after something else than the file `text` has changed it.
    pub fn checked(self, text: &str) -> Result<Self, ManifestError> {
        self.check().map_err(|(field, message)| ManifestError {
            line: line_of_key(text, &field),
            field: Some(field),
            message,
            hint: None,
        })?;
        Ok(self)
    }

    /// The version that this file describes, with every default filled in.
    pub fn version_spec(&self) -> VersionSpec {
        let kind = self.kind.unwrap_or(FunctionKind::Handler);
        let base = VersionSpec::new(self.runtime.clone(), kind);
        let payload = self.payload.unwrap_or(base.payload);
        let mut routes: Vec<RouteSpec> = self.routes.iter().map(|route| route.spec(payload)).collect();
        if let Some(imported) = &self.imported {
            imported.join(&mut routes, payload);
        }
        let built = self.runtime.is_own_image() && self.image.is_none();
        VersionSpec {
            image: self.image.clone(),
            dockerfile: self.dockerfile.clone().or_else(|| built.then(|| "Dockerfile".to_owned())),
            image_secret: self.image_secret.clone(),
            handler: self.handler.clone().unwrap_or_default(),
            command: self.command.clone(),
            access: self.access.unwrap_or(base.access),
            allow_callers: self.allow_callers.clone(),
            payload,
            memory_mb: self.memory_mb.unwrap_or(base.memory_mb),
            cpu_millis: self.cpu_millis.unwrap_or(base.cpu_millis),
            timeout_seconds: self.timeout_seconds.unwrap_or(base.timeout_seconds),
            async_timeout_seconds: self.async_timeout_seconds,
            concurrency: self.concurrency.unwrap_or(base.concurrency),
            max_instances: self.max_instances.unwrap_or(base.max_instances),
            min_instances: self.min_instances.unwrap_or(base.min_instances),
            ephemeral_mb: self.ephemeral_mb.unwrap_or(base.ephemeral_mb),
            keep_alive_seconds: self.keep_alive_seconds,
            network: self.network.unwrap_or(base.network),
            env: self.env.clone(),
            secrets: self.secrets.clone(),
            secret_files: self.secret_files.clone(),
            routes,
            openapi: self.imported.as_ref().map(|imported| imported.document.clone()),
            http: self.http.clone(),
            retry: self.retry.unwrap_or(base.retry),
            destinations: self.destinations.clone(),
            subscriptions: self.subscriptions.clone(),
            ..base
        }
    }

    /// The schedules that this file lists.
    pub fn schedule_specs(&self) -> Vec<(ScheduleName, ScheduleSpec)> {
        let spec = |s: &ManifestSchedule| ScheduleSpec {
            cron: s.cron.clone(),
            every: s.every.clone(),
            at: s.at.clone(),
            timezone: s.timezone.clone().unwrap_or_else(|| "UTC".into()),
            start: s.start.clone(),
            end: s.end.clone(),
            jitter: s.jitter.clone(),
            payload: s.payload.clone(),
            missed: s.missed,
            missed_limit: s.missed_limit,
            overlap: s.overlap,
            retry: s.retry,
            enabled: s.enabled,
        };
        self.schedules.iter().map(|s| (s.name.clone(), spec(s))).collect()
    }

    /// The JSON schema of the file, for editors.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).into()
    }

    /// What no type can say: the field, and what is wrong with it.
    fn check(&self) -> Result<(), (String, String)> {
        let named = |field: &str, message: &str| Err((field.to_owned(), message.to_owned()));
        let spec = self.version_spec();
        spec.check().map_err(|error| match error.message.split_once(": ") {
            Some((field, rest)) => (field.to_owned(), rest.to_owned()),
            None => ("davit.toml".to_owned(), error.message),
        })?;
        let interpreted = self.runtime.calls_handler();
        if spec.kind == FunctionKind::Handler && interpreted {
            self.runtime.check_handler(&spec.handler).map_err(|e| ("handler".to_owned(), e.to_owned()))?;
            if !self.command.is_empty() {
                return named(
                    "command",
                    "is for provided and server functions; this runtime calls the handler",
                );
            }
        }
        if spec.kind == FunctionKind::Server && interpreted && self.command.is_empty() {
            return named("command", "say what to start, such as [\"python3\", \"server.py\"]");
        }
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = self.schedules.iter().find(|s| !names.insert(&s.name)) {
            return named("schedules", &format!("{} is listed twice", twice.name));
        }
        for (name, spec) in self.schedule_specs() {
            let timings = [&spec.cron, &spec.every, &spec.at].iter().filter(|one| one.is_some()).count();
            if timings != 1 {
                return named("schedules", &format!("{name}: give exactly one of cron, every and at"));
            }
            spec.check().map_err(|error| ("schedules".to_owned(), format!("{name}: {}", error.message)))?;
        }
        Ok(())
    }
}

/// Turns the parser's error into one that names the key and guesses what was meant.
pub(crate) fn explain(text: &str, error: &toml::de::Error) -> ManifestError {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message().trim().replace('\n', ", ");
    let quoted =
        |part: &str| -> Vec<String> { part.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut words = quoted(rest).into_iter();
        let field = words.next().unwrap_or_default();
        let known: Vec<String> = words.collect();
        let hint = match nearest(&field, &known) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known keys: {}", known.join(", ")),
        };
        return ManifestError { line, field: Some(field), message: "unknown key".into(), hint: Some(hint) };
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        let field = quoted(rest).into_iter().next();
        return ManifestError { line, field, message: "is missing".into(), hint: None };
    }
    let field = line.and_then(|n| text.lines().nth(n - 1)).and_then(key_of_line).map(str::to_owned);
    ManifestError { line, field, message, hint: None }
}

/// The known key that is closest to what was written, when it is close enough to be a slip.
fn nearest<'a>(written: &str, known: &'a [String]) -> Option<&'a str> {
    let plain = written.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|k| (strsim::jaro_winkler(&plain, k), k.as_str()))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

fn key_of_line(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (!key.is_empty() && key.bytes().all(plain)).then_some(key)
}

/// The line that sets a field, or of one whose place is not found (`http.cors.origins` in an inline table), the line of
/// what it lies in.
pub(crate) fn line_of_key(text: &str, field: &str) -> Option<usize> {
    let table =
        |line: &str| line.trim().trim_matches(|c| c == '[' || c == ']') == field && line.contains('[');
    let here = |line: &str| key_of_line(line) == Some(field) || table(line);
    if let Some(index) = text.lines().position(here) {
        return Some(index + 1);
    }
    let (table, key) = field.rsplit_once('.')?;
    let start = line_of_key(text, table)?;
    let inside =
        text.lines().enumerate().skip(start).take_while(|(_, line)| !line.trim_start().starts_with('['));
    let found = inside.into_iter().find(|(_, line)| key_of_line(line) == Some(key));
    Some(found.map_or(start, |(index, _)| index + 1))
}

#[cfg(test)]
mod tests;
