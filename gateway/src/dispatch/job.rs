//! One claimed job: find where it goes, carry it out, settle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use davit_api::{ApiError, ErrorCode, FunctionId, FunctionName, Qualifier};
use davit_registry::{ClaimedTarget, Job, Settled, Settlement};

use super::Dispatch;
use super::classify::{Attempt, Verdict, classify, too_old};
use super::held::Ends;
use super::room::Room;
use super::settle::Settler;
use crate::invoke::{Answer, Call, CallError, Cause, Payload, Target};
use crate::metrics::Number;
use crate::version::LiveVersion;

/// An attempt that failed.
pub(crate) struct Failed {
    /// Why.
    pub(crate) error: CallError,
    /// What the other side asked for before the next one.
    pub(crate) retry_after: Option<Duration>,
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        Self { error, retry_after: None }
    }
}

/// Runs one attempt and records what became of it, unless it was lost or cut: then others say.
pub(super) async fn run(dispatch: &Dispatch, settler: &Settler, room: &Room, job: Job, ends: &Ends) {
    let started = Instant::now();
    let jobs = &dispatch.metrics.jobs;
    if job.attempt == 1 {
        jobs.wait_ms.note(job.age.as_secs_f64() * 1_000.0);
    }
    jobs.running.add(1);
    let _running = Running(&jobs.running);
    let settlement = if too_old(&job.policy, job.age) {
        let text = format!("no attempt succeeded within {} s of its acceptance", job.policy.max_age_seconds);
        let error = CallError::refused(ApiError::new(ErrorCode::NoCapacity, text));
        Settlement::Dead { error: error.body(job.id) }
    } else {
        let ended = tokio::select! {
            biased;
            ended = attempt_once(dispatch, &job, started) => Some(ended),
            // Dropping the attempt stops the function as a caller does who hangs up.
            () = ends.cancel.cancelled() => None,
            () = ends.lost.cancelled() => {
                jobs.late.add(1);
                tracing::warn!(invocation = %job.id, attempt = job.attempt, "stopped: its lease lapsed and it is another's");
                return left(room, &job);
            }
            // The attempt stays counted, but it is put back whatever its number: nobody failed.
            () = dispatch.cut.cancelled() => {
                tracing::info!(invocation = %job.id, attempt = job.attempt, "cut by the end of this gateway; it is put back");
                return;
            }
        };
        ended.map_or(Settlement::Cancelled, |outcome| decide(&job, started, outcome))
    };
    let no_place = matches!(settlement, Settlement::RetryAt { counts: false, .. });
    let (id, attempt, has_consequences) = (job.id, job.attempt, job.has_consequences);
    let ok = matches!(settlement, Settlement::Succeeded { .. });
    let counted = match &settlement {
        Settlement::Succeeded { .. } => &jobs.succeeded,
        Settlement::RetryAt { .. } => &jobs.retried,
        Settlement::Dead { .. } => &jobs.dead,
        Settlement::Cancelled => &jobs.cancelled,
    };
    if settler.settle(Settled { id, attempt, has_consequences, settlement }).await {
        counted.add(1);
        tracing::debug!(invocation = %id, attempt, ok, "attempt ended");
    } else {
        jobs.late.add(1);
        // The lease lapsed and somebody else took over; what they record is what counts.
        tracing::warn!(invocation = %id, attempt, "settled too late; another attempt took over");
    }
    // Only now: what was put back must be in the queue before it can be called in.
    if let ClaimedTarget::Function { id, .. } = job.target {
        if no_place { room.put_back(id) } else { room.left(id) }
    }
}

/// A place of its function is free.
fn left(room: &Room, job: &Job) {
    if let ClaimedTarget::Function { id, .. } = job.target {
        room.left(id);
    }
}

/// Counts a job as running until it is dropped, however that comes.
struct Running<'m>(&'m Number);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

fn decide(job: &Job, started: Instant, outcome: Result<Bytes, Failed>) -> Settlement {
    let failed = match outcome {
        Ok(result) => return Settlement::Succeeded { result: result.to_vec() },
        Err(failed) => failed,
    };
    let ended = Attempt {
        number: job.attempt.saturating_sub(job.excused),
        excused: job.excused,
        age: job.age + started.elapsed(),
        error: Some(failed.error.error.code),
        retry_after: failed.retry_after,
        chance: rand::random(),
    };
    let error = failed.error.body(job.id);
    match classify(ended, &job.policy) {
        Verdict::Retry { delay, counts } => Settlement::RetryAt { delay, error, counts },
        Verdict::Dead | Verdict::Done => Settlement::Dead { error },
    }
}

async fn attempt_once(dispatch: &Dispatch, job: &Job, arrived: Instant) -> Result<Bytes, Failed> {
    match &job.target {
        ClaimedTarget::Function { id, name, qualifier } => {
            let version = choose(dispatch, job, *id, name, qualifier.as_ref());
            let version = version.await.map_err(CallError::refused)?;
            Ok(call(dispatch, job, version, arrived).await?)
        }
        ClaimedTarget::Webhook(hook) => dispatch.sender.send(hook, job).await,
    }
}

/// The version for an attempt. It is chosen when the attempt runs, not when the invocation was accepted: what waits or
/// failed reaches a version that was put right meanwhile, and none that was found bad. Chance is asked anew each time.
async fn choose(
    dispatch: &Dispatch,
    job: &Job,
    function: FunctionId,
    name: &FunctionName,
    qualifier: Option<&Qualifier>,
) -> Result<Arc<LiveVersion>, ApiError> {
    let missing = |what: &dyn std::fmt::Display| {
        let text = format!("function {}/{name} has no {what}", job.namespace);
        ApiError::new(ErrorCode::NotFound, text)
    };
    let live = {
        let table = dispatch.routes.load();
        let live = table.function_by_id(function).ok_or_else(|| missing(&"live version"))?;
        match qualifier {
            None => return Ok(table.pick(live, |_| None).clone()),
            Some(Qualifier::Alias(alias)) => {
                let named = table.alias(live, alias.as_str(), |_| None);
                return named.cloned().ok_or_else(|| missing(&format_args!("alias {alias}")));
            }
            Some(Qualifier::Version(_)) => live.clone(),
        }
    };
    match qualifier {
        Some(Qualifier::Version(number)) => dispatch.pins.find(&live, *number).await,
        _ => Ok(live),
    }
}

/// What came of a function carries its place in the chain along; nobody waits for it.
fn cause(job: &Job) -> Option<Arc<Cause>> {
    let lineage = job.lineage.clone();
    (lineage.hops > 0).then(|| Arc::new(Cause { lineage, waiting: None }))
}

async fn call(
    dispatch: &Dispatch,
    job: &Job,
    version: Arc<LiveVersion>,
    arrived: Instant,
) -> Result<Bytes, CallError> {
    let call = Call {
        payload: Payload::Event(Bytes::from(job.payload.clone())),
        arrived,
        deadline: arrived + version.spec.async_timeout(),
        request_id: job.id,
        source: job.source,
        trace_id: job.lineage.caller.as_ref().and_then(|caller| caller.trace_id.as_deref()).map(Arc::from),
        client_context: None,
        cause: cause(job),
        log_tail: None,
    };
    match dispatch.carrier.carry(Target { version }, call).await.result? {
        Answer::Event { body, .. } => Ok(body),
        Answer::Http(_) => {
            let text = "an event was answered by a stream";
            Err(CallError {
                error: ApiError::new(ErrorCode::Internal, text),
                function_error: None,
                started: true,
            })
        }
    }
}
