//! From what is deployed to a document: every address of live versions, as OpenAPI 3.1.

use std::collections::{BTreeMap, BTreeSet};

use davit_api::{
    Access, FunctionName, HostPattern, MethodMatch, NamespaceName, PayloadFormat, RouteSpec, VersionSpec,
};
use serde_json::{Map, Value, json};

use crate::import::METHODS;
use crate::place::{below, component, pointer_of, resolved};
use crate::settings::{NAME, Settings};
use crate::shape::{Kind, change};

/// The security scheme that stands for davit's own tokens.
const TOKEN: &str = "davit_token";

/// A live version.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// Its function.
    pub function: FunctionName,
    /// Its number.
    pub version: u32,
    /// Its settings.
    pub spec: VersionSpec,
}

/// What is to be in the document.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Only what is reached by this host.
    pub host: Option<&'a str>,
    /// Where the gateway is.
    pub server: Option<&'a str>,
}

/// The document of these functions of a namespace.
pub fn export(namespace: &NamespaceName, functions: &[Deployed], wanted: Wanted<'_>) -> Value {
    let mut document = Exporting { namespace, wanted, ..Exporting::new(namespace) };
    for function in functions {
        document.add(function);
    }
    let title = match functions {
        [only] => only.function.to_string(),
        _ => format!("Functions of {namespace}"),
    };
    let mut info = json!({"title": title, "version": "1"});
    if let [only] = functions
        && let Some(own) = only.spec.openapi.as_ref().and_then(|own| own.value().get("info")?.as_object())
    {
        info = Value::Object(own.clone());
    }
    document.finish(info)
}

/// A document in the making.
struct Exporting<'a> {
    namespace: &'a NamespaceName,
    wanted: Wanted<'a>,
    paths: BTreeMap<String, Map<String, Value>>,
    components: Map<String, Value>,
    tags: BTreeMap<String, Value>,
    operation_ids: BTreeSet<String>,
    token: bool,
    left_out: Vec<String>,
}

/// New names of a function's components, by section and old name.
type Names = BTreeMap<(String, String), String>;

impl<'a> Exporting<'a> {
    fn new(namespace: &'a NamespaceName) -> Self {
        Self {
            namespace,
            wanted: Wanted::default(),
            paths: BTreeMap::new(),
            components: Map::new(),
            tags: BTreeMap::new(),
            operation_ids: BTreeSet::new(),
            token: false,
            left_out: Vec::new(),
        }
    }

    fn add(&mut self, function: &Deployed) {
        let spec = &function.spec;
        let open = |route: &&RouteSpec| route.access.unwrap_or(spec.access) != Access::Private;
        let mut routes: Vec<&RouteSpec> =
            spec.routes.iter().filter(open).filter(|route| self.reached(route.host.as_ref())).collect();
        // One document has one operation for a path and a method. Of a host's, its own comes first; of all hosts', what is
        // there for all of them.
        routes.sort_by_key(|route| route.host.is_some() != self.wanted.host.is_some());
        let names = if routes.is_empty() { Names::new() } else { self.take_components(function) };
        for route in routes {
            let (operation, validate) = operation(function, route, &names);
            let mut settings = json!({
                "namespace": self.namespace, "function": function.function, "version": function.version,
                "access": route.access.unwrap_or(spec.access),
            });
            let given = [
                ("host", json!(route.host)),
                ("timeout_seconds", json!(route.timeout_seconds)),
                ("strip_prefix", json!(route.strip_prefix)),
                ("add_prefix", json!(route.add_prefix)),
                ("http", json!(route.http)),
                ("payload", json!((route.payload != PayloadFormat::V2).then_some(route.payload))),
                ("validate", json!((!validate).then_some(false))),
            ];
            for (key, value) in given.into_iter().filter(|(_, value)| !value.is_null()) {
                settings[key] = value;
            }
            self.put(function, route.path.as_str(), route.method, route.host.as_ref(), operation, settings);
        }
        if spec.access == Access::Private {
            return;
        }
        let address = format!("/{}/{}", self.namespace, function.function);
        for path in [address.clone(), format!("{address}/{{path+}}")] {
            let settings = json!({
                "namespace": self.namespace, "function": function.function, "version": function.version,
                "access": spec.access, "path_address": true,
            });
            let operation = plain(&path);
            self.put(function, &path, MethodMatch::Any, None, operation, settings);
        }
    }

    /// Whether a route of that host is asked for.
    fn reached(&self, host: Option<&HostPattern>) -> bool {
        let (Some(wanted), Some(host)) = (self.wanted.host, host) else { return true };
        match host.as_str().strip_prefix('*') {
            Some(suffix) => wanted.len() > suffix.len() && wanted.ends_with(suffix),
            None => wanted == host.as_str(),
        }
    }

