//! Documents in, routes out, documents out again.

use davit_api::{Access, FunctionKind, Imported, Manifest, MethodMatch, VersionSpec};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Deployed, Problem, Rules, Wanted, export, import, read};

pub(crate) const SHOP: &str = r##"
openapi: 3.0.3
info: { title: Shop, version: 1.2.0 }
servers: [{ url: "https://{host}/api/", variables: { host: { default: shop.example.com } } }]
x-davit: { access: public }
paths:
  /orders:
    post:
      operationId: createOrder
      summary: Takes an order
      x-davit: { access: token, timeout_seconds: 5, http: { rate_limit: { requests: 5 } } }
      requestBody: { $ref: "#/components/requestBodies/Order" }
      responses: { "201": { $ref: "#/components/responses/Order" } }
    get:
      parameters:
        - { name: limit, in: query, schema: { type: integer, minimum: 1, maximum: 100 } }
        - { name: state, in: query, schema: { type: array, items: { type: string, enum: [open, sent] } } }
      responses: { default: { description: all of them } }
  /orders/{order-id}:
    parameters: [{ $ref: "#/components/parameters/Id" }]
    delete:
      responses: { "204": { description: gone } }
  /files/{rest+}:
    get: { responses: { default: { description: a file } } }
components:
  parameters:
    Id: { name: order-id, in: path, required: true, schema: { type: string, pattern: "^[0-9]{1,9}$" } }
  requestBodies:
    Order:
      required: true
      content: { application/json: { schema: { $ref: "#/components/schemas/Order" } } }
  responses:
    Order: { description: it, content: { application/json: { schema: { $ref: "#/components/schemas/Order" } } } }
  schemas:
    Order:
      type: object
      required: [id, items]
      properties:
        id: { type: string, readOnly: true }
        note: { type: string, nullable: true, maxLength: 20 }
        items: { type: array, minItems: 1, items: { $ref: "#/components/schemas/Item" } }
    Item:
      type: object
      additionalProperties: false
      required: [name]
      properties: { name: { type: string }, count: { type: integer, minimum: 0, exclusiveMinimum: true } }
    Unused: { type: string }
"##;

pub(crate) fn imported(text: &str) -> Imported {
    import(read(text).unwrap(), None, None).unwrap()
}

fn refused(text: &str) -> String {
    let told =
        |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    match read(text) {
        Ok(document) => told(import(document, None, None).unwrap_err()),
        Err(error) => error.to_string(),
    }
}

/// The version of a function with this document.
fn spec(imported: &Imported) -> VersionSpec {
    let toml = "name = \"shop\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n";
    let mut manifest = Manifest::parse(toml).unwrap();
    manifest.imported = Some(imported.clone());
    manifest.checked(toml).unwrap().version_spec()
}

fn exported(spec: &VersionSpec, wanted: Wanted<'_>) -> Value {
    let deployed = Deployed { function: "shop".parse().unwrap(), version: 3, spec: spec.clone() };
    export(&"default".parse().unwrap(), &[deployed], wanted)
}

#[test]
fn each_operation_is_a_route_with_the_settings_it_says() {
    let imported = imported(SHOP);
    let routes: Vec<_> = imported
        .routes
        .iter()
        .map(|r| (r.operation.as_str(), r.route.path.as_str(), r.route.access, r.route.timeout_seconds))
        .collect();
    assert_eq!(
        routes,
        [
            ("GET /files/{rest+}", "/api/files/{rest+}", Some(Access::Public), None),
            ("GET /orders", "/api/orders", Some(Access::Public), None),
            ("POST /orders", "/api/orders", Some(Access::Token), Some(5)),
            ("DELETE /orders/{order-id}", "/api/orders/{order-id}", Some(Access::Public), None),
        ]
    );
    let document = imported.document.value();
    assert_eq!(document["openapi"], "3.1.1");
    assert!(document["components"]["schemas"].get("Unused").is_none());
    assert_eq!(document["components"]["schemas"]["Item"]["properties"]["count"]["exclusiveMinimum"], 0);
    assert_eq!(crate::check(&spec(&imported)), Ok(()));
}

