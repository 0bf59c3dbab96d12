//! What the door answers to senders of webhooks, with no registry behind it: everything up to the acceptance is known
//! from the snapshot.

use davit_api::{SourceId, SourceSpec, Verification, WebhookSource};
use davit_registry::SourceRow;

use super::*;

const HOOK: &str = "/v1/namespaces/shop/sources";

fn source(name: &str, verify: Verification, version: &LiveVersion) -> SourceRow {
    let secret = (verify != Verification::None).then(|| "hook".parse().unwrap());
    SourceRow {
        id: SourceId::new(),
        namespace: version.namespace.clone(),
        name: name.parse().unwrap(),
        function_id: version.function_id,
        secret: secret.as_ref().map(|_| "t0ken".into()),
        spec: SourceSpec::Webhook(WebhookSource::new(verify, secret)),
        paused: false,
    }
}

impl Door {
    async fn deliver(&self, source: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        let head =
            format!("POST {HOOK}/{source}/hook HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{headers}");
        self.raw(format!("{head}\r\n{body}").as_bytes()).await
    }
}

#[tokio::test]
async fn senders_are_told_what_is_wrong_and_nothing_that_helps_a_forger() {
    let v = version(|_| {});
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    let paused = SourceRow { paused: true, ..source("paused", Verification::None, &v) };
    let bare = SourceRow { secret: None, ..source("bare", Verification::Github, &v) };
    let orphan =
        SourceRow { function_id: davit_api::FunctionId::new(), ..source("orphan", Verification::None, &v) };
    let sources = vec![
        source("github", Verification::Github, &v),
        source("bearer", Verification::Bearer, &v),
        source("open", Verification::None, &v),
        paused,
        bare,
        orphan,
    ];
    door.routes.store(Table::build(vec![v.clone()], HashMap::new()).with_sources(sources));
    let told = async |name: &str, headers: &str, text: &str| {
        let answer = door.deliver(name, headers, text).await;
        (status(&answer), body(&answer)["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(told("none", "", "{}").await.0, 404);
    assert_eq!(told("github", "", "{}").await, (401, "x-hub-signature-256: is missing".into()));
    let forged = format!("x-hub-signature-256: sha256={}\r\n", "0".repeat(64));
    assert_eq!(told("github", &forged, "{}").await, (401, "x-hub-signature-256: does not match".into()));
    let wrong = "authorization: Bearer dvt_shop\r\n";
    assert_eq!(told("bearer", wrong, "{}").await, (401, "authorization: does not match".into()));
    assert_eq!(told("bare", &forged, "{}").await.0, 503, "without its secret nobody gets in");
    assert_eq!(told("orphan", "", "{}").await.0, 503, "a function that is not live yet may be soon");
    let large = "x".repeat(1024 * 1024 + 1);
    assert_eq!(told("open", "", &large).await.0, 413);
    let answer = door.deliver("paused", "", "{}").await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("retry-after: 60\r\n"), "{answer}");
    // With no registry, a promise cannot be made, and is not.
    for (name, headers) in [("open", ""), ("bearer", "authorization: Bearer t0ken\r\n")] {
        assert_eq!(told(name, headers, "{}").await.0, 503, "{name}");
    }
    let get = door.get(&format!("{HOOK}/github/hook"), "").await;
    assert_eq!(status(&get), 405);
    assert!(get.contains("allow: POST\r\n"), "{get}");
    assert_eq!(status(&door.get(&format!("{HOOK}/github"), "").await), 404);
}
