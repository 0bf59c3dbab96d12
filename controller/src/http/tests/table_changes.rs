//! Sources of table changes over a user's own Postgres: made whole or not at all, and taken away again.

use davit_api::{ErrorCode, Role};
use davit_outbox::testing::{Client, PASSWORD, UserDatabase};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Api, archive};

const SOURCES: &str = "/v1/namespaces/own/sources";

struct Story {
    api: Api,
    admin: String,
    theirs: UserDatabase,
    user: Client,
}

impl Story {
    async fn new() -> Self {
        let api = Api::start().await;
        let admin = api.token(Role::Admin, None).await;
        let (bytes, digest) = archive("app.py");
        api.call(&admin, "put", &format!("/v1/namespaces/own/artifacts/{digest}"), bytes).await;
        let spec = json!({
            "runtime": "python3.13", "kind": "handler", "handler": "app.handler", "memory_mb": 256, "cpu_millis": 1000,
            "timeout_seconds": 30, "concurrency": 1, "max_instances": 10, "ephemeral_mb": 512, "keep_alive_seconds": 60,
        });
        let made = api
            .json(
                &admin,
                "post",
                "/v1/namespaces/own/functions/f/versions",
                &json!({"spec": spec, "source": digest}),
            )
            .await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        let theirs = UserDatabase::new().await;
        let user = theirs.client().await;
        user.run("create table orders (id int primary key, item text)").await;
        let story = Self { api, admin, theirs, user };
        story.set("db", &story.theirs.url("owner")).await;
        story
    }

    async fn set(&self, secret: &str, value: &str) {
        let path = format!("/v1/namespaces/own/secrets/{secret}");
        let set = self.api.json(&self.admin, "put", &path, &json!({ "value": value })).await;
        assert_eq!(set.status, StatusCode::NO_CONTENT, "{set:?}");
    }