#[test]
fn what_is_wrong_is_told_with_operation_and_place() {
    let with = |from: &str, to: &str| {
        let text = SHOP.replacen(from, to, 1);
        assert_ne!(text, SHOP, "{from}");
        refused(&text)
    };
    for (from, to, said) in [
        ("openapi: 3.0.3", "openapi: 3.2.0", "#/openapi: \"3.2.0\" is not known; 3.0 and 3.1 are"),
        ("openapi: 3.0.3", "swagger: '2.0'", "#/swagger: is version 2"),
        (
            "/orders/{order-id}:",
            "/orders/{order-id}.json:",
            "DELETE /orders/{order-id}.json: #/paths/~1orders~1{order-id}.json: path pattern",
        ),
        ("maximum: 100", "maximum: ten", "GET /orders: #/paths/~1orders/get/parameters/0/schema/maximum: "),
        (
            "pattern: \"^[0-9]{1,9}$\"",
            "pattern: \"(a)\\\\1\"",
            "DELETE /orders/{order-id}: #/components/parameters/Id/schema/pattern",
        ),
        (
            "#/components/schemas/Item",
            "#/components/schemas/Thing",
            "#/components/schemas/Order/properties/items/items: \"#/components/schemas/Thing\" leads nowhere",
        ),
        ("#/components/schemas/Item", "item.yaml", "\"item.yaml\" leads out of the document"),
        ("#/components/requestBodies/Order", "#/components/responses/Order", "is none of the requestBodies"),
        (
            "timeout_seconds: 5",
            "timeout: 5",
            "POST /orders: #/paths/~1orders/post/x-davit: unknown field `timeout`",
        ),
        (
            "name: order-id",
            "name: number",
            "DELETE /orders/{order-id}: #/components/parameters/Id: number: the path has no such parameter",
        ),
        ("/api/\"", "/{v}/x y\"", "#/servers/0/url: path prefix"),
        (
            "/orders/{order-id}:",
            "/orders/{order-id}:\n    trace: {}",
            "#/paths/~1orders~1{order-id}/trace: no function",
        ),
        (
            "type: integer, minimum: 1",
            "type: object, minimum: 1",
            "GET /orders: #/paths/~1orders/get/parameters/0: limit: of objects only",
        ),
        ("name: limit, in: query", "name: limit, in: body", "`in` must be"),
    ] {
        let told = with(from, to);
        assert!(told.contains(said), "{from} -> {to}: {told}");
    }
    assert!(refused("a: [1").contains("line"));
    assert!(refused("openapi: 3.1.0\npaths: {}\n").contains("has no operation"));
    assert!(
        refused("openapi: 3.1.0\npaths: { '/a/{x}': { get: {} }, '/a/{y}': { get: {} } }\n")
            .contains("takes the same requests as GET /a/{x}")
    );
}

#[test]
fn a_schema_that_multiplies_is_taken_and_one_without_an_end_is_not() {
    let text = "openapi: 3.1.0\npaths:\n  /a:\n    post:\n      requestBody:\n        content:\n          application/json: { schema: { $ref: '#/components/schemas/A' } }\ncomponents:\n  schemas:\n    A: SCHEMA\n";
    let tree = "{ oneOf: [{ type: string }, { properties: { and: { items: { $ref: '#/components/schemas/A' } } } }] }";
    assert!(import(read(&text.replace("SCHEMA", tree)).unwrap(), None, None).is_ok());
    let said = refused(&text.replace("SCHEMA", "{ anyOf: [{ $ref: '#/components/schemas/A' }] }"));
    assert!(said.contains("POST /a: #/components/schemas/A: the schema is defined by itself"), "{said}");
}

#[test]
fn what_is_exported_of_an_import_is_imported_as_the_same() {
    let first = spec(&imported(SHOP));
    let document = exported(&first, Wanted::default());
    assert_eq!(document["info"]["title"], "Shop");
    let create = &document["paths"]["/api/orders"]["post"];
    assert_eq!(
        (create["summary"].as_str(), create["operationId"].as_str()),
        (Some("Takes an order"), Some("createOrder"))
    );
    assert_eq!(create["security"], json!([{"davit_token": []}]));
    assert_eq!(create["x-davit"]["function"], "shop");
    let again = import(document.clone(), None, None).unwrap();
    let second = spec(&again);
    let routes = |spec: &VersionSpec| -> Vec<_> {
        let mut all: Vec<_> = spec
            .routes
            .iter()
            .map(|r| (r.method, r.path.clone(), r.access, r.timeout_seconds, r.http.clone()))
            .collect();
        all.sort_by_key(|r| (r.1.clone(), r.0));
        all
    };
    assert_eq!(routes(&first), routes(&second));
    assert_eq!(exported(&second, Wanted::default()), document, "and so for ever");
}

#[test]
fn an_export_shows_all_that_is_reached_and_nothing_else() {
    let mut spec = spec(&imported(SHOP));
    spec.access = Access::Public;
    let mut route =
        davit_api::RouteSpec::new(MethodMatch::Any, "/own/{id}".parse().unwrap(), Default::default());
    route.host = Some("api.example.com".parse().unwrap());
    spec.routes.push(route.clone());
    route.path = "/hidden".parse().unwrap();
    route.access = Some(Access::Private);
    spec.routes.push(route);
    let document = exported(&spec, Wanted { host: None, server: Some("http://127.0.0.1:7480") });
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/own/{id}") && !paths.contains_key("/hidden"));
    assert!(paths.contains_key("/default/shop") && paths.contains_key("/default/shop/{path+}"));
    assert_eq!(paths["/own/{id}"]["patch"]["servers"][0]["url"], "//api.example.com");
    let other = exported(&spec, Wanted { host: Some("other.example.com"), server: None });
    assert!(other["paths"].get("/own/{id}").is_none());
    // Path addresses are no routes.
    let again = import(document, None, None).unwrap();
    assert!(again.routes.iter().all(|route| !route.route.path.as_str().starts_with("/default")));
}

