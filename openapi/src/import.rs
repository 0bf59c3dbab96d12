//! From a document to what a version carries: its operations as routes, and as OpenAPI 3.1 with what they refer to.

use davit_api::{
    HostPattern, Imported, ImportedRoute, ManifestRoute, MethodMatch, OpenApiDocument, PathPattern,
    PathPrefix, limits,
};
use serde_json::{Map, Value, json};

use crate::convert::to_31;
use crate::cost::DIALECTS;
use crate::place::{Problem, below, resolved};
use crate::rules::compile_all;
use crate::settings::{NAME, Settings};
use crate::subset::needed;

/// What the document is said to be.
const VERSION: &str = "3.1.1";
/// Problems that are told at a time.
const PROBLEMS: usize = 20;
/// Methods that a route can have, as OpenAPI calls them.
pub(crate) const METHODS: [(&str, MethodMatch); 7] = [
    ("get", MethodMatch::Get),
    ("head", MethodMatch::Head),
    ("post", MethodMatch::Post),
    ("put", MethodMatch::Put),
    ("patch", MethodMatch::Patch),
    ("delete", MethodMatch::Delete),
    ("options", MethodMatch::Options),
];
/// What of a path is neither an operation nor carried.
const DROPPED: [&str; 2] = ["servers", "callbacks"];

/// Imports a document of 3.0 or 3.1. `base` comes before each path; without it, the path of the first server. Names what
/// cannot be had, at most some of it.
pub fn import(
    mut document: Value,
    base: Option<&PathPrefix>,
    host: Option<&HostPattern>,
) -> Result<Imported, Vec<Problem>> {
    if version(&document).map_err(|problem| vec![problem])? == Version::V30 {
        to_31(&mut document);
    }
    let base = match base {
        Some(base) => base.as_str().to_owned(),
        None => first_server(&document).map_err(|problem| vec![problem])?,
    };
    let mut problems = Vec::new();
    let paths = paths(&document, &mut problems);
    if let Value::Object(fields) = &mut document {
        fields.insert("paths".to_owned(), Value::Object(paths));
    }
    let components = needed(&document, &mut problems);
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, of) in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let name = format!("{of} {path}");
            let pointer = below(&below("/paths", path), method);
            match route(&document, item, operation, &pointer, (&base, host), of, path) {
                Ok(route) => routes.push(ImportedRoute { route, operation: name }),
                Err(problem) => problems.push(problem.of(&name)),
            }
        }
    }
    twice(&routes, &mut problems);
    if problems.is_empty() && routes.is_empty() {
        problems.push(Problem::at("/paths", "has no operation"));
    }
    if routes.len() > limits::ROUTES {
        let (n, most) = (routes.len(), limits::ROUTES);
        problems.push(Problem::at("/paths", format!("{n} operations; a function has at most {most} routes")));
    }
    let document = carried(document, components);
    if problems.is_empty() {
        let names = routes.iter().map(|route| route.operation.as_str());
        problems.extend(compile_all(&document, names));
    }
    if !problems.is_empty() {
        problems.truncate(PROBLEMS);
        return Err(problems);
    }
    Ok(Imported { document: OpenApiDocument::new(document), routes })
}

#[derive(PartialEq, Eq)]
enum Version {
    V30,
    V31,
}

fn version(document: &Value) -> Result<Version, Problem> {
    if !document.is_object() {
        return Err(Problem::at("", "an OpenAPI document is an object with `openapi`, `info` and `paths`"));
    }
    if document.get("swagger").is_some() {
        return Err(Problem::at("/swagger", "is version 2; convert the document to OpenAPI 3"));
    }
    let dialect = document.get("jsonSchemaDialect").map(|dialect| dialect.as_str().unwrap_or_default());
    if dialect.is_some_and(|dialect| !DIALECTS.contains(&dialect.trim_end_matches('#'))) {
        return Err(Problem::at("/jsonSchemaDialect", "only draft 2020-12 of JSON Schema is known"));
    }
    let said = match document.get("openapi") {
        Some(Value::String(said)) => said.clone(),
        // `openapi: 3.1` in YAML.
        Some(Value::Number(said)) => said.to_string(),
        _ => return Err(Problem::at("/openapi", "is missing; it says the version, such as 3.1.0")),
    };
    match said.split('.').take(2).collect::<Vec<_>>().as_slice() {
        ["3", "0"] => Ok(Version::V30),
        ["3", "1"] => Ok(Version::V31),
        _ => {
            let said: String = said.chars().take(20).collect();
            Err(Problem::at("/openapi", format!("{said:?} is not known; 3.0 and 3.1 are")))
        }
    }
}

