//! An agent without a container: it speaks the real frames over a real socket, and behaves as the event says.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "test code, of which each binary uses its part"
)]

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use davit_api::{
    Digest, FunctionKind, InstanceId, InvocationId, InvocationSource, PoolKey, RuntimeName, VersionSpec,
};
use davit_gateway::config::InstanceLimits;
use davit_gateway::demand::Demand;
use davit_gateway::facts::{Feeds, Recorder};
use davit_gateway::forward::Exchange;
use davit_gateway::instances::{Bundles, Instance, Instances, Source};
use davit_gateway::invoke::{Call, Corridor, Payload, Target};
use davit_gateway::metrics::Metrics;
use davit_gateway::policy::{Limiters, Policy, Route};
use davit_gateway::version::LiveVersion;
use davit_link::frame::{FIRST_ASK, Frame, FrameKind, body_frames};
use davit_link::socket::{self, Outbox, Wire};
use davit_link::{
    ASK_AHEAD, AnswerHead, AskHead, Failure, FailureKind, Hello, InitDone, InitRequest, InvokeHead, Limits,
    Link, LogEntry, PROTOCOL, Place, ResultHead, Stream,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What a fake agent has seen.
#[derive(Default)]
pub struct Seen {
    pub inits: AtomicU32,
    pub invokes: AtomicU32,
    pub cancels: AtomicU32,
    pub freezes: AtomicU32,
    pub thaws: AtomicU32,
    pub running: AtomicUsize,
    pub most_running: AtomicUsize,
    /// A call that came while the processes were stopped, or a second init.
    pub violations: AtomicU32,
    /// Inits that said the code was mounted.
    pub mounted: AtomicU32,
    /// Whether mounts reach this agent.
    pub sees_mounts: AtomicBool,
    pub closed: AtomicBool,
    /// Bytes of streamed results that were sent.
    pub streamed: AtomicUsize,
    /// Streams that wait in their middle go on.
    pub go_on: AtomicBool,
    /// What it may use, where it says so.
    pub limits: Mutex<Option<Limits>>,
}

fn frame(kind: FrameKind, stream: u32, body: &impl Serialize) -> Frame {
    Frame { kind, stream, body: serde_json::to_vec(body).unwrap().into() }
}

fn failure(kind: FailureKind, message: &str) -> Failure {
    let error = serde_json::value::to_raw_value(&json!({ "errorMessage": message })).unwrap();
    Failure { kind, message: message.into(), error: Some(error), exit_code: None, signal: None }
}

/// Serves one connection. `server` is where `Open` and `OpenDebugger` connect to.
async fn serve(stream: UnixStream, seen: Arc<Seen>, server: Option<std::net::SocketAddr>) {
    let (outbox, mut inbox) = socket::split(Wire::Unix(stream));
    tokio::spawn(outbox.clone().drive());
    outbox.send([frame(
        FrameKind::Hello,
        0,
        &Hello {
            protocol: PROTOCOL,
            runtime: "fake".into(),
            takes_mounted_code: true,
            takes_secret_files: true,
            takes_debugger: true,
        },
    )]);
    let mut frozen = false;
    let mut calls: HashMap<u32, (InvokeHead, BytesMut)> = HashMap::new();
    let mut running: HashMap<u32, tokio::task::AbortHandle> = HashMap::new();
    let mut windows: HashMap<u32, Arc<Semaphore>> = HashMap::new();
    let asks = Asks::default();
    while let Ok(Some((got, _descriptor))) = inbox.next().await {
        let stream = got.stream;
        if stream >= FIRST_ASK {
            asks.take(&outbox, got);
            continue;
        }
        match got.kind {
            FrameKind::Init => {
                let request: InitRequest = serde_json::from_slice(&got.body).unwrap();
                if seen.inits.fetch_add(1, Ordering::SeqCst) > 0 {
                    seen.violations.fetch_add(1, Ordering::SeqCst);
                }
                seen.mounted.fetch_add(u32::from(request.code_mounted), Ordering::SeqCst);
                let code_mounted = request.code_mounted && seen.sees_mounts.load(Ordering::SeqCst);
                match request.handler.as_str() {
                    "broken" => {
                        let failed = failure(FailureKind::InitFailed, "no such module");
                        outbox.send([
                            frame(FrameKind::InitFailed, stream, &failed),
                            frame(FrameKind::Exited, 0, &failed),
                        ]);
                    }
                    "dies" => break,
                    slow => {
                        if let Some(ms) = slow.strip_prefix("slow") {
                            tokio::time::sleep(Duration::from_millis(ms.parse().unwrap())).await;
                        }
                        outbox.send([frame(
                            FrameKind::InitDone,
                            stream,
                            &InitDone { unpack_ms: 0.1, start_ms: 0.1, code_mounted },
                        )]);
                    }
                }
            }
            FrameKind::Invoke => {
                drop(calls.insert(stream, (serde_json::from_slice(&got.body).unwrap(), BytesMut::new())))
            }
            FrameKind::Data => {
                if let Some((_, event)) = calls.get_mut(&stream) {
                    event.extend_from_slice(&got.body);
                }
            }
            FrameKind::End => {
                let Some((head, event)) = calls.remove(&stream) else { continue };
                if frozen {
                    seen.violations.fetch_add(1, Ordering::SeqCst);
                }
                seen.invokes.fetch_add(1, Ordering::SeqCst);
                let event: Value = serde_json::from_slice(&event).unwrap();
                if event["leave"] == true {
                    outbox.send([Frame::empty(FrameKind::Leaving, 0)]);
                }
                if event["exit"] == true {
                    outbox.send([frame(
                        FrameKind::Exited,
                        0,
                        &failure(FailureKind::Exited, "exit status 1"),
                    )]);
                    outbox.flushed().await;
                    break;
                }
                if event["stream"].is_object() && head.result_window > 0 {
                    let window = Arc::new(Semaphore::new(head.result_window as usize));
                    windows.insert(stream, window.clone());
                    let work =
                        stream_out(outbox.clone(), seen.clone(), stream, event["stream"].clone(), window);
                    running.insert(stream, tokio::spawn(work).abort_handle());
                    continue;
                }
                let task = tokio::spawn(run(outbox.clone(), seen.clone(), stream, head, event, asks.clone()));
                running.insert(stream, task.abort_handle());
            }
            FrameKind::Open | FrameKind::OpenDebugger => match server {
                Some(address) => {
                    let connected = std::net::TcpStream::connect(address).unwrap();
                    outbox.send_with_descriptor(Frame::empty(FrameKind::Opened, stream), connected.into());
                }
                None => drop(outbox.send([frame(
                    FrameKind::Failed,
                    stream,
                    &failure(FailureKind::InitFailed, "no server"),
                )])),
            },
            FrameKind::Cancel => {
                seen.cancels.fetch_add(1, Ordering::SeqCst);
                if running.remove(&stream).is_some_and(|task| !task.is_finished()) {
                    break;
                }
            }
            FrameKind::Credit => {
                let bytes = u32::from_le_bytes(got.body[..].try_into().unwrap());
                windows[&stream].add_permits(bytes as usize);
            }
            FrameKind::Ping => {
                let limits = *seen.limits.lock();
                let body = limits.map(|limits| serde_json::to_vec(&limits).unwrap()).unwrap_or_default();
                outbox.send([Frame { kind: FrameKind::Pong, stream, body: body.into() }]);
            }
            FrameKind::Freeze => {
                frozen = true;
                seen.freezes.fetch_add(1, Ordering::SeqCst);
                outbox.send([Frame::empty(FrameKind::Frozen, stream)]);
            }
            FrameKind::Thaw => {
                frozen = false;
                seen.thaws.fetch_add(1, Ordering::SeqCst);
                outbox.send([Frame::empty(FrameKind::Thawed, stream)]);
            }
            _ => {}
        }
    }
    running.values().for_each(tokio::task::AbortHandle::abort);
    seen.closed.store(true, Ordering::SeqCst);
    outbox.close();
}

/// Streams `chunks` times `size` bytes behind `prelude`; with `wait` it stops before the last chunk until told, and
/// `end` is how it ends.
async fn stream_out(outbox: Outbox, seen: Arc<Seen>, stream: u32, how: Value, window: Arc<Semaphore>) {
    let content_type = how["type"].as_str().unwrap_or("text/plain").to_owned();
    outbox.send([frame(FrameKind::Result, stream, &ResultHead { content_type, streamed: true })]);
    let chunks = how["chunks"].as_u64().unwrap_or(1);
    let chunk = Bytes::from(vec![b'x'; how["size"].as_u64().unwrap_or(3) as usize]);
    let prelude = how["prelude"].as_str().map(|json| Bytes::from([json.as_bytes(), &[0; 8]].concat()));
    let pieces = prelude.into_iter().chain((0..chunks).map(|_| chunk.clone()));
    for (n, body) in pieces.enumerate() {
        if how["wait"] == true && n as u64 + 1 == chunks {
            until("the stream goes on", || seen.go_on.load(Ordering::SeqCst)).await;
        }
        let piece = Frame { kind: FrameKind::Data, stream, body };
        window.acquire_many(piece.cost() as u32).await.unwrap().forget();
        seen.streamed.fetch_add(piece.body.len(), Ordering::SeqCst);
        outbox.send([piece]);
    }
    match how["end"].as_str() {
        Some("fail") => {
            outbox.send([frame(FrameKind::Failed, stream, &failure(FailureKind::FunctionError, "mid"))])
        }
        Some("hang") => std::future::pending().await,
        _ => outbox.send([Frame::empty(FrameKind::End, stream)]),
    };
}

/// What a fake agent asks its gateway for.
#[derive(Default, Clone)]
struct Asks(Arc<std::sync::Mutex<HashMap<u32, Asking>>>);

struct Asking {
    body: Vec<Frame>,
    head: Option<AnswerHead>,
    parts: BytesMut,
    answer: tokio::sync::oneshot::Sender<(AnswerHead, Bytes)>,
}

impl Asks {
    /// Asks for what an event says: `target`, `headers`, `body` as text or `size`, and `as` for a forged request id.
    async fn ask(&self, outbox: &Outbox, how: &Value, own: &str) -> Value {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let stream = FIRST_ASK | NEXT.fetch_add(1, Ordering::SeqCst);
        let text = |name: &str, otherwise: &str| how[name].as_str().unwrap_or(otherwise).to_owned();
        let body = match how["size"].as_u64() {
            Some(size) => format!("\"{}\"", "x".repeat(size as usize - 2)),
            None => text("body", "{}"),
        };
        let headers = how["headers"].as_object().into_iter().flatten();
        let headers = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        let head = AskHead {
            method: text("method", "POST"),
            target: text("target", "/"),
            headers: headers.collect(),
            size: body.len() as u64,
            request_id: Some(text("as", own)).filter(|id| !id.is_empty()),
        };
        let (answer, answered) = tokio::sync::oneshot::channel();
        let mut frames = body_frames(stream, body.into());
        let first = frame(FrameKind::Ask, stream, &head);
        let at_once = if head.size > ASK_AHEAD { Vec::new() } else { std::mem::take(&mut frames) };
        let asking = Asking { body: frames, head: None, parts: BytesMut::new(), answer };
        self.0.lock().unwrap().insert(stream, asking);
        outbox.send(std::iter::once(first).chain(at_once));
        if how["take_back"] == true {
            tokio::time::sleep(Duration::from_millis(50)).await;
            outbox.send([Frame::empty(FrameKind::Cancel, stream)]);
            return json!({ "status": 0 });
        }
        let Ok((head, body)) = answered.await else { return json!({ "status": 503, "refused": true }) };
        let headers: HashMap<String, String> = head.headers.into_iter().collect();
        let body = String::from_utf8_lossy(&body).into_owned();
        let parsed: Value = serde_json::from_str(&body).unwrap_or(body.into());
        json!({ "status": head.status, "headers": headers, "body": parsed })
    }

    fn take(&self, outbox: &Outbox, got: Frame) {
        let mut asks = self.0.lock().unwrap();
        let Some(asking) = asks.get_mut(&got.stream) else { return };
        match got.kind {
            FrameKind::Answer => asking.head = Some(serde_json::from_slice(&got.body).unwrap()),
            FrameKind::Data => asking.parts.extend_from_slice(&got.body),
            FrameKind::Credit => _ = outbox.send(std::mem::take(&mut asking.body)),
            FrameKind::End => {
                let Asking { head, parts, answer, .. } = asks.remove(&got.stream).unwrap();
                let _ = answer.send((head.unwrap(), parts.freeze()));
            }
            FrameKind::Cancel => drop(asks.remove(&got.stream)),
            other => panic!("{other:?} of an ask"),
        }
    }
}

async fn run(outbox: Outbox, seen: Arc<Seen>, stream: u32, head: InvokeHead, event: Value, asks: Asks) {
    let now = seen.running.fetch_add(1, Ordering::SeqCst) + 1;
    seen.most_running.fetch_max(now, Ordering::SeqCst);
    if let Some(ms) = event["sleep"].as_u64() {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    if let Some(line) = event["log"].as_str() {
        let request_id = Some(head.request_id.clone());
        let entry = LogEntry {
            stream: Stream::Stdout,
            request_id,
            line: line.into(),
            at_unix_us: 1,
            truncated: false,
        };
        outbox.send([frame(FrameKind::Log, 0, &vec![entry])]);
    }
    let mut answer = json!({ "id": head.request_id, "event": event });
    if event["trace"] == true {
        answer["trace"] = head.trace_id.clone().into();
        answer["deadline"] = head.deadline_unix_ms.into();
        answer["context"] = head.client_context.clone().into();
    }
    if event["ask"].is_object() {
        let mut how = event["ask"].clone();
        if how["to_itself"] == true {
            how["body"] = event.to_string().into();
        }
        answer["asked"] = asks.ask(&outbox, &how, &head.request_id).await;
    }
    seen.running.fetch_sub(1, Ordering::SeqCst);
    if event["fail"] == true {
        outbox.send([frame(FrameKind::Failed, stream, &failure(FailureKind::FunctionError, "boom"))]);
        return;
    }
    let result = ResultHead { content_type: "application/json".into(), streamed: false };
    let body = Bytes::from(answer.to_string());
    outbox.send(std::iter::once(frame(FrameKind::Result, stream, &result)).chain(body_frames(stream, body)));
}

/// The code of every version in these tests.
pub const CODE: &[u8] = b"code";

struct Code;
impl Source for Code {
    fn fetch<'a>(&'a self, _: Digest, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { std::fs::write(to, CODE) })
    }
}

