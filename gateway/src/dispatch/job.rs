//! One claimed job: find its function, carry it out, settle.

use std::time::{Duration, Instant};

use bytes::Bytes;
use davit_api::{ApiError, ErrorBody, ErrorCode};
use davit_daemon::Backoff;
use davit_registry::{Job, RegistryError, Settlement};

use super::Dispatch;
use super::classify::{Attempt, Verdict, classify, too_old};
use crate::invoke::{Answer, Call, CallError, Payload, Target};

/// Runs one attempt and records what became of it.
pub(super) async fn run(dispatch: &Dispatch, job: Job) {
    let started = Instant::now();
    let (id, attempt, policy, age) = (job.id, job.attempt, job.policy, job.age);
    if too_old(&policy, age) {
        let text = format!("no attempt succeeded within {} s of its acceptance", policy.max_age_seconds);
        let error = body(&CallError::refused(ApiError::new(ErrorCode::NoCapacity, text)), &job);
        return settle(dispatch, &job, Settlement::Dead { error }).await;
    }
    let outcome = attempt_once(dispatch, &job, started).await;
    let ended = Attempt {
        number: attempt,
        age: age + started.elapsed(),
        error: outcome.as_ref().err().map(|e| e.error.code),
        chance: rand::random(),
    };
    let settlement = match (outcome, classify(ended, &policy)) {
        (Ok(result), _) => Settlement::Succeeded { result: result.to_vec() },
        (Err(error), Verdict::Retry(delay)) => Settlement::RetryAt { delay, error: body(&error, &job) },
        (Err(error), Verdict::Dead | Verdict::Done) => Settlement::Dead { error: body(&error, &job) },
    };
    tracing::debug!(invocation = %id, attempt, ok = matches!(settlement, Settlement::Succeeded { .. }), "attempt ended");
    settle(dispatch, &job, settlement).await;
}

async fn attempt_once(dispatch: &Dispatch, job: &Job, arrived: Instant) -> Result<Bytes, CallError> {
    let Some(version) = dispatch.routes.load().function_by_id(job.function_id).cloned() else {
        let text = format!("function {}/{} has no live version", job.namespace, job.function);
        return Err(CallError::refused(ApiError::new(ErrorCode::NotFound, text)));
    };
    let call = Call {
        payload: Payload::Event(Bytes::from(job.payload.clone())),
        arrived,
        deadline: arrived + Duration::from_secs(version.spec.timeout_seconds.into()),
        request_id: job.id,
        source: job.source,
        trace_id: None,
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

fn body(error: &CallError, job: &Job) -> ErrorBody {
    error.body(job.id)
}

/// Records how the attempt ended. While the registry is away this waits, with the job's slot: the attempt has
/// run, and forgetting its outcome would run it again.
async fn settle(dispatch: &Dispatch, job: &Job, settlement: Settlement) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match dispatch.registry.settle(job.id, job.attempt, settlement.clone()).await {
            Ok(true) => return,
            Ok(false) => {
                // The lease lapsed and somebody else took over; what they record is what counts.
                tracing::warn!(invocation = %job.id, attempt = job.attempt, "settled too late; another attempt took over");
                return;
            }
            Err(RegistryError::Unavailable(error)) => {
                tracing::debug!(%error, invocation = %job.id, "cannot settle yet");
                backoff.wait().await;
            }
            Err(error) => {
                tracing::error!(%error, invocation = %job.id, "an outcome was refused; the lease will lapse");
                return;
            }
        }
    }
}
