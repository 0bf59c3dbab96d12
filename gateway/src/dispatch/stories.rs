//! Stories of accepted work over a real Postgres, with a scripted function instead of containers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use davit_api::{
    AliasSettings, ApiError, Destination, Digest, ErrorCode, FunctionId, FunctionKind, FunctionName,
    GatewayId, InvocationId, InvocationSource, InvocationState, InvocationView, NamespaceName, NewVersion,
    PhaseTimings, RetryPolicy, VersionSpec, Webhook,
};
use davit_registry::testing::TestDatabase;
use davit_registry::{Changes, ClaimFrom, MasterKey, NewInvocation, Registry, Settlement};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Acceptor, Carrier, Dispatch, SLOTS, Terms};
use crate::invoke::{Answer, Call, CallError, Outcome, Target};
use crate::outbound::Sender;
use crate::routes::{Refresh, Routes};

/// A database with one live function.
pub(crate) struct World {
    pub(crate) db: TestDatabase,
    pub(crate) namespace: NamespaceName,
    pub(crate) function: FunctionName,
    pub(crate) function_id: FunctionId,
    pub(crate) policy: RetryPolicy,
    routes: Routes,
}

impl World {
    pub(crate) async fn new() -> Self {
        let policy = RetryPolicy { base_delay_seconds: 0, ..RetryPolicy::default() };
        let (namespace, function): (NamespaceName, FunctionName) =
            ("shop".parse().unwrap(), "f".parse().unwrap());
        let db = TestDatabase::new().await;
        let registry = db.registry();
        registry.as_davit("test").ensure_namespace(&namespace).await.unwrap();
        let spec = VersionSpec {
            handler: "app.handler".into(),
            retry: policy,
            ..VersionSpec::new("python3.13".parse().unwrap(), FunctionKind::Handler)
        };
        deploy(registry, &namespace, &function, &spec).await;
        let routes = Routes::empty();
        let key = Arc::new(MasterKey::from_bytes([7; 32]));
        Refresh::new(routes.clone(), registry.clone(), key).look().await.unwrap();
        let function_id = registry.function_detail(&namespace, &function).await.unwrap().summary.id;
        Self { db, namespace, function, function_id, policy, routes }
    }

    /// Deploys the function again, with some change.
    pub(crate) async fn deploy(&self, change: impl FnOnce(&mut VersionSpec)) {
        let live = self.registry().function_detail(&self.namespace, &self.function).await.unwrap().live;
        let mut spec = live.unwrap().spec;
        change(&mut spec);
        deploy(self.registry(), &self.namespace, &self.function, &spec).await;
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.db.registry()
    }

    /// An invocation of the function.
    fn new_invocation(&self, policy: RetryPolicy) -> NewInvocation {
        let (namespace, event) = (self.namespace.clone(), b"{\"n\":1}".to_vec());
        NewInvocation::new(namespace, self.function_id, InvocationSource::Async, event, policy)
    }

    async fn accept(&self, policy: RetryPolicy, wake: &Arc<Notify>) -> InvocationId {
        let acceptor = Acceptor::spawn(self.registry().clone(), wake.clone());
        acceptor.accept(self.new_invocation(policy)).await.unwrap()
    }

    async fn view(&self, id: InvocationId) -> InvocationView {
        self.registry().invocation(&self.namespace, id).await.unwrap()
    }

    async fn ended(&self, id: InvocationId) -> InvocationView {
        eventually(async || Some(self.view(id).await).filter(|v| v.ended_at.is_some())).await
    }

    async fn gateway(&self, script: Scripted) -> Gateway {
        self.gateway_with(script, Terms::default()).await
    }