/// The path of the first server, without a slash at its end.
fn first_server(document: &Value) -> Result<String, Problem> {
    let Some(server) = document.pointer("/servers/0") else { return Ok(String::new()) };
    let mut url = server.get("url").and_then(Value::as_str).unwrap_or("/").to_owned();
    for (name, variable) in server.get("variables").and_then(Value::as_object).into_iter().flatten() {
        let default = variable.get("default").and_then(Value::as_str).unwrap_or_default();
        url = url.replace(&format!("{{{name}}}"), default);
    }
    let rest =
        url.split_once("://").map_or(url.as_str(), |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
    let path = rest.trim_end_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    path.parse::<PathPrefix>().map(|path| path.to_string()).map_err(|why| {
        Problem::at(
            "/servers/0/url",
            format!("{why}; or say what comes before the paths by `base` of `openapi`"),
        )
    })
}

/// The paths with their operations, as they are carried.
fn paths(document: &Value, problems: &mut Vec<Problem>) -> Map<String, Value> {
    let mut paths = Map::new();
    let Some(given) = document.get("paths").and_then(Value::as_object) else {
        problems.push(Problem::at("/paths", "is missing, or no object"));
        return paths;
    };
    for (path, item) in given.iter().filter(|(path, _)| !path.starts_with("x-")) {
        let pointer = below("/paths", path);
        let item = match resolved(document, item, &pointer) {
            Ok((item, _)) => item,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let Value::Object(item) = item else {
            problems.push(Problem::at(&pointer, "must be an object"));
            continue;
        };
        let mut kept = item.clone();
        kept.retain(|key, _| !DROPPED.contains(&key.as_str()));
        for method in METHODS.map(|(method, _)| method) {
            match kept.get_mut(method) {
                None => {}
                Some(Value::Object(operation)) => {
                    let address = operation.get(NAME).and_then(|own| own.get("path_address"));
                    if address == Some(&Value::Bool(true)) {
                        kept.remove(method);
                    } else {
                        operation.retain(|key, _| !DROPPED.contains(&key.as_str()));
                    }
                }
                Some(_) => problems.push(Problem::at(&below(&pointer, method), "must be an object")),
            }
        }
        if kept.contains_key("trace") {
            problems.push(Problem::at(&below(&pointer, "trace"), "no function is called with TRACE"));
        }
        if METHODS.iter().any(|(method, _)| kept.contains_key(*method)) {
            paths.insert(path.clone(), Value::Object(kept));
        }
    }
    paths
}

/// The route that an operation is.
fn route(
    document: &Value,
    item: &Value,
    operation: &Value,
    pointer: &str,
    (base, host): (&str, Option<&HostPattern>),
    method: MethodMatch,
    path: &str,
) -> Result<ManifestRoute, Problem> {
    let settings = Settings::of([document, item], operation, pointer)?;
    let place = below("/paths", path);
    if !path.starts_with('/') {
        return Err(Problem::at(&place, "a path begins with /"));
    }
    let whole = if path == "/" && !base.is_empty() { base.to_owned() } else { format!("{base}{path}") };
    let pattern: PathPattern = whole.parse().map_err(|why: String| Problem::at(&place, why))?;
    Ok(settings.route(host, method, pattern))
}

/// Operations that would catch the same requests.
fn twice(routes: &[ImportedRoute], problems: &mut Vec<Problem>) {
    let mut seen = std::collections::HashMap::new();
    for ImportedRoute { route, operation } in routes {
        let key = (route.host.as_ref(), route.method, route.path.shape());
        if let Some(other) = seen.insert(key, operation) {
            problems.push(Problem::at("/paths", format!("takes the same requests as {other}")).of(operation));
        }
    }
}

/// What is carried of a document.
fn carried(document: Value, components: Map<String, Value>) -> Value {
    let Value::Object(given) = document else { return json!({}) };
    let mut kept = Map::from_iter([("openapi".to_owned(), json!(VERSION))]);
    let wanted = given
        .into_iter()
        .filter(|(key, _)| matches!(key.as_str(), "info" | "paths" | "security" | "tags" | NAME));
    kept.extend(wanted);
    // `version: 1.0` in YAML.
    if let Some(version) =
        kept.get_mut("info").and_then(|info| info.get_mut("version")).filter(|v| v.is_number())
    {
        *version = json!(version.to_string());
    }
    if !components.is_empty() {
        kept.insert("components".to_owned(), Value::Object(components));
    }
    Value::Object(kept)
}