    fn put(
        &mut self,
        function: &Deployed,
        path: &str,
        method: MethodMatch,
        host: Option<&HostPattern>,
        operation: Map<String, Value>,
        settings: Value,
    ) {
        for (word, of) in METHODS {
            // A route for the very method comes before one for any.
            let exact = method == of;
            if !exact && method != MethodMatch::Any {
                continue;
            }
            if self.paths.get(path).is_some_and(|item| item.contains_key(word)) {
                if exact {
                    let host = host.map(HostPattern::as_str).unwrap_or_default();
                    self.left_out.push(format!("{of} {host}{path} of {}", function.function));
                }
                continue;
            }
            let mut operation = operation.clone();
            if settings["access"] == json!(Access::Token) {
                self.token = true;
                ask_for_token(&mut operation);
            }
            if let Some(host) = host.map(HostPattern::as_str).filter(|host| !host.starts_with('*')) {
                operation.insert("servers".to_owned(), json!([{"url": format!("//{host}")}]));
            }
            operation.entry("tags").or_insert_with(|| json!([function.function]));
            self.name(&mut operation, function);
            operation.insert(NAME.to_owned(), settings.clone());
            self.paths.entry(path.to_owned()).or_default().insert(word.to_owned(), Value::Object(operation));
        }
    }

    /// Ids of operations are unique in a document.
    fn name(&mut self, operation: &mut Map<String, Value>, function: &Deployed) {
        let Some(id) = operation.get("operationId").and_then(Value::as_str) else { return };
        let mut id = id.to_owned();
        if !self.operation_ids.insert(id.clone()) {
            id = format!("{}.{id}", function.function);
            if !self.operation_ids.insert(id.clone()) {
                operation.remove("operationId");
                return;
            }
        }
        operation.insert("operationId".to_owned(), json!(id));
    }

    /// Adds a function's components, and its tags. Those whose name is another function's get one with the function's name.
    fn take_components(&mut self, function: &Deployed) -> Names {
        let mut names = Names::new();
        let Some(document) = &function.spec.openapi else { return names };
        let document = document.value();
        let sections = document.get("components").and_then(Value::as_object).into_iter().flatten();
        let sections: Vec<_> =
            sections.filter_map(|(section, held)| Some((section, held.as_object()?))).collect();
        for (section, held) in &sections {
            for (name, value) in *held {
                let other = self.components.get(*section).and_then(|held| held.get(name));
                if other.is_some_and(|other| other != value)
                    || (*section == "securitySchemes" && name == TOKEN)
                {
                    let new = format!("{}.{name}", function.function);
                    if !(*section == "securitySchemes" && *value == scheme()) {
                        names.insert(((*section).clone(), name.clone()), new);
                    }
                }
            }
        }
        let mut own = json!({"components": document.get("components")});
        renamed(&mut own, &names);
        for (section, held) in own["components"].as_object().into_iter().flatten() {
            let Value::Object(into) = self.components.entry(section.clone()).or_insert_with(|| json!({}))
            else {
                continue;
            };
            for (name, value) in held.as_object().into_iter().flatten() {
                let new = names.get(&(section.clone(), name.clone())).unwrap_or(name);
                into.entry(new.clone()).or_insert_with(|| value.clone());
            }
        }
        for tag in document.get("tags").and_then(Value::as_array).into_iter().flatten() {
            if let Some(name) = tag.get("name").and_then(Value::as_str) {
                self.tags.entry(name.to_owned()).or_insert_with(|| tag.clone());
            }
        }
        names
    }

    fn finish(mut self, info: Value) -> Value {
        let mut document = json!({"openapi": "3.1.1", "info": info, "paths": self.paths});
        if let Some(server) = self.wanted.server {
            document["servers"] = json!([{"url": server}]);
        }
        if self.token {
            let schemes = self.components.entry("securitySchemes").or_insert_with(|| json!({}));
            schemes[TOKEN] = scheme();
        }
        if !self.components.is_empty() {
            document["components"] = Value::Object(self.components);
        }
        if !self.tags.is_empty() {
            document["tags"] = self.tags.into_values().collect();
        }
        if !self.left_out.is_empty() {
            document[NAME] = json!({"left_out": self.left_out});
        }
        document
    }
}

/// davit's own tokens, as a security scheme.
fn scheme() -> Value {
    json!({"type": "http", "scheme": "bearer", "description": "A token of davit (davit token create)."})
}