/// A data plane whose containers are fake.
pub struct World {
    pub instances: Instances,
    pub corridor: Corridor,
    pub metrics: Arc<Metrics>,
    pub feeds: Feeds,
    pub stop: CancellationToken,
    dir: tempfile::TempDir,
}

impl World {
    pub fn new(change: impl FnOnce(&mut InstanceLimits)) -> Self {
        Self::with_bundles(change, |bundles, _| bundles)
    }

    /// One whose bundles get the last touch from the caller, who is told the state directory.
    pub fn with_bundles(
        change: impl FnOnce(&mut InstanceLimits),
        touch: impl FnOnce(Bundles, &Path) -> Bundles,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut limits = InstanceLimits::default();
        change(&mut limits);
        let (recorder, feeds) = Recorder::channel();
        let metrics = Arc::new(Metrics::default());
        let stop = CancellationToken::new();
        let bundles = Bundles::new(dir.path().join("bundles"), Box::new(Code)).unwrap();
        let bundles = touch(bundles, dir.path());
        let instances =
            Instances::new(limits, bundles, recorder, metrics.clone(), Demand::default(), stop.clone());
        let exchange = Arc::new(Exchange::new(metrics.clone(), stop.clone()));
        let corridor = Corridor::new(instances.clone(), exchange);
        Self { instances, corridor, metrics, feeds, stop, dir }
    }

