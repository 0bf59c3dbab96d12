//! OpenAPI documents: where a manifest says that one is, and what of it a version carries. Reading one, and holding requests
//! to it, is another crate's.

use std::borrow::Cow;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{HostPattern, ManifestRoute, PathPrefix, PayloadFormat, RouteSpec, limits};

/// What a version carries of an OpenAPI document: one of version 3.1 whose references all lead into its own components. Cheap
/// to clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpenApiDocument(Arc<Value>);

impl OpenApiDocument {
    /// Takes a document as it is.
    pub fn new(document: Value) -> Self {
        Self(Arc::new(document))
    }

    /// The document.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The operation of that name, such as `POST /orders/{id}`.
    pub fn operation(&self, name: &str) -> Option<&Value> {
        let (method, path) = name.split_once(' ')?;
        self.0.get("paths")?.get(path)?.get(method.to_ascii_lowercase()).filter(|found| found.is_object())
    }

    /// Its parts, each with a path such as `openapi.paths./orders.post` or `openapi.components.schemas.Order`, for whoever
    /// compares two documents.
    pub fn parts(&self) -> impl Iterator<Item = (String, &Value)> {
        let fields = self.0.as_object().into_iter().flatten();
        fields.flat_map(|(field, value)| match (field.as_str(), value) {
            ("paths" | "components", Value::Object(groups)) => {
                let parts = groups.iter().flat_map(move |(group, held)| {
                    let parts = held.as_object().into_iter().flatten();
                    parts.map(move |(part, value)| (format!("openapi.{field}.{group}.{part}"), value))
                });
                parts.collect::<Vec<_>>()
            }
            _ => vec![(format!("openapi.{field}"), value)],
        })
    }

    /// What is wrong with it as a part of a version: its size.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !deeper(&self.0, 0) {
            return Err(format!("more than {} levels of objects and lists", limits::OPENAPI_DEPTH));
        }
        let bytes = serde_json::to_vec(&self.0).map_or(usize::MAX, |json| json.len());
        if bytes > limits::OPENAPI_BYTES {
            return Err(format!(
                "{} KiB of operations and schemas, the limit is {}",
                bytes >> 10,
                limits::OPENAPI_BYTES >> 10
            ));
        }
        Ok(())
    }
}

/// Whether a value that lies at this level has no more levels than it may.
fn deeper(value: &Value, level: usize) -> bool {
    level < limits::OPENAPI_DEPTH
        && match value {
            Value::Array(items) => items.iter().all(|item| deeper(item, level + 1)),
            Value::Object(fields) => fields.values().all(|field| deeper(field, level + 1)),
            _ => true,
        }
}

/// What an OpenAPI document becomes for its function.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// What the version carries of it.
    pub document: OpenApiDocument,
    /// The routes, in the document's order of paths.
    pub routes: Vec<ImportedRoute>,
}

/// A route that is an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedRoute {
    /// The route.
    pub route: ManifestRoute,
    /// The operation's name, as in [`RouteSpec::operation`].
    pub operation: String,
}

impl ImportedRoute {
    /// Whether a route of `davit.toml` is this one, with settings that take the place of the document's.
    fn is(&self, route: &RouteSpec) -> bool {
        self.route.method == route.method && self.route.path.shape() == route.path.shape()
    }
}

impl Imported {
    /// Adds the routes to those of `davit.toml`. Of an operation that is there already, `davit.toml`'s settings hold, and the
    /// operation's rules.
    pub(crate) fn join(&self, routes: &mut Vec<RouteSpec>, payload: PayloadFormat) {
        let own = routes.len();
        for imported in &self.routes {
            let operation = Some(imported.operation.clone().into_boxed_str());
            let mut there = false;
            for route in routes[..own].iter_mut().filter(|route| imported.is(route)) {
                route.operation.clone_from(&operation);
                there = true;
            }
            if !there {
                routes.push(RouteSpec { operation, ..imported.route.spec(payload) });
            }
        }
    }

    /// The routes by themselves, of a function whose own payload format is this one.
    pub fn route_specs(&self, payload: PayloadFormat) -> Vec<RouteSpec> {
        let mut routes = Vec::new();
        self.join(&mut routes, payload);
        routes
    }

    /// The operations that `davit.toml` has settings of its own for.
    pub fn overridden<'a>(&'a self, own: &'a [ManifestRoute]) -> impl Iterator<Item = &'a ImportedRoute> {
        let is = |imported: &ImportedRoute, route: &ManifestRoute| {
            imported.is(&route.spec(PayloadFormat::default()))
        };
        self.routes.iter().filter(move |imported| own.iter().any(|route| is(imported, route)))
    }
}

/// Where a function's OpenAPI document is, and where its paths are in force. Written as the file alone, or as a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenApiFile {
    /// The file, relative to the function's folder.
    pub file: String,
    /// What comes before each of its paths. Default: the path of the document's first server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathPrefix>,
    /// The only host that its routes are for. Default: every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPattern>,
}

