//! Aliases, canaries, comparisons and retention as a client sees them, and what is refused by which name.

use davit_api::{ErrorCode, Role};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Api, archive};

const FUNCTION: &str = "/v1/namespaces/own/functions/f";

/// Uploads an archive with one file of that name and deploys it, as far as `ready`.
async fn deploy(api: &Api, token: &str, file: &str, more: Value, ready: bool) -> Value {
    let (bytes, digest) = archive(file);
    let uploaded = api.call(token, "put", &format!("/v1/namespaces/own/artifacts/{digest}"), bytes).await;
    assert_eq!(uploaded.status, StatusCode::OK, "{uploaded:?}");
    let mut new = json!({"source": digest, "spec": {
        "runtime": "python3.13", "kind": "handler", "handler": "app.handler", "memory_mb": 256, "cpu_millis": 1000,
        "timeout_seconds": 30, "concurrency": 1, "max_instances": 10, "ephemeral_mb": 512, "keep_alive_seconds": 60,
    }});
    new.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let accepted = api.json(token, "post", &format!("{FUNCTION}/versions"), &new).await;
    assert!(accepted.status.is_success(), "{accepted:?}");
    let accepted = accepted.json();
    if ready && accepted["unchanged"] == json!(false) {
        let job = api.registry.claim_build(uuid::Uuid::new_v4()).await.unwrap().unwrap();
        api.registry.finish_build(job.version_id, job.source, 1, "sha256:1").await.unwrap();
        api.registry.version_ready_and_live(job.version_id).await.unwrap();
    }
    accepted
}