    /// Puts a fake container into the pool of this version.
    pub async fn container(&self, version: &LiveVersion) -> Arc<Seen> {
        self.container_with(version, None).await
    }

    pub async fn container_with(
        &self,
        version: &LiveVersion,
        server: Option<std::net::SocketAddr>,
    ) -> Arc<Seen> {
        self.container_as(InstanceId::new(), version, server).await
    }

    pub async fn container_as(
        &self,
        id: InstanceId,
        version: &LiveVersion,
        server: Option<std::net::SocketAddr>,
    ) -> Arc<Seen> {
        self.instance(id, version, server).await.1
    }

    /// The same, for tests that look into the gateway's side of it, too.
    pub async fn instance(
        &self,
        id: InstanceId,
        version: &LiveVersion,
        server: Option<std::net::SocketAddr>,
    ) -> (Arc<Instance>, Arc<Seen>) {
        let (path, seen) = self.agent(id, server);
        let key = (*version.pool_key).clone();
        (take_in(self.instances.clone(), id, key, path).await, seen)
    }

    /// An agent that waits for its gateway, where it does so, and what it sees.
    pub fn agent(&self, id: InstanceId, server: Option<std::net::SocketAddr>) -> (PathBuf, Arc<Seen>) {
        let path = self.dir.path().join(format!("{}.sock", id.0.simple()));
        let listener = UnixListener::bind(&path).unwrap();
        let seen = Arc::new(Seen::default());
        tokio::spawn(agent(listener, seen.clone(), server));
        (path, seen)
    }