    async fn gateway_with(&self, script: Scripted, terms: Terms) -> Gateway {
        let id = GatewayId::new();
        self.registry().register_gateway(id, "http://test").await.unwrap();
        let (carrier, wake, stop) = (Arc::new(script), Arc::new(Notify::new()), CancellationToken::new());
        let (key, cut) = (Arc::new(MasterKey::from_bytes([7; 32])), CancellationToken::new());
        let dispatch = Dispatch {
            pins: crate::routes::Pins::new(self.routes.clone(), self.registry().clone(), key),
            registry: self.registry().clone(),
            gateway: id,
            routes: self.routes.clone(),
            carrier: carrier.clone(),
            metrics: Arc::default(),
            sender: Sender::new(
                "127.0.0.1".parse().unwrap(),
                self.registry().clone(),
                Arc::new(MasterKey::from_bytes([7; 32])),
            ),
            wake: wake.clone(),
            cut: cut.clone(),
            terms,
        };
        let changes = Changes::listen(self.registry()).await.unwrap();
        let task = AbortOnDropHandle::new(tokio::spawn(super::run(dispatch, changes, stop.clone())));
        Gateway { id, carrier, wake, stop, cut, task }
    }
}

async fn deploy(registry: &Registry, namespace: &NamespaceName, function: &FunctionName, spec: &VersionSpec) {
    let digest = Digest::from_bytes(sha2::Sha256::digest(b"code").into());
    registry.put_artifact_bytes(digest, Bytes::from_static(b"code")).await.unwrap();
    let davit = registry.as_davit("test");
    let version = davit
        .create_version(namespace, function, &NewVersion::of(spec.clone(), digest))
        .await
        .unwrap()
        .version;
    registry.claim_build(uuid::Uuid::new_v4()).await.unwrap().unwrap();
    registry.finish_build(version.id, digest, 4, "sha256:1").await.unwrap();
    registry.version_ready_and_live(version.id).await.unwrap();
}

