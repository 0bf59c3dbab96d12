//! Deliveries to a real listener on this machine, which the guard must be told to allow.

use davit_api::{EventMode, InvocationId, InvocationSource, Lineage, RetryPolicy};
use davit_registry::ClaimedTarget;
use davit_registry::testing::TestDatabase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers each connection with the next of these, and gives back what it was sent.
async fn receiver(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut seen = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{\"n\":1}") {
                let mut chunk = [0; 4096];
                let read = stream.read(&mut chunk).await.unwrap();
                request.extend_from_slice(&chunk[..read]);
                assert!(read > 0, "broken off after {:?}", String::from_utf8_lossy(&request));
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            seen.push(String::from_utf8(request).unwrap().to_lowercase());
        }
        seen
    });
    (port, task)
}

fn answer(head: &str) -> String {
    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
}

fn job(hook: &Webhook) -> Job {
    Job {
        id: InvocationId::new(),
        attempt: 1,
        excused: 0,
        namespace: "shop".parse().unwrap(),
        target: ClaimedTarget::Webhook(hook.clone()),
        payload: b"{\"n\":1}".to_vec(),
        policy: RetryPolicy::default(),
        accepted_at: chrono::Utc::now(),
        age: Duration::ZERO,
        source: InvocationSource::Destination,
        lineage: Lineage::default(),
        has_consequences: false,
    }
}

struct World {
    db: TestDatabase,
    key: Arc<MasterKey>,
}

impl World {
    async fn new() -> Self {
        // A process has one; the binary installs it at its start.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let db = TestDatabase::new().await;
        let shop = "shop".parse().unwrap();
        db.registry().as_davit("test").ensure_namespace(&shop).await.unwrap();
        let key = Arc::new(MasterKey::from_bytes([7; 32]));
        let name = "hook".parse().unwrap();
        db.registry().as_davit("test").set_secret(&shop, &name, "s3cret", &key).await.unwrap();
        Self { db, key }
    }

    async fn send(&self, allowed: &str, url: &str, secret: Option<&str>) -> Result<Bytes, Failed> {
        let sender = Sender::new(allowed.parse().unwrap(), self.db.registry().clone(), self.key.clone());
        let hook = Webhook {
            url: url.into(),
            secret: secret.map(|s| s.parse().unwrap()),
            mode: EventMode::default(),
        };
        sender.send(&hook, &job(&hook)).await
    }
}

fn code(outcome: Result<Bytes, Failed>) -> ErrorCode {
    outcome.err().map(|failed| failed.error.error.code).unwrap()
}

const HERE: &str = "127.0.0.1";

#[tokio::test]
async fn a_delivery_is_signed_and_its_answer_is_the_result() {
    let world = World::new().await;
    let (port, seen) = receiver(vec![answer("200 OK")]).await;
    let url = format!("http://localhost:{port}/in?x=1");
    let result = world.send("127.0.0.1,::1", &url, Some("hook")).await.map_err(|f| f.error.error).unwrap();
    assert_eq!(result, "ok");
    let request = seen.await.unwrap().remove(0);
    assert!(request.starts_with("post /in?x=1 http/1.1\r\n"), "{request}");
    for header in
        ["content-type: application/json", "webhook-id: ", "webhook-timestamp: ", "webhook-signature: v1,"]
    {
        assert!(request.contains(header), "{header} in {request}");
    }
    assert!(!request.contains("s3cret"));
    let missing = world.send(HERE, &format!("http://127.0.0.1:{port}/"), Some("none")).await;
    assert_eq!(code(missing), ErrorCode::DeliveryFailed, "never unsigned");
}