    /// Calls with a JSON event.
    pub async fn call(
        &self,
        version: &Arc<LiveVersion>,
        event: Value,
    ) -> Result<Value, davit_gateway::invoke::CallError> {
        let outcome = self.corridor.invoke(Target { version: version.clone() }, call(version, event)).await;
        outcome.result.map(|answer| match answer {
            davit_gateway::invoke::Answer::Event { body, .. } => serde_json::from_slice(&body).unwrap(),
            davit_gateway::invoke::Answer::Http(_) => panic!("an HTTP answer to an event"),
        })
    }
}

/// Plays an agent for the one gateway that connects.
pub async fn agent(listener: UnixListener, seen: Arc<Seen>, server: Option<std::net::SocketAddr>) {
    let (stream, _) = listener.accept().await.unwrap();
    serve(stream, seen, server).await;
}

/// Takes the container whose agent listens there into the pool.
pub async fn take_in(instances: Instances, id: InstanceId, key: PoolKey, path: PathBuf) -> Arc<Instance> {
    let (link, events) =
        Link::connect(&Place::Socket(path), Instant::now() + Duration::from_secs(5)).await.unwrap();
    let instance = Arc::new(Instance::new(id, key, link));
    instances.add(instance.clone(), events);
    instance
}

pub fn call(version: &LiveVersion, event: Value) -> Call {
    let now = Instant::now();
    Call {
        payload: Payload::Event(event.to_string().into()),
        arrived: now,
        deadline: now + Duration::from_secs(version.spec.timeout_seconds.into()),
        request_id: InvocationId::new(),
        source: InvocationSource::Invoke,
        trace_id: None,
        client_context: None,
        cause: None,
        log_tail: None,
    }
}

