//! Every route × every role × own, foreign and no namespace, generated from the route table: a route that
//! is added without thinking about this is covered all the same.

use davit_api::Role;
use http::StatusCode;
use serde_json::{Value, json};

use super::super::{ROUTES, Route};
use super::{Api, request};
use crate::auth::Reach;

fn path(route: &Route) -> String {
    route
        .path
        .replace("{ns}", "own")
        .replace("{fn}", "f")
        .replace("{n}", "1")
        .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
        .replace("{schedule}", "s")
        .replace("{secret}", "s")
        .replace("{topic}", "made")
        .replace("{subscription}", "s")
        .replace("{source}", "s")
        .replace("{project}", "s")
        .replace("{alias}", "beta")
        .replace("{id}", "01890000-0000-7000-8000-000000000000")
}

/// A body that the route would carry out, so that a hole in the checks would show as an effect.
fn body(route: &Route) -> Value {
    match route.name {
        "namespaces.create" => json!({"name": "made"}),
        "secrets.set" | "secrets.compare" => json!({"value": "x"}),
        "projects.put" => json!({"objects": ["topic/made"]}),
        "tokens.create" => json!({"description": "made", "role": "read", "namespace": "own"}),
        "sources.create" => {
            json!({"name": "s", "function": "f", "spec": {"kind": "webhook", "verify": "none"}})
        }
        "schedules.preview" => json!({"cron": "* * * * *"}),
        "schedules.add" => json!({"name": "s", "spec": {"cron": "* * * * *"}}),
        "aliases.set" => json!({"versions": [{"version": 1, "weight": 100}]}),
        "versions.promote" => json!({"version": "1"}),
        "topics.create" => json!({"name": "made"}),
        "topics.subscribe" => json!({"name": "s", "to": {"webhook": {"url": "https://example.com/"}}}),
        "topics.replay" => json!({"from": "2020-01-01T00:00:00Z"}),
        _ => json!({}),
    }
}

/// What a refused write could have changed.
async fn world(api: &Api) -> Value {
    let own = "own".parse().unwrap();
    let secrets = api.registry.list_secrets(&own).await.unwrap().len();
    let tokens = api.registry.list_tokens(None).await.unwrap();
    let revoked = tokens.iter().filter(|t| t.revoked_at.is_some()).count();
    let functions = api.registry.list_functions(&own, &Default::default(), 100).await.unwrap().items.len();
    let topics = api.registry.list_topics(&own).await.unwrap();
    let projects = api.registry.list_projects(&own).await.unwrap().len();
    json!([
        api.registry.list_namespaces().await.unwrap(),
        secrets,
        tokens.len(),
        revoked,
        functions,
        topics,
        projects
    ])
}

#[tokio::test]
async fn without_a_good_token_every_route_answers_401() {
    let api = Api::start().await;
    let before = world(&api).await;
    let entries = api.registry.list_audit(None, None, 1_000).await.unwrap();
    for route in ROUTES {
        for token in [None, Some("dvt_wrong"), Some("' or 1=1"), Some("")] {
            let answer = api.send(request(token, route.verb, &path(route), body(route).to_string())).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{} with {token:?}", route.name);
            answer.error();
        }
    }
    assert_eq!(world(&api).await, before);
    let after = api.registry.list_audit(None, None, 1_000).await.unwrap();
    assert_eq!(after, entries, "strangers cannot fill the audit log");
}

#[tokio::test]
async fn a_token_reaches_what_its_role_and_namespace_say_and_no_more() {
    let api = Api::start().await;
    let roles = [Role::Read, Role::Invoke, Role::Deploy, Role::Admin];
    for scope in [None, Some("own"), Some("other")] {
        for role in roles {
            let token = api.token(role, scope).await;
            for route in ROUTES {
                let in_reach = match (route.reach, scope) {
                    (_, None) | (Reach::Own, _) => true,
                    (Reach::Namespace, Some(namespace)) => namespace == "own",
                    (Reach::Installation, Some(_)) => false,
                };
                // Its body names the namespace `own`.
                let foreign_body = route.name == "tokens.create" && scope == Some("other");
                let allowed = in_reach && role >= route.role && !foreign_body;
                let case = format!("{} as {role} of {scope:?}", route.name);
                let before = world(&api).await;
                let entries = api.registry.list_audit(None, None, 1).await.unwrap();
                let answer = api.json(&token, route.verb, &path(route), &body(route)).await;
                assert!(answer.status.as_u16() < 500, "{case}: {answer:?}");
                assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{case}");
                assert_eq!(answer.status != StatusCode::FORBIDDEN, allowed, "{case}: {answer:?}");
                if !allowed {
                    answer.error();
                    assert_eq!(world(&api).await, before, "{case} had an effect");
                }
                if route.writes() {
                    let written = api.registry.list_audit(None, None, 2).await.unwrap();
                    assert_eq!(written[1], entries[0], "{case}: one entry, no more");
                    let last = &written[0];
                    assert_eq!(last.action, route.name, "{case}");
                    assert_eq!(last.outcome == "forbidden", !allowed, "{case}: {last:?}");
                    assert_eq!(
                        last.actor,
                        format!(
                            "{role} of {:?}",
                            scope.map(|s| s.parse::<davit_api::NamespaceName>().unwrap())
                        )
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_revoked_or_expired_token_is_no_token() {
    let api = Api::start().await;
    let admin = api.token(Role::Admin, None).await;
    let made =
        api.json(&admin, "post", "/v1/tokens", &json!({"description": "short", "role": "read"})).await.json();
    let (token, id) = (made["token"].as_str().unwrap(), made["view"]["id"].as_str().unwrap());
    assert_eq!(api.call(token, "get", "/v1/info", "").await.status, StatusCode::OK);
    assert_eq!(
        api.call(&admin, "delete", &format!("/v1/tokens/{id}"), "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(api.call(token, "get", "/v1/info", "").await.status, StatusCode::UNAUTHORIZED);
    let past = json!({"description": "late", "role": "read", "expires_at": "2020-01-01T00:00:00Z"});
    assert_eq!(api.json(&admin, "post", "/v1/tokens", &past).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_admin_of_one_namespace_neither_sees_nor_revokes_others_tokens() {
    let api = Api::start().await;
    let own = api.token(Role::Admin, Some("own")).await;
    let other = api.token(Role::Admin, Some("other")).await;
    let seen = api.call(&own, "get", "/v1/tokens", "").await.json();
    assert!(seen.as_array().unwrap().iter().all(|t| t["namespace"] == "own"), "{seen}");
    let theirs = api.call(&other, "get", "/v1/tokens", "").await.json();
    let id = theirs[0]["id"].as_str().unwrap();
    assert_eq!(api.call(&own, "delete", &format!("/v1/tokens/{id}"), "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.call(&other, "get", "/v1/info", "").await.status, StatusCode::OK);
    for wider in [json!(null), json!("other")] {
        let new = json!({"description": "wider", "role": "read", "namespace": wider});
        assert_eq!(api.json(&own, "post", "/v1/tokens", &new).await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(api.call(&own, "get", "/v1/namespaces", "").await.json(), json!(["own"]));
}