/// The table's form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Table {
    /// The file, relative to the function's folder.
    file: String,
    /// What comes before each of its paths, such as `/api`. Default: the path of the document's first server.
    #[serde(default)]
    base: Option<PathPrefix>,
    /// The only host that its routes are for, such as `api.example.com`. Default: every host.
    #[serde(default)]
    host: Option<HostPattern>,
}

impl<'de> Deserialize<'de> for OpenApiFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = OpenApiFile;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a file's name, or a table with `file`")
            }
            fn visit_str<E>(self, file: &str) -> Result<OpenApiFile, E> {
                Ok(OpenApiFile { file: file.to_owned(), base: None, host: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OpenApiFile, A::Error> {
                let Table { file, base, host } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(OpenApiFile { file, base, host })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for OpenApiFile {
    fn schema_name() -> Cow<'static, str> {
        "OpenApiFile".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = Table::json_schema(generator);
        json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Access, Manifest, MethodMatch};

    const TOML: &str = "name = \"shop\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n";

    fn imported() -> Imported {
        let document = json!({"openapi": "3.1.1", "paths": {"/orders/{id}": {"get": {}, "put": {}}}});
        let route = |method: MethodMatch, operation: &str| ImportedRoute {
            route: ManifestRoute {
                host: None,
                method,
                path: "/api/orders/{id}".parse().unwrap(),
                payload: None,
                access: Some(Access::Public),
                timeout_seconds: None,
                strip_prefix: None,
                add_prefix: None,
                http: None,
            },
            operation: operation.into(),
        };
        Imported {
            document: OpenApiDocument::new(document),
            routes: vec![
                route(MethodMatch::Get, "GET /orders/{id}"),
                route(MethodMatch::Put, "PUT /orders/{id}"),
            ],
        }
    }

    #[test]
    fn a_route_of_davit_toml_keeps_its_settings_and_gets_the_operations_rules() {
        let toml = format!(
            "{TOML}[[routes]]\nmethod = \"PUT\"\npath = \"/api/orders/{{order}}\"\naccess = \"token\"\n"
        );
        let mut manifest = Manifest::parse(&toml).unwrap();
        manifest.imported = Some(imported());
        let manifest = manifest.checked(&toml).unwrap();
        let spec = manifest.version_spec();
        let routes: Vec<_> =
            spec.routes.iter().map(|r| (r.method, r.access, r.operation.as_deref())).collect();
        assert_eq!(
            routes,
            [
                (MethodMatch::Put, Some(Access::Token), Some("PUT /orders/{id}")),
                (MethodMatch::Get, Some(Access::Public), Some("GET /orders/{id}")),
            ]
        );
        let imported = manifest.imported.as_ref().unwrap();
        assert_eq!(imported.overridden(&manifest.routes).count(), 1);
        let parts: Vec<_> = imported.document.parts().map(|(path, _)| path).collect();
        assert_eq!(
            parts,
            ["openapi.openapi", "openapi.paths./orders/{id}.get", "openapi.paths./orders/{id}.put"]
        );
        let stored = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<crate::VersionSpec>(&stored).unwrap(), spec);
    }

    #[test]
    fn a_file_is_named_shortly_or_with_where_its_paths_are() {
        let of = |line: &str| Manifest::parse(&format!("{TOML}{line}\n")).map(|manifest| manifest.openapi);
        let short = of("openapi = \"api.yaml\"").unwrap().unwrap();
        assert_eq!((short.file.as_str(), short.base), ("api.yaml", None));
        let long = of("openapi = { file = \"a.json\", base = \"/api\", host = \"a.example.com\" }").unwrap();
        assert_eq!(long.unwrap().base.unwrap().as_str(), "/api");
        let refused = |line: &str| of(line).unwrap_err().to_string();
        assert!(refused("openapi = { file = \"a\", bass = \"/\" }").contains("did you mean base?"));
        assert!(refused("openapi = { file = \"a\", base = \"api\" }").contains("path prefix"));
        assert!(refused("openapi = 5").contains("line 4: openapi: invalid type"));
    }

    #[test]
    fn an_operation_that_is_not_there_and_a_document_that_is_too_much_are_refused() {
        let mut spec = Manifest::parse(TOML).unwrap().version_spec();
        let mut route = RouteSpec::new(MethodMatch::Get, "/a".parse().unwrap(), PayloadFormat::V2);
        route.operation = Some("GET /a".into());
        spec.routes.push(route);
        assert!(spec.check().unwrap_err().message.contains("there is no GET /a"));
        spec.openapi = Some(OpenApiDocument::new(json!({"paths": {"/a": {"get": {}}}})));
        assert_eq!(spec.check(), Ok(()));
        let long = "x".repeat(limits::OPENAPI_BYTES);
        spec.openapi = Some(OpenApiDocument::new(json!({"paths": {"/a": {"get": {"summary": long}}}})));
        assert!(spec.check().unwrap_err().message.starts_with("openapi: 512 KiB"));
        let deep = (0..limits::OPENAPI_DEPTH).fold(json!(1), |inner, _| json!([inner]));
        spec.openapi = Some(OpenApiDocument::new(json!({"paths": {"/a": {"get": {"x": deep}}}})));
        assert!(spec.check().unwrap_err().message.starts_with("openapi: more than 100 levels"));
    }
}