pub fn version(change: impl FnOnce(&mut VersionSpec)) -> Arc<LiveVersion> {
    named("shop", "orders", change)
}

pub fn named(namespace: &str, function: &str, change: impl FnOnce(&mut VersionSpec)) -> Arc<LiveVersion> {
    let mut spec = VersionSpec::new("python3.13".parse::<RuntimeName>().unwrap(), FunctionKind::Handler);
    spec.timeout_seconds = 5;
    change(&mut spec);
    let (function_id, limiters) = (davit_api::FunctionId::new(), Limiters::default());
    Arc::new(LiveVersion {
        namespace: namespace.parse().unwrap(),
        function: function.parse().unwrap(),
        address: LiveVersion::address_of(&namespace.parse().unwrap(), &function.parse().unwrap()),
        function_id,
        version_id: davit_api::VersionId::new(),
        number: 1,
        bundle: Digest::from_bytes(sha2::Sha256::digest(CODE).into()),
        bundle_size: CODE.len() as u64,
        env: Default::default(),
        secret_files: Box::default(),
        has_secrets: false,
        missing_secrets: Box::default(),
        routes: Route::all(function_id, &spec, &limiters),
        policy: Policy::of_function(function_id, &spec, &limiters),
        pool_key: Arc::new(PoolKey::of(&spec, "")),
        config: LiveVersion::config_digest(&spec, &Default::default()),
        spec,
    })
}

/// Waits for a condition, not for a time.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}