#[tokio::test]
async fn a_client_names_versions_shifts_calls_and_compares() {
    let api = Api::start().await;
    let token = api.token(Role::Deploy, Some("own")).await;
    deploy(&api, &token, "app.py", json!({"description": "first"}), true).await;
    deploy(&api, &token, "main.py", json!({"rollout": {"alias": "beta"}}), true).await;
    deploy(&api, &token, "other.py", json!({"rollout": "hold"}), true).await;
    let get = async |path: &str| api.call(&token, "get", &format!("{FUNCTION}{path}"), "").await.json();
    let names: Vec<_> = get("/aliases").await.as_array().unwrap().iter().map(|a| a["name"].clone()).collect();
    assert_eq!(names, ["beta", "live"]);
    assert_eq!(get("/versions/1").await["description"], "first");

    let again = deploy(&api, &token, "main.py", json!({"rollout": "hold"}), true).await;
    assert_eq!((&again["unchanged"], &again["number"]), (&json!(true), &json!(2)));

    let split = json!({"versions": [{"version": 1, "weight": 90}, {"version": 2, "weight": 10}], "sticky": "header:X-User"});
    let set = api.json(&token, "put", &format!("{FUNCTION}/aliases/live"), &split).await.json();
    assert_eq!((&set["versions"], &set["sticky"]), (&split["versions"], &json!("header:x-user")), "{set}");
    let promoted = api.json(&token, "post", &format!("{FUNCTION}/promote"), &json!({"version": 1})).await;
    assert_eq!(promoted.json()["aliases"], json!([{"alias": "live", "weight": 100}]), "{promoted:?}");

    let canary = json!({"version": "beta", "canary": {"steps": [5, 50], "max_latency": "p95:1.2x"}});
    let begun = api.json(&token, "post", &format!("{FUNCTION}/promote"), &canary).await;
    assert_eq!(begun.status, StatusCode::OK, "{begun:?}");
    assert_eq!(get("/canaries").await[0]["state"], "running");
    assert_eq!(get("").await["canary"]["spec"]["min_calls"], 50);
    let ended = api.call(&token, "post", &format!("{FUNCTION}/canaries/abort"), "").await.json();
    assert_eq!((&ended["state"], &ended["base"]), (&json!("aborted"), &json!(1)), "{ended}");

    let diff = get("/diff?from=1&to=2&lines=true").await;
    let paths: Vec<_> = diff["files"].as_array().unwrap().iter().map(|f| f["path"].clone()).collect();
    assert_eq!((paths, &diff["settings"]), (vec![json!("app.py"), json!("main.py")], &json!([])), "{diff}");
    assert!(diff["files"][0]["diff"].as_str().unwrap().contains("-x = 1"), "{diff}");

    let kept =
        api.json(&token, "put", &format!("{FUNCTION}/retention"), &json!({"versions": 1})).await.json();
    assert_eq!((&kept["versions"], &kept["days"]), (&json!(1), &json!(0)));
    let path = "/v1/namespaces/own/retention";
    assert_eq!(api.json(&token, "put", path, &json!({"days": 3})).await.status, StatusCode::FORBIDDEN);
    let gone = api.call(&token, "delete", &format!("{FUNCTION}/versions/3"), "").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{gone:?}");
    assert_eq!(api.registry.collect_versions().await.unwrap(), 0, "what is left is in use");
    let gone = api.call(&token, "delete", &format!("{FUNCTION}/aliases/beta"), "").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{gone:?}");
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_its_name_and_changes_nothing() {
    let api = Api::start().await;
    let token = api.token(Role::Deploy, Some("own")).await;
    deploy(&api, &token, "app.py", json!({}), true).await;
    deploy(&api, &token, "main.py", json!({}), true).await;
    deploy(&api, &token, "other.py", json!({}), false).await;
    let before = api.call(&token, "get", FUNCTION, "").await.json();
    let one = |version: u32, weight: u32| json!({"version": version, "weight": weight});
    use ErrorCode::{Conflict, InvalidRequest, NotFound};
    for (verb, path, body, code, says) in [
        (
            "put",
            "/aliases/beta",
            json!({"versions": [one(1, 99)]}),
            InvalidRequest,
            "versions: the weights are 99",
        ),
        ("put", "/aliases/beta", json!({"versions": []}), InvalidRequest, "versions: 1 to 10"),
        (
            "put",
            "/aliases/beta",
            json!({"versions": [one(1, 100), one(2, 0)]}),
            InvalidRequest,
            "versions[1].weight:",
        ),
        (
            "put",
            "/aliases/beta",
            json!({"versions": [one(1, 50), one(9, 50)]}),
            NotFound,
            "versions[1].version:",
        ),
        (
            "put",
            "/aliases/beta",
            json!({"versions": [one(3, 100)]}),
            Conflict,
            "versions[0].version: version 3 is queued",
        ),
        (
            "put",
            "/aliases/beta",
            json!({"versions": [one(4_000_000_000, 100)]}),
            NotFound,
            "versions[0].version:",
        ),
        ("put", "/aliases/7", json!({"versions": [one(1, 100)]}), InvalidRequest, "alias: 7"),
        ("put", "/aliases/beta", json!({"versions": [one(1, 100)], "sticky": "ip"}), InvalidRequest, "body:"),
        (
            "put",
            "/aliases/beta",
            json!({"versions": [one(1, 100)], "description": ""}),
            InvalidRequest,
            "description:",
        ),
        ("delete", "/aliases/live", json!({}), Conflict, "alias: live cannot"),
        ("delete", "/aliases/none", json!({}), NotFound, "there is no alias none"),
        ("post", "/promote", json!({"version": "9"}), NotFound, "there is no version 9"),
        ("post", "/promote", json!({"version": "3"}), Conflict, "version 3 is queued"),
        (
            "post",
            "/promote",
            json!({"version": "1", "canary": {"steps": [5, 5]}}),
            InvalidRequest,
            "canary.steps:",
        ),
        (
            "post",
            "/promote",
            json!({"version": "1", "canary": {"steps": [5], "max_latency": "fast"}}),
            InvalidRequest,
            "body:",
        ),
        (
            "post",
            "/promote",
            json!({"version": "2", "canary": {"steps": [5]}}),
            Conflict,
            "version: it is live already",
        ),
        ("post", "/canaries/abort", json!({}), Conflict, "canary: none"),
        ("post", "/rollback", json!({"to": 3}), Conflict, "version 3 is queued"),
        ("put", "/retention", json!({"versions": 0}), InvalidRequest, "versions: 1 to 1000"),
        ("delete", "/versions/2", json!({}), Conflict, "version 2 is in use: the alias live"),
        ("delete", "/versions/3", json!({}), Conflict, "version 3 is in use: it is being built"),
        ("delete", "/versions/9", json!({}), NotFound, "there is no version"),
        ("get", "/diff?from=1&to=9", json!({}), NotFound, "there is no version"),
        ("get", "/diff?from=1", json!({}), InvalidRequest, "query"),
    ] {
        let answer = api.json(&token, verb, &format!("{FUNCTION}{path}"), &body).await.error();
        assert_eq!(answer.code, code, "{verb} {path} {body}: {}", answer.message);
        assert!(answer.message.starts_with(says), "{verb} {path} {body}: {}", answer.message);
    }
    assert_eq!(api.call(&token, "get", FUNCTION, "").await.json(), before);
}