#[test]
fn components_of_two_functions_with_one_name_are_kept_apart() {
    let one = spec(&imported(SHOP));
    let other = imported(&SHOP.replace("/orders", "/bills").replace("minItems: 1", "minItems: 2"));
    let functions = [("bills", &spec(&other)), ("shop", &one)].map(|(name, spec)| Deployed {
        function: name.parse().unwrap(),
        version: 1,
        spec: spec.clone(),
    });
    let document = export(&"default".parse().unwrap(), &functions, Wanted::default());
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert_eq!(schemas["Order"]["properties"]["items"]["minItems"], 2);
    assert_eq!(schemas["shop.Order"]["properties"]["items"]["minItems"], 1);
    assert_eq!(
        document["components"]["requestBodies"]["Order"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/Order"
    );
    assert_eq!(document["paths"]["/api/orders"]["post"]["operationId"], "shop.createOrder");
    assert!(import(document, None, None).is_ok(), "and all of it can be read");
}

/// Values with the words of OpenAPI in them, so that something is got hold of now and then.
fn documents() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("type"),
        Just("properties"),
        Just("items"),
        Just("$ref"),
        Just("allOf"),
        Just("enum"),
        Just("schema"),
        Just("in"),
        Just("name"),
        Just("required"),
        Just("content"),
        Just("application/json"),
        Just("parameters"),
        Just("requestBody"),
        Just("responses"),
        Just("x-davit"),
        Just("access"),
        Just("get"),
        Just("post"),
        Just("/a"),
        Just("/a/{b}"),
        Just("/{c+}"),
        Just("nullable"),
        Just("pattern"),
        Just("minimum"),
    ];
    let text = prop_oneof![
        Just("string"),
        Just("object"),
        Just("array"),
        Just("integer"),
        Just("query"),
        Just("path"),
        Just("b"),
        Just("#/components/schemas/A"),
        Just("#/components/parameters/A"),
        Just("public"),
        Just("^a+$"),
        Just("(")
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..100).prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    (prop::collection::vec(value, 6), any::<bool>()).prop_map(|(mut parts, old)| {
        let mut next = || parts.pop().unwrap_or_default();
        json!({
            "openapi": if old { "3.0.0" } else { "3.1.0" },
            "paths": {"/a": {"post": {"requestBody": {"content": {"application/json": {"schema": next()}}}, "parameters": next()}},
                "/a/{b}": {"get": {"parameters": [{"in": "path", "name": "b", "schema": next()}]}, "x-davit": next()}},
            "components": {"schemas": {"A": next()}, "parameters": {"A": next()}},
        })
    })
}

proptest! {
    #[test]
    fn a_document_becomes_routes_that_pass_or_its_problems_are_named(document in documents()) {
        match import(document, None, None) {
            Ok(imported) => {
                // What is private is not exported.
                let spec = VersionSpec { access: Access::Public, ..spec(&imported) };
                prop_assert_eq!(spec.check(), Ok(()));
                prop_assert_eq!(crate::check(&spec), Ok(()));
                let shown = exported(&spec, Wanted::default());
                let again = import(shown, None, None);
                let private = spec.routes.iter().all(|route| route.access == Some(Access::Private));
                prop_assert!(again.is_ok() || private, "{again:?}");
            }
            Err(problems) => prop_assert!(!problems.is_empty() && problems.iter().all(|p| !p.message.is_empty())),
        }
    }

    #[test]
    fn no_request_makes_the_rules_of_any_document_fall_over(document in documents(), body in documents(), text in "[a-z0-9,\\[\\]=&]{0,12}") {
        let Ok(imported) = import(document, None, None) else { return Ok(()) };
        for route in &imported.routes {
            let Some(rules) = Rules::of(imported.document.value(), &route.operation).unwrap() else { continue };
            let pairs = [("b".to_owned(), text.clone()), ("name".to_owned(), text.clone())];
            let mut headers = http::HeaderMap::new();
            headers.insert("content-type", "application/json".parse().unwrap());
            let head = crate::Head { path: &pairs, query: &pairs, headers: &headers, has_body: true };
            if let Ok(crate::Body::Json(media)) = rules.head(head) {
                let _ = rules.body(media, body.to_string().as_bytes());
            }
        }
    }
}

#[test]
fn a_function_without_a_document_has_one_all_the_same() {
    let mut spec = VersionSpec::new("provided".parse().unwrap(), FunctionKind::Server);
    spec.access = Access::Token;
    let document = exported(&spec, Wanted::default());
    assert_eq!(document["paths"]["/default/shop/{path+}"]["get"]["parameters"][0]["name"], "path+");
    assert_eq!(document["components"]["securitySchemes"]["davit_token"]["scheme"], "bearer");
}
