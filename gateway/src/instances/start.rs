//! Starting an instance of a version: take one from the pool, give it the code, let it join its fleet.
//!
//! Runs as a task of its own and not in the first caller, who may hang up while nine others wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use davit_api::{ApiError, ColdPhases, ErrorCode, FunctionKind, InstanceState, VersionSpec};
use davit_link::{Debugger, InitDone, InitRequest, Kind, LinkError};

use crate::instances::pool::Claim;
use crate::instances::{Fleet, Instance};
use crate::invoke::CallError;
use crate::outcome;

/// What an instance is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Calls wait.
    Line,
    /// A call is expected; nobody is waited for any longer after `until`.
    Ahead {
        /// When the instance is judged first, should no call have come.
        until: Instant,
    },
    /// The version's `min_instances`.
    Minimum,
}

impl Reason {
    /// Until when it was decided that there is one.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Ahead { until } => Some(until),
            Self::Line | Self::Minimum => None,
        }
    }
}

/// How a start went.
pub(super) struct Started {
    pub(super) reason: Reason,
    /// When it was decided on.
    pub(super) decided: Instant,
    /// Whether the pool had one ready.
    pub(super) pooled: bool,
    /// Where the time went, from the claim to the version's being loaded.
    pub(super) phases: ColdPhases,
}

/// Instances that may be lost under one start before the start counts as failed.
const TRIES: usize = 3;

/// Brings one instance into `fleet`, or tells the line why not.
pub(super) async fn run(fleet: Arc<Fleet>, reason: Reason) {
    let decided = Instant::now();
    let guard = Guard(Some(fleet.clone()));
    let mut last = CallError::refused(ApiError::new(
        ErrorCode::Unavailable,
        "instances were lost before they could start",
    ));
    for _ in 0..TRIES {
        let Some((instance, pooled)) = claim(&fleet, reason).await else { return guard.counted_off() };
        let claimed = Instant::now();
        fleet.shared.metrics.claims.add(1);
        match init(&fleet, &instance, claimed).await {
            Ok(phases) => {
                fleet.shared.metrics.init_ms.note(phases.start_ms());
                guard.counted_off();
                fleet.shared.note(&fleet, &instance, InstanceState::Active);
                return fleet.join(instance, Started { reason, decided, pooled, phases });
            }
            Err(Failed::Version(error)) => {
                fleet.shared.released(&instance, &format!("init failed: {}", error.error.message));
                guard.counted_off();
                return fleet.start_failed(&error);
            }
            Err(Failed::Platform(error)) => {
                tracing::warn!(function = %fleet.version.function, instance = %instance.id, %error.error, "instance lost at its start");
                fleet.shared.released(&instance, "lost at its start");
                last = error;
            }
        }
    }
    guard.counted_off();
    fleet.start_failed(&last);
}

/// An instance from the pool, and whether one was ready; `None` when nobody needs it any more.
async fn claim(fleet: &Arc<Fleet>, reason: Reason) -> Option<(Arc<Instance>, bool)> {
    let mut ticket = match fleet.shared.pools.claim(&fleet.version.pool_key) {
        Claim::Now(instance) => return Some((instance, true)),
        Claim::Wait(ticket) => ticket,
    };
    loop {
        let slack = fleet.slack.notified();
        let mut slack = std::pin::pin!(slack);
        // Registered before looking, so that a call which leaves in between is not missed.
        slack.as_mut().enable();
        if fleet.start_not_needed(reason) {
            return None;
        }
        tokio::select! {
            // What arrived wins over what became superfluous in the same moment.
            biased;
            instance = ticket.wait() => return instance.map(|instance| (instance, false)),
            () = slack => {}
            () = over(reason) => {}
        }
    }
}

