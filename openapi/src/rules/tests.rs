//! Requests held to rules.

use davit_api::{ApiError, ErrorCode};
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::{Body, Head, Rules};
use crate::import;
use crate::tests::{SHOP, imported};

/// The rules of one operation that is written like this.
fn rules(path: &str, operation: Value) -> Rules {
    let document = json!({"openapi": "3.1.0", "paths": {path: {"post": operation}}, "components": {"schemas": {
        "Tree": {"type": "object", "additionalProperties": false, "properties": {
            "and": {"items": {"$ref": "#/components/schemas/Tree"}},
            "or": {"allOf": [{"items": {"$ref": "#/components/schemas/Tree"}}, {"items": {"$ref": "#/components/schemas/Tree"}}]},
        }},
    }}});
    let imported = import(document, None, None).unwrap();
    Rules::of(imported.document.value(), &format!("POST {path}")).unwrap().unwrap()
}

/// What is said to a request: nothing when it fits.
fn told(rules: &Rules, path: &[&str], query: &str, headers: &[(&str, &str)], body: &str) -> String {
    let refused = |refusal| {
        let error = ApiError::from(refusal);
        format!("{} {}", error.code.status(), error.message)
    };
    let path: Vec<_> = path.iter().map(|value| ("any".to_owned(), (*value).to_owned())).collect();
    let query: Vec<_> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let headers: HeaderMap =
        headers.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect();
    match rules.head(Head { path: &path, query: &query, headers: &headers, has_body: !body.is_empty() }) {
        Err(refusal) => refused(refusal),
        Ok(Body::Unread) => String::new(),
        Ok(Body::Json(media)) => {
            rules.body(media, body.as_bytes()).map_err(refused).err().unwrap_or_default()
        }
    }
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json; charset=utf-8")];

#[test]
fn bodies_fit_or_their_problems_are_told_with_their_places() {
    let imported = imported(SHOP);
    let rules = Rules::of(imported.document.value(), "POST /orders").unwrap().unwrap();
    let told = |body: &str| told(&rules, &[], "", &JSON, body);
    // What is only read need not be sent, and what may be null may.
    assert_eq!(told(r#"{"items": [{"name": "a", "count": 1}], "note": null}"#), "");
    assert_eq!(told(""), "400 body: is missing");
    assert!(told("{").starts_with("400 body: must be JSON: "));
    assert_eq!(
        told(r#"{"items": [{"count": 0}, {"name": "b", "colour": 1}]}"#),
        "400 body/items/0/count: the value is less than or equal to the minimum of 0; body/items/0/name: is missing; body/items/1/colour: is not known"
    );
    let secret = told(r#"{"items": "hunter2"}"#);
    assert!(
        secret.contains("body/items: the value is not of type \"array\"") && !secret.contains("hunter2"),
        "{secret}"
    );
    let many = format!("{{\"items\": [{}]}}", vec!["{}"; 50].join(","));
    assert!(super::tests::told(&rules, &[], "", &JSON, &many).ends_with("; and more"));
    let wrong = super::tests::told(&rules, &[], "", &[("content-type", "text/plain")], "x");
    assert_eq!(
        wrong,
        "415 header.content-type: \"text/plain\" is not taken here; one of application/json is"
    );
    assert!(
        super::tests::told(&rules, &[], "", &[], "x").starts_with("415 header.content-type: must be one of")
    );
    let zipped = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert!(super::tests::told(&rules, &[], "", &zipped, "x").starts_with("415 header.content-encoding"));
}

#[test]
fn parameters_are_read_as_what_they_are() {
    let of = |name: &str, within: &str, more: Value| {
        let mut all = json!({"name": name, "in": within});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let integers = json!({"type": "array", "items": {"type": "integer"}, "maxItems": 3});
    let rules = rules(
        "/a/{id}",
        json!({"parameters": [
            of("id", "path", json!({"schema": {"type": "integer"}, "required": true})),
            of("limit", "query", json!({"schema": {"type": "integer", "maximum": 10}})),
            of("on", "query", json!({"schema": {"type": "boolean"}, "allowEmptyValue": true})),
            of("many", "query", json!({"schema": integers})),
            of("list", "query", json!({"schema": integers, "explode": false})),
            of("pipes", "query", json!({"schema": integers, "explode": false, "style": "pipeDelimited"})),
            of("filter", "query", json!({"style": "deepObject", "schema": {"type": "object", "required": ["n"],
                "properties": {"n": {"type": "integer"}}, "additionalProperties": false}})),
            of("where", "query", json!({"content": {"application/json": {"schema": {"type": "object"}}}})),
            of("when", "query", json!({"schema": {"type": "string", "format": "date"}})),
            of("x-trace", "header", json!({"schema": {"type": "string", "minLength": 3}, "required": true})),
            of("x-ids", "header", json!({"schema": integers})),
            of("session", "cookie", json!({"schema": {"type": "string", "pattern": "^[a-f]+$"}})),
            of("Accept", "header", json!({"required": true})),
        ]}),
    );
    let ask = |path: &str, query: &str, headers: &[(&str, &str)]| {
        let headers: Vec<_> = headers.iter().copied().chain([("x-trace", "abc")]).collect();
        told(&rules, &[path], query, &headers, "")
    };
    let good = "limit=10&on=&many=1&many=2&list=1,2,3&pipes=4|5&filter[n]=6&where={}&when=2026-02-28&other=x";
    assert_eq!(ask("7", good, &[("x-ids", "1, 2"), ("cookie", "a=b; session=abc")]), "");
    for (path, query, headers, said) in [
        ("x", "", &[][..], "path.id: must be a number"),
        ("1.5", "", &[], "path.id: the value is not of type \"integer\""),
        ("1", "limit=11", &[], "query.limit: the value is greater than the maximum of 10"),
        ("1", "limit=", &[], "query.limit: must be a number"),
        ("1", "limit=1&limit=2", &[], "query.limit: is given 2 times"),
        ("1", "on=yes", &[], "query.on: must be true or false"),
        ("1", "many=1&many=x", &[], "query.many/1: must be a number"),
        ("1", "many=1&many=2&many=3&many=4", &[], "query.many: the value has more than 3 items"),
        ("1", "list=1,x", &[], "query.list/1: must be a number"),
        ("1", "filter[n]=x", &[], "query.filter/n: must be a number"),
        ("1", "filter[m]=1", &[], "query.filter/m: is not known"),
        ("1", "where=x", &[], "query.where: must be JSON"),
        ("1", "when=2026-02-30", &[], "query.when: the value is not a \"date\""),
        ("1", "", &[("x-ids", "1, b")], "header.x-ids/1: must be a number"),
        ("1", "", &[("cookie", "session=xyz")], "cookie.session: the value does not match"),
    ] {
        let told = ask(path, query, headers);
        assert!(told.starts_with("400 ") && told.contains(said), "{path} {query} {headers:?}: {told}");
    }
    assert_eq!(told(&rules, &["1"], "", &[], ""), "400 header.x-trace: is missing");
}

#[test]
fn media_types_are_matched_the_closest_first_and_others_pass_unread() {
    let schema = json!({"schema": {"type": "object"}});
    let rules = rules(
        "/a",
        json!({"requestBody": {"content": {
            "application/json": schema, "application/*": {}, "image/png": schema, "application/merge-patch+json": {"schema": {"type": "array"}},
        }}}),
    );
    let ask = |media: &str, body: &str| told(&rules, &[], "", &[("content-type", media)], body);
    assert_eq!(ask("Application/JSON", "{}"), "");
    assert!(ask("application/json", "[]").starts_with("400"));
    assert_eq!(ask("application/merge-patch+json", "[]"), "");
    assert_eq!(ask("application/pdf", "%PDF"), "");
    assert_eq!(ask("image/png", "not json"), "");
    assert!(ask("text/plain", "x").starts_with("415"));
    assert_eq!(told(&rules, &[], "", &[], ""), "", "it need not have a body");
}

#[test]
fn a_body_that_would_take_too_long_is_refused_before_it_does() {
    let body = json!({"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}}});
    let rules = rules("/a", json!({"requestBody": body}));
    let nested = |word: &str, levels: usize| {
        format!("{}{}", format!("{{\"{word}\":[").repeat(levels), "]}".repeat(levels))
    };
    assert_eq!(told(&rules, &[], "", &JSON, &nested("or", 8)), "");
    let told = told(&rules, &[], "", &JSON, &nested("or", 50));
    assert!(told.starts_with("413 body: has too many values"), "{told}");
    assert_eq!(ErrorCode::TooLarge.status(), 413);
}

#[test]
fn an_operation_that_asks_for_nothing_has_no_rules() {
    let document = json!({"paths": {
        "/a": {"get": {}, "post": {"requestBody": {}, "x-davit": {"validate": false}}, "parameters": []},
    }});
    assert!(Rules::of(&document, "GET /a").unwrap().is_none() && !super::asks(&document, "GET /a"));
    assert!(Rules::of(&document, "POST /a").unwrap().is_none() && !super::asks(&document, "POST /a"));
    assert!(Rules::of(&document, "PUT /a").is_err());
}
