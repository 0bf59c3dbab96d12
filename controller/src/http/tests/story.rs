//! One deployment as a client sees it.

use axum::body::Body;
use davit_api::Role;
use http::StatusCode;
use serde_json::json;

use super::{Api, archive};

#[tokio::test]
async fn a_client_deploys_and_looks_after_a_function() {
    let api = Api::start().await;
    let token = api.token(Role::Deploy, Some("own")).await;
    let info = api.call(&token, "get", "/v1/info", "").await.json();
    assert_eq!((&info["gateway_url"], &info["namespace"]), (&json!("http://127.0.0.1:7480"), &json!("own")));

    let (bytes, digest) = archive("app.py");
    let uploaded =
        api.call(&token, "put", &format!("/v1/namespaces/own/artifacts/{digest}"), bytes.clone()).await;
    assert_eq!(uploaded.json(), json!({"digest": digest, "files": 1, "bytes": 6}), "{uploaded:?}");
    let stored = api.registry.open_artifact(digest.parse().unwrap()).await.unwrap().read_all().await.unwrap();
    assert_eq!(stored, bytes);

    let set = api.json(&token, "put", "/v1/namespaces/own/secrets/db", &json!({"value": "s3cret"})).await;
    assert_eq!(set.status, StatusCode::NO_CONTENT);
    let listed = api.call(&token, "get", "/v1/namespaces/own/secrets", "").await;
    assert_eq!(listed.json()[0]["name"], "db");
    assert!(!String::from_utf8_lossy(&listed.body).contains("s3cret"));

    let mut spec = json!({
        "runtime": "python3.13", "kind": "handler", "handler": "app.handler", "memory_mb": 256, "cpu_millis": 1000,
        "timeout_seconds": 30, "concurrency": 1, "max_instances": 10, "ephemeral_mb": 512, "keep_alive_seconds": 60,
        "secrets": {"DB": "missing"},
    });
    let versions = "/v1/namespaces/own/functions/hello/versions";
    let new = |spec: &serde_json::Value| json!({"spec": spec, "source": digest, "schedules": {"nightly": {"cron": "0 3 * * *"}}});
    assert_eq!(
        api.json(&token, "post", versions, &new(&spec)).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    spec["secrets"]["DB"] = json!("db");
    spec["secret_files"] = json!({"db.txt": "missing"});
    let refused = api.json(&token, "post", versions, &new(&spec)).await;
    assert_eq!(
        (refused.status, refused.error().message.as_str()),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            "secret_files: db.txt wants the secret missing, which is not set: davit secret set missing"
        )
    );
    spec["secret_files"] = json!({"db.txt": "db"});
    let created = api.json(&token, "post", versions, &new(&spec)).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    assert_eq!((&created.json()["number"], &created.json()["state"]), (&json!(1), &json!("queued")));

    let functions = "/v1/namespaces/own/functions";
    let found = async |tail: &str| {
        let page = api.call(&token, "get", &format!("{functions}{tail}"), "").await.json();
        let names: Vec<_> = page["items"].as_array().unwrap().iter().map(|f| f["name"].clone()).collect();
        (names, page["next"].clone())
    };
    let second = api.json(&token, "post", &versions.replace("hello", "help"), &new(&spec)).await;
    assert_eq!(second.status, StatusCode::CREATED, "{second:?}");
    assert_eq!(found("").await, (vec![json!("hello"), json!("help")], json!(null)));
    assert_eq!(found("?limit=1").await, (vec![json!("hello")], json!("hello")));
    assert_eq!(found("?limit=1&after=hello").await, (vec![json!("help")], json!(null)));
    assert_eq!(found("?search=elp").await, (vec![json!("help")], json!(null)));
    assert_eq!(found("?runtime=python3.13").await, (vec![], json!(null)), "nothing is live yet");
    let page = api.call(&token, "get", &format!("{versions}?limit=1"), "").await.json();
    assert_eq!((&page["items"][0]["number"], &page["next"]), (&json!(1), &json!(null)));

    let events = api.call(&token, "get", &format!("{versions}/1/events"), "").await.json();
    assert_eq!(events[0]["state"], "queued");
    let cursor = &events[0]["cursor"];
    let started = std::time::Instant::now();
    let none =
        api.call(&token, "get", &format!("{versions}/1/events?after={cursor}&wait=1"), "").await.json();
    assert_eq!((none, started.elapsed().as_secs()), (json!([]), 1));

    let schedules = "/v1/namespaces/own/functions/hello/schedules";
    let added = json!({"name": "hourly", "spec": {"cron": "0 * * * *", "timezone": "Europe/Berlin"}});
    let first = api.json(&token, "post", schedules, &added).await;
    assert_eq!(first.status, StatusCode::CREATED);
    // No gateway has seen it, and none would compute it for a function that is not live.
    assert!(first.json()["next_due_at"].is_string(), "{first:?}");
    let listed = api.call(&token, "get", schedules, "").await.json();
    assert!(listed[0]["next_due_at"].is_string(), "{listed}");
    assert_eq!(api.json(&token, "post", schedules, &added).await.status, StatusCode::CONFLICT);
    let paused = api.call(&token, "post", &format!("{schedules}/hourly/pause"), "").await.json();
    assert_eq!(paused["spec"]["enabled"], json!(false), "{paused}");
    assert!(paused["next_due_at"].is_null(), "{paused}");
    let resumed = api.call(&token, "post", &format!("{schedules}/hourly/resume"), "").await.json();
    assert!(resumed["next_due_at"].is_string(), "{resumed}");
    assert_eq!(api.call(&token, "get", &format!("{schedules}/hourly/fires"), "").await.json(), json!([]));
    let hourly = format!("{schedules}/hourly");
    let edited =
        api.json(&token, "patch", &hourly, &json!({"every": "2h", "payload": {"n": 1}})).await.json();
    assert_eq!((&edited["spec"]["every"], &edited["spec"]["cron"]), (&json!("2h"), &json!(null)), "{edited}");
    let made: chrono::DateTime<chrono::Utc> = edited["created_at"].as_str().unwrap().parse().unwrap();
    let next: chrono::DateTime<chrono::Utc> = edited["next_due_at"].as_str().unwrap().parse().unwrap();
    assert_eq!((next - made).num_minutes(), 119, "counted from when it was made, to the second");
    let refused = api.json(&token, "patch", &hourly, &json!({"every": null})).await;
    assert!(refused.error().message.starts_with("cron: give exactly one"), "{refused:?}");
    let nobody = api.json(&token, "patch", &format!("{schedules}/other"), &json!({})).await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    let all = api.call(&token, "get", "/v1/namespaces/own/schedules", "").await.json();
    let first = &all["items"][0];
    assert_eq!((&first["function"], &first["name"]), (&json!("hello"), &json!("hourly")));
    let rest = api.call(&token, "get", "/v1/namespaces/own/schedules?after=hello/hourly", "").await.json();
    assert_eq!(rest, json!({"items": []}));
    // Nothing is live yet, so there is nothing to run.
    assert_eq!(
        api.call(&token, "post", &format!("{schedules}/hourly/run"), "").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        api.call(&token, "delete", &format!("{schedules}/hourly"), "").await.status,
        StatusCode::NO_CONTENT
    );

    for list in ["logs", "invocations", "versions", "schedules"] {
        let answer = api.call(&token, "get", &format!("/v1/namespaces/own/functions/hello/{list}"), "").await;
        assert_eq!(answer.status, StatusCode::OK, "{list}: {answer:?}");
    }
    let preview = json!({"cron": "30 2 * * *", "timezone": "Europe/Berlin", "count": 3});
    let fires = api.json(&token, "post", "/v1/schedules/preview", &preview).await.json();
    assert_eq!(fires["fires"].as_array().unwrap().len(), 3);
    let preview = json!({"every": "24h", "start": "2090-03-25T09:00", "timezone": "Europe/Berlin", "count": 3, "jitter": "5m"});
    let shown = api.json(&token, "post", "/v1/schedules/preview", &preview).await.json();
    let clocks: Vec<_> = shown["instants"].as_array().unwrap().iter().map(|i| i["clocks"].clone()).collect();
    assert_eq!(clocks, [json!(null), json!("clocks went forward 60 min since the one before"), json!(null)]);
    assert_eq!(shown["instants"][1]["local"], "2090-03-26T10:00:00+02:00");
    assert_eq!(shown["instants"][1]["rings_before"], "2090-03-26T08:05:00Z");

    assert_eq!(
        api.call(&token, "delete", "/v1/namespaces/own/functions/hello", "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        api.call(&token, "get", "/v1/namespaces/own/functions/hello", "").await.status,
        StatusCode::NOT_FOUND
    );

    let admin = api.token(Role::Admin, Some("own")).await;
    let audit = api.call(&admin, "get", "/v1/audit?limit=1000", "").await;
    let entries: Vec<(String, String, String)> =
        serde_json::from_value::<Vec<davit_api::AuditView>>(audit.json())
            .unwrap()
            .into_iter()
            .rev()
            .map(|e| (e.action, e.object, e.outcome))
            .collect();
    let entry = |action: &str, object: &str, outcome: &str| (action.into(), object.into(), outcome.into());
    assert!(entries.contains(&entry("versions.create", "hello/1", "ok")), "{entries:?}");
    assert!(entries.contains(&entry("versions.create", "hello", "unprocessable")), "{entries:?}");
    assert!(entries.contains(&entry("schedules.add", "hello", "conflict")), "{entries:?}");
    assert!(entries.contains(&entry("secrets.set", "db", "ok")), "{entries:?}");
    assert!(!String::from_utf8_lossy(&audit.body).contains("s3cret"));
}

/// A schedule in force may come again with its next version, although its moment has passed; a new one may not.
#[tokio::test]
async fn a_moment_that_has_passed_does_not_keep_its_function_from_being_deployed() {
    let api = Api::start().await;
    let token = api.token(Role::Deploy, Some("own")).await;
    let (bytes, digest) = archive("app.py");
    api.call(&token, "put", &format!("/v1/namespaces/own/artifacts/{digest}"), bytes).await;
    let spec = json!({
        "runtime": "python3.13", "kind": "handler", "handler": "app.handler", "memory_mb": 256, "cpu_millis": 1000,
        "timeout_seconds": 30, "concurrency": 1, "max_instances": 10, "ephemeral_mb": 512,
    });
    let versions = "/v1/namespaces/own/functions/hello/versions";
    let moment = json!({"at": "2020-12-24T18:00"});
    let new = json!({"spec": spec, "source": digest, "schedules": {"party": moment}});
    assert_eq!(api.json(&token, "post", versions, &new).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let first = json!({"spec": spec, "source": digest});
    assert_eq!(api.json(&token, "post", versions, &first).await.status, StatusCode::CREATED);
    let (own, hello) = ("own".parse().unwrap(), "hello".parse().unwrap());
    let in_force: davit_api::ScheduleSpec = serde_json::from_value(moment).unwrap();
    let davit = api.registry.as_davit("test");
    davit.add_schedule(&own, &hello, &"party".parse().unwrap(), &in_force).await.unwrap();
    assert_eq!(api.json(&token, "post", versions, &new).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_client_that_hangs_up_stops_neither_the_write_nor_its_audit_entry() {
    let api = Api::start().await;
    let token = api.token(Role::Deploy, Some("own")).await;
    let (reached, waiting) = tokio::sync::oneshot::channel::<()>();
    let (release, gate) = tokio::sync::oneshot::channel::<()>();
    let body = futures_util::stream::once(async move {
        let _ = reached.send(());
        let _ = gate.await;
        Ok::<_, std::io::Error>(r#"{"value":"x"}"#)
    });
    let call = api.call(&token, "put", "/v1/namespaces/own/secrets/late", Body::from_stream(body));
    tokio::select! {
        answer = call => panic!("answered before the body was there: {answer:?}"),
        done = waiting => done.unwrap(),
    }
    // The call is dropped by now; the body arrives all the same.
    release.send(()).unwrap();
    let written = async {
        loop {
            let audit = api.registry.list_audit(None, None, 1).await.unwrap();
            if let Some(entry) = audit.into_iter().find(|entry| entry.action == "secrets.set") {
                break entry;
            }
            tokio::task::yield_now().await;
        }
    };
    let entry = tokio::time::timeout(std::time::Duration::from_secs(10), written).await.unwrap();
    assert_eq!(
        (entry.action.as_str(), entry.object.as_str(), entry.outcome.as_str()),
        ("secrets.set", "late", "ok")
    );
    assert_eq!(api.registry.list_secrets(&"own".parse().unwrap()).await.unwrap().len(), 1);
}