/// A route's operation, with its path's parameters as its own, and whether requests are held to it.
fn operation(function: &Deployed, route: &RouteSpec, names: &Names) -> (Map<String, Value>, bool) {
    let found = route.operation.as_deref().and_then(|name| {
        let document = function.spec.openapi.as_ref()?;
        let (_, path) = name.split_once(' ')?;
        let operation = document.operation(name)?;
        Some((document.value(), path, document.value().get("paths")?.get(path)?, operation))
    });
    let Some((document, path, item, given)) = found else { return (plain(route.path.as_str()), true) };
    let validate = Settings::of([document, item], given, "").map_or(true, |settings| settings.validate);
    let mut operation = given.as_object().cloned().unwrap_or_default();
    let parameters = parameters(document, path, item, given, route.path.as_str());
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), Value::Array(parameters));
    }
    if let Some(security) = document.get("security") {
        operation.entry("security").or_insert_with(|| security.clone());
    }
    let mut wrapped = json!({"paths": {"/": {"get": operation}}});
    renamed(&mut wrapped, names);
    let mut operation = match wrapped["paths"]["/"]["get"].take() {
        Value::Object(operation) => operation,
        _ => Map::new(),
    };
    if let Some(Value::Array(ways)) = operation.get_mut("security") {
        for way in ways.iter_mut().filter_map(Value::as_object_mut) {
            *way = std::mem::take(way)
                .into_iter()
                .map(|(name, scopes)| {
                    let key = ("securitySchemes".to_owned(), name);
                    (names.get(&key).cloned().unwrap_or(key.1), scopes)
                })
                .collect();
        }
    }
    (operation, validate)
}

/// An operation's parameters and its path's, with the route's own names for those of the path.
fn parameters(document: &Value, path: &str, item: &Value, operation: &Value, route: &str) -> Vec<Value> {
    let key = |given: &Value| {
        let (given, _) = resolved(document, given, "").ok()?;
        Some((given.get("in")?.as_str()?.to_owned(), given.get("name")?.as_str()?.to_owned()))
    };
    let steps = |path: &str| -> Vec<String> {
        path.split('/')
            .filter(|step| step.starts_with('{'))
            .map(|step| step.trim_matches(['{', '}']).to_owned())
            .collect()
    };
    let (old, new) = (steps(path), steps(route));
    let bare = |name: &str| name.strip_suffix('+').unwrap_or(name).to_owned();
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    let lists = [operation, item].map(|owner| owner.get("parameters").and_then(Value::as_array));
    for given in lists.into_iter().flatten().flatten() {
        let Some((within, name)) = key(given) else { continue };
        if !seen.insert((within.clone(), name.clone())) {
            continue;
        }
        let position = old.iter().position(|known| bare(known) == bare(&name)).filter(|_| within == "path");
        match position.and_then(|position| new.get(position)) {
            Some(named) if bare(named) != bare(&name) => {
                let mut own = resolved(document, given, "").map(|(own, _)| own.clone()).unwrap_or_default();
                own["name"] = json!(named);
                all.push(own);
            }
            _ => all.push(given.clone()),
        }
    }
    // What the path has and the document says nothing of: a document has to.
    let said = |name: &str| {
        all.iter().any(|given| key(given).is_some_and(|(w, n)| w == "path" && bare(&n) == bare(name)))
    };
    let unsaid: Vec<Value> = new.iter().filter(|name| !said(name)).map(|name| path_parameter(name)).collect();
    all.extend(unsaid);
    all
}

fn path_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

/// The operation of an address of which nothing is known but its path.
fn plain(path: &str) -> Map<String, Value> {
    let names = path.split('/').filter_map(|step| step.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names.map(path_parameter).collect();
    let mut operation = Map::from_iter([(
        "responses".to_owned(),
        json!({"default": {"description": "What the function answers."}}),
    )]);
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), Value::Array(parameters));
    }
    operation
}

/// Asks for a token besides what is asked for already.
fn ask_for_token(operation: &mut Map<String, Value>) {
    let ways = operation.get("security").and_then(Value::as_array).filter(|ways| !ways.is_empty());
    let mut ways = ways.cloned().unwrap_or_else(|| vec![json!({})]);
    for way in ways.iter_mut().filter(|way| way.is_object()) {
        way[TOKEN] = json!([]);
    }
    operation.insert("security".to_owned(), Value::Array(ways));
}

/// Lets references lead to components' new names.
fn renamed(document: &mut Value, names: &Names) {
    if names.is_empty() {
        return;
    }
    let moved = |reference: &str| {
        let target = pointer_of(reference)?;
        let (section, name) = component(&target)?;
        let new = names.get(&(section.clone(), name.clone()))?;
        let old = below(&format!("/components/{section}"), &name);
        let rest = target.strip_prefix(&old)?;
        Some(format!("#{}{rest}", below(&format!("/components/{section}"), new)))
    };
    change(Kind::Document, document, &mut |kind, value| {
        if kind.section().is_none() {
            return;
        }
        if let Some(Value::String(reference)) = value.get_mut("$ref")
            && let Some(new) = moved(reference)
        {
            *reference = new;
        }
        if let Some(Value::Object(mapping)) = value.pointer_mut("/discriminator/mapping") {
            for target in mapping.values_mut() {
                if let Some(new) = target.as_str().and_then(&moved) {
                    *target = json!(new);
                }
            }
        }
    });
}
