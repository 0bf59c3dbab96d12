//! The agent as it is reached between machines: by an address that may be anybody's, in a real container on a bridge.
//! Build the static agent and the images first, as for `container`.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use common::{bundle, head, request, soon};
use davit_link::{BuildOrder, Builder, InitRequest, InstanceSecret, Kind, Link, LinkError, LinkEvent, Place};
use tokio::sync::mpsc;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

const APP: &str = r#"
import os, time
def handler(event, context):
    time.sleep(event.get("sleep", 0))
    told = [name for name in os.environ if name.startswith(("DAVIT_LINK", "KUBERNETES_"))]
    return {"told": told, "size": os.path.getsize("/var/task/model.bin")}
"#;

const SERVER: &str = r#"
import http.server
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello from inside")
http.server.HTTPServer(("127.0.0.1", 8080), Hello).serve_forever()
"#;

/// A container whose agent takes its gateway by TCP.
struct Remote {
    id: String,
    address: SocketAddr,
}

fn secret(byte: u8) -> InstanceSecret {
    InstanceSecret::from_bytes([byte; 32])
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Remote {
    fn start() -> Self {
        Self::with(&["--read-only"])
    }

    fn with(more: &[&str]) -> Self {
        let agent =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/agent/davit-agent:/opt/davit/agent:ro");
        let secret = format!("DAVIT_LINK_SECRET={}", secret(7).to_hex());
        let mut arguments =
            vec!["run", "-d", "--rm", "--cap-drop", "ALL", "--user", "993:993", "--memory", "128m"];
        arguments.extend(["--security-opt", "no-new-privileges", "--tmpfs", "/tmp:mode=1777", "-v", agent]);
        arguments.extend(["--tmpfs", "/var/task:uid=993,gid=993,mode=0755,exec", "-e", &secret]);
        arguments.extend(["-e", "KUBERNETES_SERVICE_HOST=10.0.0.1"]);
        arguments.extend(more);
        arguments.push("davit/runtime-python3.13:latest");
        let id = docker(&arguments);
        let ip = docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", &id]);
        Self { id, address: SocketAddr::new(ip.parse().unwrap(), 9000) }
    }

    fn place(&self, byte: u8) -> Place {
        Place::Tcp { address: self.address, secret: secret(byte) }
    }

    async fn link(&self) -> (Link, mpsc::Receiver<LinkEvent>) {
        Link::connect(&self.place(7), soon()).await.unwrap()
    }

    async fn gone(&self) {
        let listed = || docker(&["ps", "-q", "--no-trunc", "--filter", &format!("id={}", self.id)]);
        while !listed().is_empty() {
            assert!(std::time::Instant::now() < soon());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", &self.id]).output();
    }
}

async fn init(link: &Link, kind: Kind, files: &[(&str, &str)]) {
    let (bundle, bundle_size) = bundle(files);
    let command = match kind {
        Kind::Handler => Vec::new(),
        Kind::Server => vec!["python3".into(), "server.py".into()],
    };
    let request = InitRequest { bundle_size, command, timeout_seconds: 10, ..request(kind) };
    link.init(request, bundle, soon()).await.unwrap();
}

async fn call(link: &Link, event: &'static str) -> Result<serde_json::Value, LinkError> {
    let result = link.invoke(head(event, SECONDS(10)), Bytes::from(event), soon()).await?;
    Ok(serde_json::from_slice(&result.body).unwrap())
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_function_is_reached_by_an_address_alone() {
    let remote = Remote::start();
    let (link, _events) = remote.link().await;
    // Longer than what may wait for the agent, so that it has to come piece by piece.
    let model = "x".repeat(5_000_000);
    init(&link, Kind::Handler, &[("app.py", APP), ("model.bin", &model)]).await;
    let answer = call(&link, "{}").await.unwrap();
    assert_eq!(answer, serde_json::json!({"told": [], "size": model.len()}), "and learns nothing of the way");
    link.freeze().await.unwrap();
    link.thaw().await.unwrap();
    call(&link, r#"{"sleep":0}"#).await.unwrap();
    drop(link);
    remote.gone().await;
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_server_is_reached_through_connections_of_their_own() {
    let remote = Remote::start();
    let (link, _events) = remote.link().await;
    assert!(matches!(link.open(soon()).await, Err(LinkError::Protocol(_))), "there is no server yet");
    init(&link, Kind::Server, &[("server.py", SERVER)]).await;
    link.freeze().await.unwrap();
    for _ in 0..3 {
        let stream = link.open(soon()).await.unwrap();
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = stream;
            stream.set_nonblocking(false).unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        assert!(answer.await.unwrap().ends_with("hello from inside"));
    }
    assert!(
        matches!(link.open_debugger(soon()).await, Err(LinkError::Protocol(_))),
        "no debugger was asked for"
    );
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn who_does_not_know_the_secret_gets_nothing_and_takes_nothing() {
    let remote = Remote::start();
    let (link, _events) = remote.link().await;
    let stranger = Link::connect(&remote.place(8), soon()).await.err().unwrap();
    assert!(stranger.to_string().contains("does not know this instance's secret"), "{stranger}");
    let second = Link::connect(&remote.place(7), soon()).await.err().unwrap();
    assert!(second.to_string().contains("has its gateway"), "{second}");
    let silent: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(remote.address).unwrap()).collect();
    init(&link, Kind::Handler, &[("app.py", APP), ("model.bin", "")]).await;
    call(&link, "{}").await.unwrap();
    drop(silent);
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_machine_that_wants_it_gone_is_told_on_and_calls_end_first() {
    let remote = Remote::start();
    let (link, mut events) = remote.link().await;
    init(&link, Kind::Handler, &[("app.py", APP), ("model.bin", "")]).await;
    let running = tokio::spawn({
        let link = link.clone();
        async move { call(&link, r#"{"sleep":1}"#).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    docker(&["kill", "--signal", "TERM", &remote.id]);
    loop {
        match tokio::time::timeout(SECONDS(10), events.recv()).await.unwrap() {
            Some(LinkEvent::Leaving) => break,
            Some(LinkEvent::Log(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(running.await.unwrap().unwrap()["size"], 0);
    drop(link);
    remote.gone().await;
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_builder_takes_files_builds_and_gives_files_back() {
    let remote = Remote::with(&["-e", "DAVIT_BUILDER=1", "--tmpfs", "/davit:uid=993,gid=993,mode=0755,exec"]);
    let mut builder = Builder::connect(&remote.place(7), soon()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (source, size) = bundle(&[("app.py", APP), ("model.bin", &"x".repeat(3_000_000))]);
    builder.put("source.tar", source, soon()).await.unwrap();
    let (send, mut lines) = mpsc::channel(100);
    let order = BuildOrder { env: [("DAVIT_HANDLER".to_owned(), "app.handler".to_owned())].into() };
    let built = builder.run(&order, &send, soon()).await.unwrap();
    assert_eq!((built.exit_code, built.out_of_memory), (0, false));
    let said = std::iter::from_fn(|| lines.try_recv().ok()).collect::<Vec<_>>().join("\n");
    assert!(said.contains("bundle: ") && said.contains(" files"), "{said}");
    let out = folder.path().join("bundle.tar");
    assert!(builder.get("out/bundle.tar", &out, 10 * size, soon()).await.unwrap());
    let mut archive = tar::Archive::new(std::fs::File::open(&out).unwrap());
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
    assert!(names.collect::<Vec<_>>().contains(&"model.bin".to_owned()));
    assert!(!builder.get("out/nothing.tar", &out, size, soon()).await.unwrap());
    let long = builder.get("out/bundle.tar", &out, 1_000, soon()).await.unwrap_err();
    assert!(long.to_string().contains("larger than 1000 bytes"), "{long}");
    drop(builder);
    remote.gone().await;
}