    async fn create(&self, name: &str, more: Value) -> super::Answer {
        let mut spec = json!({"kind": "postgres", "secret": "db", "table": "public.orders"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let new = json!({"name": name, "function": "f", "spec": spec});
        self.api.json(&self.admin, "post", SOURCES, &new).await
    }

    async fn call(&self, verb: &str, path: &str) -> super::Answer {
        self.api.call(&self.admin, verb, &format!("{SOURCES}{path}"), "").await
    }

    /// Triggers and tables of davit's in the user's database.
    async fn installed(&self) -> Vec<String> {
        let question = "select (select count(*) from pg_trigger where tgname like 'davit%')
            || ' ' || (select count(*) from pg_tables where schemaname = 'davit_source')";
        self.user.ask(question).await
    }
}

#[tokio::test]
async fn a_source_is_made_with_its_outbox_and_goes_with_it() {
    let story = Story::new().await;
    let made = story.create("orders", json!({})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.json()["status"]["state"], "unheld");
    assert_eq!((&made.json()["path"], &made.json()["spec"]["batch"]), (&json!(null), &json!(100)));
    assert_eq!(story.installed().await, ["2 2"]);
    let again = story.create("orders", json!({})).await;
    assert_eq!(again.error().code, ErrorCode::Conflict);
    assert_eq!(story.installed().await, ["2 2"], "what was refused left nothing");
    let function = "/v1/namespaces/own/functions/f";
    let refused = story.api.call(&story.admin, "delete", function, "").await.error();
    assert!(refused.code == ErrorCode::Conflict && refused.message.contains("source orders"), "{refused:?}");

    story.theirs.close().await;
    let refused = story.call("delete", "/orders").await.error();
    assert_eq!(refused.code, ErrorCode::Unprocessable);
    for word in ["the source is still there", "davit source sql orders --remove", "leave_outbox=true"] {
        assert!(refused.message.contains(word), "{}", refused.message);
    }
    assert_eq!(story.call("get", "/orders").await.status, StatusCode::OK);
    story.theirs.open().await;
    let story = Story { user: story.theirs.client().await, ..story };
    assert_eq!(story.call("delete", "/orders?left=true").await.error().code, ErrorCode::InvalidRequest);
    assert_eq!(story.call("delete", "/orders").await.status, StatusCode::NO_CONTENT);
    assert_eq!(story.installed().await, ["0 0"]);
}

#[tokio::test]
async fn by_hand_nothing_is_touched_and_the_statements_are_to_be_had() {
    let story = Story::new().await;
    story.set("db", "postgres://nobody:x@db.invalid/none").await;
    let made = story.create("orders", json!({"manual": true, "events": ["insert"]})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let sql = story.call("get", "/orders/sql").await.json();
    story.user.run(sql["install"].as_str().unwrap()).await;
    assert_eq!(story.installed().await, ["1 2"]);
    story.user.run(sql["remove"].as_str().unwrap()).await;
    assert_eq!(story.installed().await, ["0 0"]);
    assert_eq!(story.call("delete", "/orders").await.status, StatusCode::NO_CONTENT, "nor when it goes");

    assert_eq!(story.create("orders", json!({})).await.error().code, ErrorCode::Unprocessable);
    let kept = story.create("orders", json!({"manual": true})).await;
    assert_eq!(kept.status, StatusCode::CREATED);
    assert_eq!(story.call("delete", "/orders?leave_outbox=true").await.status, StatusCode::NO_CONTENT);

    let hook = json!({"name": "hook", "function": "f", "spec": {"kind": "webhook", "verify": "none"}});
    story.api.json(&story.admin, "post", SOURCES, &hook).await;
    assert_eq!(story.call("get", "/hook/sql").await.error().code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn whatever_is_wrong_is_refused_by_the_name_of_its_field() {
    let story = Story::new().await;
    story.theirs.add_user("weak").await;
    let url = story.theirs.url("owner");
    for (secret, value) in [
        ("odd", "mysql://u:hunter2@h/d".to_owned()),
        ("socket", "postgres://u:hunter2@h/d?host=/run/postgresql".to_owned()),
        ("private", "postgres://u:hunter2@10.0.0.1/d".to_owned()),
        ("closed", "postgres://u:hunter2@127.0.0.1:1/d".to_owned()),
        ("stranger", url.replace("owner", "stranger")),
        ("weak", story.theirs.url("weak")),
    ] {
        story.set(secret, &value).await;
    }
    use ErrorCode::{InvalidRequest, Unprocessable};
    for (more, code, why) in [
        (json!({"secret": "none"}), InvalidRequest, "secret: there is none named none"),
        (json!({"secret": "odd"}), InvalidRequest, "secret: the secret's value is not an address"),
        (
            json!({"secret": "socket"}),
            InvalidRequest,
            "secret: the secret's value has a parameter other than",
        ),
        (
            json!({"secret": "private"}),
            InvalidRequest,
            "secret: 10.0.0.1 is not an address of the public internet",
        ),
        (json!({"secret": "closed"}), Unprocessable, "secret: the database cannot be reached: "),
        (
            json!({"secret": "stranger"}),
            Unprocessable,
            "secret: the database refuses: password authentication failed",
        ),
        (json!({"secret": "weak"}), Unprocessable, "secret: the database user lacks a right: "),
        (json!({"table": "public.nothing"}), InvalidRequest, "table: there is no table public.nothing"),
        (json!({"table": "a.b.c"}), InvalidRequest, ""),
        (json!({"table": "orders\"; drop table orders"}), InvalidRequest, ""),
        (json!({"columns": ["id", "colour"]}), InvalidRequest, "columns: public.orders has no column colour"),
        (json!({"events": []}), InvalidRequest, "events: "),
        (json!({"events": ["select"]}), InvalidRequest, ""),
        (json!({"batch": 0}), InvalidRequest, "batch: must be 1 to 1000"),
        (json!({"unknown": 1}), InvalidRequest, ""),
    ] {
        let answer = story.create("orders", more.clone()).await;
        let error = answer.error();
        assert_eq!(error.code, code, "{more}: {error:?}");
        assert!(error.message.starts_with(why), "{more}: {}", error.message);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!text.contains("hunter2") && !text.contains(PASSWORD), "{text}");
    }
    assert_eq!(story.installed().await, ["0 0"]);
    assert_eq!(story.call("get", "").await.json(), json!([]));
    assert_eq!(story.user.ask("select count(*) from orders").await, ["0"]);
}