/// Ends when a start ahead of a call has come to nothing.
async fn over(reason: Reason) {
    match reason.until() {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

enum Failed {
    /// The version's own fault: other instances would fail alike.
    Version(CallError),
    /// The instance's: another one may do better.
    Platform(CallError),
}

async fn init(fleet: &Arc<Fleet>, instance: &Arc<Instance>, claimed: Instant) -> Result<ColdPhases, Failed> {
    let version = &fleet.version;
    let unavailable = |what: String| CallError::refused(ApiError::new(ErrorCode::Unavailable, what));
    if !instance.adopt(version.clone(), Arc::downgrade(fleet)) {
        // Cannot happen while the pool hands each instance out once; serving another version would be far worse.
        return Err(Failed::Platform(unavailable("instance already has a version".into())));
    }
    let bundle = fleet.shared.bundles.open(version.bundle, version.bundle_size).await;
    let bundle = bundle.map_err(|error| {
        tracing::error!(bundle = %version.bundle, %error, "code of a live version cannot be read");
        Failed::Version(unavailable("the version's code cannot be read now".into()))
    })?;
    let limit = fleet.shared.limits.init_timeout;
    let mut request = request(fleet, instance, limit.as_millis() as u64);
    // The bundle goes along in either case: the mount may turn out not to reach this container.
    // An image of the function's own has its code inside.
    request.code_mounted = !version.pool_key.is_own_image()
        && instance.link.takes_mounted_code()
        && fleet.shared.bundles.give(instance.id, version.bundle);
    let code_mounted = request.code_mounted;
    // The agent enforces the limit itself and says what happened; the margin is for its answer to arrive.
    let sent = Instant::now();
    let deadline = sent + limit + Duration::from_millis(500);
    let files = version.secret_files.iter().map(|(name, contents)| (&**name, &**contents));
    let done = match instance.link.give_secret_files(files) {
        Ok(()) => instance.link.init(request, bundle, deadline).await,
        // Waiting since before its image was made anew; the next one may be newer.
        Err(LinkError::Failure(failure)) => return Err(Failed::Platform(outcome::init_failure(failure))),
        Err(error) => Err(error),
    };
    match done {
        Ok(done) => {
            if code_mounted && !done.code_mounted {
                fleet.shared.bundles.missed();
            }
            Ok(phases(sent - claimed, sent.elapsed(), &done))
        }
        Err(LinkError::Failure(failure)) => Err(Failed::Version(outcome::init_failure(failure))),
        Err(LinkError::Deadline) => Err(Failed::Version(CallError::refused(ApiError::new(
            ErrorCode::FunctionInitFailed,
            format!("the function did not finish loading within {} s", limit.as_secs()),
        )))),
        Err(error @ (LinkError::Closed | LinkError::Protocol(_))) => {
            Err(Failed::Platform(unavailable(format!("instance lost: {error}"))))
        }
    }
}

/// Of the time from the first frame to its answer, the agent knows which part was loading; the rest is transfer.
fn phases(claim: Duration, answered: Duration, done: &InitDone) -> ColdPhases {
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    let load_ms = done.start_ms.clamp(0.0, ms(answered));
    ColdPhases { claim_ms: ms(claim), transfer_ms: ms(answered) - load_ms, load_ms, ..ColdPhases::default() }
}

fn debugger(spec: &VersionSpec) -> Option<Debugger> {
    Some(Debugger { wait: spec.debug?.wait, port: spec.runtime.debugger_port()? })
}

fn request(fleet: &Fleet, instance: &Instance, init_timeout_ms: u64) -> InitRequest {
    let version = &fleet.version;
    InitRequest {
        function_name: version.function.to_string(),
        version: version.number.to_string(),
        namespace: version.namespace.to_string(),
        kind: match version.spec.kind {
            FunctionKind::Handler => Kind::Handler,
            FunctionKind::Server => Kind::Server,
        },
        handler: version.spec.handler.clone(),
        command: version.spec.command.clone(),
        env: version.environment(),
        memory_mb: version.spec.memory_mb,
        timeout_seconds: version.spec.timeout_seconds,
        concurrency: version.spec.concurrency,
        init_timeout_ms,
        arn: version.arn(),
        log_group: format!("/davit/{}/{}", version.namespace, version.function),
        log_stream: format!(
            "{}/[{}]{}",
            Utc::now().format("%Y/%m/%d"),
            version.number,
            instance.id.0.simple()
        ),
        bundle_digest: version.bundle.to_string(),
        bundle_size: version.bundle_size,
        code_mounted: false,
        answers_asks: true,
        debugger: debugger(&version.spec),
    }
}

/// Keeps the count of starts right should a start panic.
struct Guard(Option<Arc<Fleet>>);

impl Guard {
    /// The count has been, or is about to be, corrected by the fleet itself.
    fn counted_off(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(fleet) = self.0.take() {
            fleet.start_failed(&CallError::refused(ApiError::new(
                ErrorCode::Internal,
                "starting an instance failed",
            )));
        }
    }
}