struct Gateway {
    id: GatewayId,
    carrier: Arc<Scripted>,
    wake: Arc<Notify>,
    stop: CancellationToken,
    cut: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// What the function does, call by call; afterwards it succeeds. `None`: it never answers.
struct Scripted {
    script: Mutex<VecDeque<Option<Result<&'static str, ErrorCode>>>>,
    calls: Mutex<Vec<(InvocationId, Bytes)>>,
    /// The version that each call went to.
    versions: Mutex<Vec<(InvocationId, u32)>>,
    /// The time that each call was given.
    budgets: Mutex<Vec<Duration>>,
    /// Calls that never answered and were given up.
    given_up: Arc<AtomicUsize>,
}

/// Counts a call that is given up.
struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn script(steps: &[Option<Result<&'static str, ErrorCode>>]) -> Scripted {
    Scripted {
        script: Mutex::new(steps.iter().copied().collect()),
        calls: Mutex::default(),
        versions: Mutex::default(),
        budgets: Mutex::default(),
        given_up: Arc::default(),
    }
}

impl Carrier for Scripted {
    fn carry(&self, target: Target, call: Call) -> BoxFuture<'_, Outcome> {
        self.versions.lock().push((call.request_id, target.version.number));
        self.budgets.lock().push(call.deadline - call.arrived);
        let crate::invoke::Payload::Event(event) = call.payload else { panic!("jobs are events") };
        self.calls.lock().push((call.request_id, event));
        let step = self.script.lock().pop_front().unwrap_or(Some(Ok("done")));
        let gone = Gone(self.given_up.clone());
        Box::pin(async move {
            let Some(step) = step else {
                let _gone = gone;
                return std::future::pending().await;
            };
            std::mem::forget(gone);
            let result = step
                .map(|text| Answer::Event {
                    content_type: "application/json".into(),
                    body: Bytes::from(text),
                })
                .map_err(|code| CallError {
                    error: ApiError::new(code, "scripted"),
                    function_error: None,
                    started: true,
                });
            Outcome { result, cold: false, timings: PhaseTimings::default(), version: 1 }
        })
    }
}

pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not happen within 20 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn accepted_work_runs_once_and_its_result_is_kept() {
    let world = World::new().await;
    let gateway = world.gateway(script(&[Some(Ok("{\"ok\":true}"))])).await;
    let id = world.accept(world.policy, &gateway.wake).await;
    let view = world.ended(id).await;
    assert_eq!((view.state, view.attempt), (InvocationState::Succeeded, 1));
    assert_eq!(view.result.as_deref(), Some("{\"ok\":true}"));
    assert_eq!(*gateway.carrier.calls.lock(), [(id, Bytes::from_static(b"{\"n\":1}"))]);
    gateway.stop.cancel();
    gateway.task.await.unwrap();
}

#[tokio::test]
async fn an_invocation_runs_on_the_version_it_names_or_on_what_is_live_when_it_runs() {
    let world = World::new().await;
    let named = |qualifier: &str| NewInvocation {
        qualifier: Some(qualifier.parse().unwrap()),
        ..world.new_invocation(world.policy)
    };
    let waiting = world.registry().enqueue(world.new_invocation(world.policy)).await.unwrap();
    let first = world.registry().enqueue(named("1")).await.unwrap();
    let by_alias = world.registry().enqueue(named("old")).await.unwrap();
    world.deploy(|spec| spec.memory_mb = 512).await;
    let admin = world.registry().as_davit("test");
    let old = AliasSettings::of(1);
    admin.set_alias(&world.namespace, &world.function, &"old".parse().unwrap(), &old).await.unwrap();
    let key = Arc::new(MasterKey::from_bytes([7; 32]));
    Refresh::new(world.routes.clone(), world.registry().clone(), key).look().await.unwrap();
    let gateway = world.gateway(script(&[])).await;
    for (id, version) in [(waiting, 2), (first, 1), (by_alias, 1)] {
        assert_eq!(world.ended(id).await.state, InvocationState::Succeeded);
        let versions = gateway.carrier.versions.lock().clone();
        assert_eq!(versions.iter().find(|(of, _)| *of == id), Some(&(id, version)));
    }
    gateway.stop.cancel();
    gateway.task.await.unwrap();
}

#[tokio::test]
async fn a_failing_function_is_tried_as_promised_under_one_request_id() {
    let world = World::new().await;
    let failed = Some(Err(ErrorCode::FunctionError));
    let gateway = world.gateway(script(&[failed, failed, failed])).await;
    let id = world.accept(world.policy, &gateway.wake).await;
    let view = world.ended(id).await;
    assert_eq!((view.state, view.attempt), (InvocationState::Dead, 3));
    assert_eq!(view.error.map(|e| e.code), Some(ErrorCode::FunctionError));
    assert!(gateway.carrier.calls.lock().iter().all(|call| call.0 == id));
    let second = world.accept(world.policy, &gateway.wake).await;
    assert_eq!(world.ended(second).await.state, InvocationState::Succeeded);
}

#[tokio::test]
async fn a_killed_gateways_job_runs_again_and_its_late_word_is_refused() {
    let world = World::new().await;
    let first = world.gateway(script(&[None])).await;
    let id = world.accept(world.policy, &first.wake).await;
    eventually(async || Some(()).filter(|()| !first.carrier.calls.lock().is_empty())).await;
    let dead = first.id;
    drop(first);
    // What the controller does when a gateway's lease has lapsed.
    world.registry().drop_gateway(dead).await.unwrap();
    let second = world.gateway(script(&[])).await;
    let view = world.ended(id).await;
    assert_eq!((view.state, view.attempt), (InvocationState::Succeeded, 2));
    let late = Settlement::Succeeded { result: b"late".to_vec() };
    assert!(!world.registry().settle(id, 1, late).await.unwrap());
    assert_eq!(world.view(id).await.result.as_deref(), Some("done"));
    assert_eq!(second.carrier.calls.lock().len(), 1);
}

#[tokio::test]
async fn two_gateways_share_a_burst_and_run_each_job_once() {
    let world = World::new().await;
    let gateways = [world.gateway(script(&[])).await, world.gateway(script(&[])).await];
    let mut accepted = Vec::new();
    for _ in 0..60 {
        accepted.push(world.accept(world.policy, &gateways[0].wake).await);
    }
    for id in &accepted {
        assert_eq!(world.ended(*id).await.attempt, 1);
    }
    let mut ran: Vec<_> = gateways
        .iter()
        .flat_map(|g| g.carrier.calls.lock().iter().map(|c| c.0).collect::<Vec<_>>())
        .collect();
    ran.sort();
    accepted.sort();
    assert_eq!(ran, accepted);
}

#[tokio::test]
async fn work_that_is_too_old_ends_without_running() {
    let world = World::new().await;
    let id = world.accept(RetryPolicy { max_age_seconds: 1, ..world.policy }, &Arc::default()).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let gateway = world.gateway(script(&[])).await;
    let view = world.ended(id).await;
    assert_eq!(
        (view.state, view.error.map(|e| e.code)),
        (InvocationState::Dead, Some(ErrorCode::NoCapacity))
    );
    assert!(gateway.carrier.calls.lock().is_empty());
}

#[tokio::test]
async fn without_the_registry_nothing_is_accepted_and_it_says_so() {
    let world = World::new().await;
    let acceptor = Acceptor::spawn(world.registry().clone(), Arc::default());
    let mut new = world.new_invocation(world.policy);
    new.payload = vec![b' '; 1024 * 1024 + 1];
    assert_eq!(acceptor.accept(new.clone()).await.unwrap_err().code, ErrorCode::TooLarge);
    world.registry().close().await;
    new.payload.truncate(1);
    let refused = acceptor.accept(new).await.unwrap_err();
    assert_eq!((refused.code, refused.code.status()), (ErrorCode::Unavailable, 503));
}

#[tokio::test]
async fn calls_that_found_no_place_are_called_in_when_one_is_left() {
    let world = World::new().await;
    // One that another gateway put back, and whose next look is an hour away.
    let (other, patient) = (GatewayId::new(), world.accept(world.policy, &Arc::default()).await);
    world.registry().register_gateway(other, "http://other").await.unwrap();
    let job = world.registry().claim(other, 1, &mut ClaimFrom::default()).await.unwrap().remove(0);
    let error = ApiError::new(ErrorCode::TooManyRequests, "full").body();
    let again = Settlement::RetryAt { delay: Duration::from_secs(3_600), error, counts: false };
    assert!(world.registry().settle(job.id, job.attempt, again).await.unwrap());
    // One that this gateway has to put back, and one that leaves its place.
    let gateway = world.gateway(script(&[Some(Err(ErrorCode::TooManyRequests))])).await;
    let refused = world.accept(world.policy, &gateway.wake).await;
    eventually(async || world.view(refused).await.error).await;
    let leaves = world.accept(world.policy, &gateway.wake).await;
    for (id, attempt) in [(leaves, 1), (refused, 2), (patient, 2)] {
        let view = world.ended(id).await;
        assert_eq!((view.state, view.attempt), (InvocationState::Succeeded, attempt));
    }
}

#[tokio::test]
async fn a_running_job_that_is_cancelled_is_stopped_and_not_run_again() {
    let world = World::new().await;
    let gateway = world.gateway(script(&[None])).await;
    let id = world.accept(world.policy, &gateway.wake).await;
    eventually(async || Some(()).filter(|()| !gateway.carrier.calls.lock().is_empty())).await;
    world.registry().as_davit("test").cancel_invocation(&world.namespace, id).await.unwrap();
    let view = world.ended(id).await;
    assert_eq!((view.state, view.attempt), (InvocationState::Cancelled, 1));
    assert_eq!(gateway.carrier.calls.lock().len(), 1);
}

/// Leases that are renewed often enough for a test, and last long enough for a machine that is busy.
const SHORT: Terms =
    Terms { lease: Duration::from_secs(3), beat: Duration::from_millis(200), slot: Duration::from_secs(900) };

#[tokio::test]
async fn a_call_that_runs_for_many_leases_keeps_its_claim_until_it_is_cancelled() {
    let world = World::new().await;
    world.deploy(|spec| spec.async_timeout_seconds = Some(43_200)).await;
    let key = Arc::new(MasterKey::from_bytes([7; 32]));
    Refresh::new(world.routes.clone(), world.registry().clone(), key).look().await.unwrap();
    let gateway = world.gateway_with(script(&[None]), SHORT).await;
    let id = world.accept(world.policy, &gateway.wake).await;
    eventually(async || Some(()).filter(|()| !gateway.carrier.calls.lock().is_empty())).await;
    assert_eq!(*gateway.carrier.budgets.lock(), [Duration::from_secs(43_200)]);
    // One that looks for lapsed leases all the time, and would run it.
    let other = world.gateway_with(script(&[]), SHORT).await;
    let mut until = Vec::new();
    eventually(async || {
        let (lease, attempt, now) = world.db.held_until().await;
        assert!(attempt == 1 && lease > now, "it never lapses");
        if until.last() != Some(&lease) {
            until.push(lease);
        }
        Some(()).filter(|()| until.len() >= 4 && now > until[0])
    })
    .await;
    assert!(other.carrier.calls.lock().is_empty());
    world.registry().as_davit("test").cancel_invocation(&world.namespace, id).await.unwrap();
    let view = world.ended(id).await;
    assert_eq!((view.state, view.attempt), (InvocationState::Cancelled, 1));
    assert_eq!(gateway.carrier.given_up.load(Ordering::SeqCst), 1, "the function was told");
}

#[tokio::test]
async fn an_attempt_whose_lease_was_lost_is_stopped_and_the_next_one_counts() {
    let world = World::new().await;
    let gateway = world.gateway_with(script(&[None]), SHORT).await;
    let id = world.accept(world.policy, &gateway.wake).await;
    eventually(async || Some(()).filter(|()| !gateway.carrier.calls.lock().is_empty())).await;
    // As after an outage, during which nobody could renew it. A renewal may come in between, so more than once.
    eventually(async || {
        world.db.lapse_first_attempts().await;
        world.registry().reclaim_lapsed().await.unwrap();
        Some(()).filter(|()| gateway.carrier.calls.lock().len() == 2)
    })
    .await;
    let view = world.ended(id).await;
    assert_eq!((view.state, view.attempt), (InvocationState::Succeeded, 2));
    eventually(async || Some(()).filter(|()| gateway.carrier.given_up.load(Ordering::SeqCst) == 1)).await;
}

#[tokio::test]
async fn a_call_that_a_gateways_end_cuts_runs_again_though_it_was_promised_one_attempt() {
    let world = World::new().await;
    let policy = RetryPolicy { max_attempts: 1, ..world.policy };
    let first = world.gateway(script(&[None])).await;
    let id = world.accept(policy, &first.wake).await;
    eventually(async || Some(()).filter(|()| !first.carrier.calls.lock().is_empty())).await;
    // In the order in which a gateway ends.
    first.stop.cancel();
    first.cut.cancel();
    first.task.await.unwrap();
    assert_eq!(first.carrier.given_up.load(Ordering::SeqCst), 1);
    world.registry().drop_gateway(first.id).await.unwrap();
    let _second = world.gateway(script(&[])).await;
    let view = world.ended(id).await;
    assert_eq!((view.state, view.attempt), (InvocationState::Succeeded, 2));
}

#[tokio::test]
async fn calls_that_run_for_hours_do_not_hold_up_the_others() {
    let world = World::new().await;
    let terms = Terms { slot: Duration::from_millis(50), ..Terms::default() };
    let gateway = world.gateway_with(script(&[None; SLOTS]), terms).await;
    let hours = (0..SLOTS).map(|_| world.new_invocation(world.policy)).collect();
    let acceptor = Acceptor::spawn(world.registry().clone(), gateway.wake.clone());
    acceptor.accept_all(hours).await.unwrap();
    eventually(async || Some(()).filter(|()| gateway.carrier.calls.lock().len() >= SLOTS)).await;
    let next = world.accept(world.policy, &gateway.wake).await;
    assert_eq!(world.ended(next).await.state, InvocationState::Succeeded);
}

#[tokio::test]
async fn a_failure_is_sent_on_to_its_webhook_by_the_queue_itself() {
    // A process has one; the binary installs it at its start.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/failed", listener.local_addr().unwrap());
    let gateway = world.gateway(script(&[Some(Err(ErrorCode::TooLarge))])).await;
    let acceptor = Acceptor::spawn(world.registry().clone(), gateway.wake.clone());
    let mut new = world.new_invocation(world.policy);
    new.destinations.on_failure =
        Some(Destination::Webhook(Webhook { url, secret: None, mode: Default::default() }));
    let id = acceptor.accept(new).await.unwrap();
    let (mut stream, _) =
        tokio::time::timeout(Duration::from_secs(20), listener.accept()).await.unwrap().unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("requestPayload") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
    let sent = world.ended(id).await.sent_on.unwrap();
    let delivery = world.ended(sent.invocations[0]).await;
    assert_eq!((delivery.state, delivery.function), (InvocationState::Succeeded, None));
    assert!(String::from_utf8_lossy(&seen).contains(&id.to_string()));
}