#[tokio::test]
async fn inner_addresses_are_refused_written_out_by_name_and_after_a_redirect() {
    let world = World::new().await;
    for url in [
        "http://127.0.0.1:9/",
        "http://localhost:9/",
        "http://[::1]:9/",
        "http://169.254.169.254/latest",
        "http://2130706433/",
    ] {
        assert_eq!(code(world.send("", url, None).await), ErrorCode::DeliveryRefused, "{url}");
    }
    let away = answer("307 Temporary Redirect\r\nlocation: http://127.0.0.2:9/");
    let (port, seen) = receiver(vec![away]).await;
    let redirected = world.send(HERE, &format!("http://127.0.0.1:{port}/"), None).await;
    assert_eq!(code(redirected), ErrorCode::DeliveryRefused);
    assert_eq!(seen.await.unwrap().len(), 1);
}

#[tokio::test]
async fn redirects_that_keep_the_event_are_followed_and_others_are_failures() {
    let world = World::new().await;
    let (end, seen) = receiver(vec![answer("204 No Content")]).await;
    let (port, _first) =
        receiver(vec![answer(&format!("308 Permanent Redirect\r\nlocation: http://127.0.0.1:{end}/there"))])
            .await;
    assert!(world.send(HERE, &format!("http://127.0.0.1:{port}/"), None).await.is_ok());
    assert!(seen.await.unwrap()[0].starts_with("post /there "));
    let (port, _moved) = receiver(vec![answer("302 Found\r\nlocation: /elsewhere")]).await;
    let moved = world.send(HERE, &format!("http://127.0.0.1:{port}/"), None).await;
    assert_eq!(code(moved), ErrorCode::DeliveryFailed);
}

#[tokio::test]
async fn failures_say_when_to_come_back_or_that_there_is_no_coming_back() {
    let world = World::new().await;
    let (port, _seen) =
        receiver(vec![answer("503 Service Unavailable\r\nretry-after: 120"), answer("410 Gone")]).await;
    let url = format!("http://127.0.0.1:{port}/");
    let busy = world.send(HERE, &url, None).await.err().unwrap();
    assert_eq!(
        (busy.error.error.code, busy.retry_after),
        (ErrorCode::DeliveryFailed, Some(Duration::from_secs(120)))
    );
    assert_eq!(code(world.send(HERE, &url, None).await), ErrorCode::DeliveryRefused);
    assert_eq!(
        code(world.send(HERE, "http://127.0.0.1:1/", None).await),
        ErrorCode::DeliveryFailed,
        "nobody listens"
    );
}

#[test]
fn cloud_events_are_called_so() {
    assert!(content_type(br#"{"specversion":"1.0","id":"1"}"#).starts_with("application/cloudevents+json"));
    assert_eq!(content_type(br#"{"n":1}"#), "application/json");
    assert_eq!(content_type(b"not json"), "application/json");
}

#[tokio::test]
async fn a_cloud_event_in_binary_mode_has_its_attributes_as_headers() {
    let world = World::new().await;
    let (port, receiver) = receiver(vec![answer("200 OK")]).await;
    let hook = Webhook { url: format!("http://127.0.0.1:{port}/"), secret: None, mode: EventMode::Binary };
    let event = r#"{"specversion":"1.0","id":"1","source":"/shop","type":"order","subject":"50% é","tenant":7,
        "datacontenttype":"application/json","data":{"n":1}}"#;
    let job = Job { payload: event.into(), ..job(&hook) };
    let sender = Sender::new("127.0.0.1".parse().unwrap(), world.db.registry().clone(), world.key.clone());
    sender.send(&hook, &job).await.unwrap_or_else(|failed| panic!("{:?}", failed.error.error));
    let seen = receiver.await.unwrap().remove(0);
    for header in [
        "ce-specversion: 1.0",
        "ce-id: 1",
        "ce-source: /shop",
        "ce-subject: 50%25%20%c3%a9",
        "ce-tenant: 7",
        "content-type: application/json",
    ] {
        assert!(seen.contains(&format!("{header}\r\n")), "{header} in {seen}");
    }
    assert!(!seen.contains("ce-datacontenttype") && seen.ends_with("\r\n\r\n{\"n\":1}"), "{seen}");
}
