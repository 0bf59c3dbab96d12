//! THE corridor: every call, whichever door it came through, is carried out here.
//!
//! Admit, get an instance, forward, outcome. There is one place for the deadline, for concurrency, for the one
//! retry that is safe, and for what is recorded.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use davit_api::{ApiError, ErrorCode, FunctionKind, InvocationSource};
use davit_link::{InvokeHead, InvokeResult, Link, LinkError, Reply};
use tokio::sync::oneshot;

use crate::account::{Account, TRIES};
use crate::forward::{self, Exchange};
use crate::http::Body;
use crate::instances::{Instances, Slot, Underway};
use crate::outcome;
use crate::passing::{Passed, Relay};
use crate::stream::{self, Answered, Passing, Streaming};
use crate::version::LiveVersion;

pub use crate::call::{Answer, Call, CallError, Cause, Outcome, Payload, Target, Waiting};

/// The agent ends a call at its deadline and says so; this is how long its word may take.
const AGENT_MARGIN: Duration = Duration::from_millis(500);
/// How long lines that belong to a call are waited for when none has come.
const LOG_PATIENCE: Duration = Duration::from_millis(20);

/// The corridor; cheap to clone.
#[derive(Clone)]
pub struct Corridor {
    instances: Instances,
    exchange: Arc<Exchange>,
    /// How long a handler whose caller hung up may go on.
    grace: Duration,
    /// The way to other gateways.
    passing: Option<Arc<Relay>>,
}

impl Corridor {
    /// A corridor to these instances.
    pub fn new(instances: Instances, exchange: Arc<Exchange>) -> Self {
        let grace = instances.shared().limits.abandon_grace;
        Self { instances, exchange, grace, passing: None }
    }

    /// The same, with a way to other gateways.
    #[must_use]
    pub fn with_passing(self, passing: Arc<Relay>) -> Self {
        Self { passing: Some(passing), ..self }
    }

    /// Whether a call may be another gateway's.
    pub(crate) fn may_pass_on(&self, version: &Arc<LiveVersion>) -> bool {
        self.passing.as_ref().is_some_and(|passing| passing.concerns(version))
    }

    /// The instances it leads to.
    pub fn instances(&self) -> &Instances {
        &self.instances
    }

    /// Carries out a call. Dropping the future gives up: the function is told and the slot comes back.
    pub async fn invoke(&self, target: Target, call: Call) -> Outcome {
        let call = match &self.passing {
            // Boxed, so that calls which stay do not carry its room along.
            Some(passing) if passing.concerns(&target.version) => {
                match Box::pin(passing.pass(&target.version, call)).await {
                    Passed::Here(call) => call,
                    Passed::Done(outcome) => return outcome,
                }
            }
            _ => call,
        };
        self.carry_out_here(target, call).await
    }

    /// The same in an instance of this gateway, whatever others there are.
    pub(crate) async fn carry_out_here(&self, target: Target, call: Call) -> Outcome {
        let mut account = self.account(&target.version, call.arrived, Underway::of(&call));
        let version = target.version.number;
        match self.carry_out(&mut account, call).await {
            Ok(Carried::Streamed(Answered { response, body: Some((first, stream)) })) => {
                account.answered(response.status().as_u16());
                let (cold, timings) = account.begun();
                let body = Body::result(Passing::new(first, stream, account));
                let result = Ok(Answer::Http(Box::new(response.map(|()| body))));
                Outcome { result, cold, timings, version }
            }
            ended => {
                let result = ended.map(|carried| match carried {
                    Carried::Whole(answer) => answer,
                    Carried::Streamed(Answered { response, .. }) => {
                        Answer::Http(Box::new(response.map(|()| Body::empty())))
                    }
                });
                if let Ok(Answer::Http(response)) = &result {
                    account.answered(response.status().as_u16());
                }
                let (cold, timings) = account.close(result.as_ref().err().map(|failed| failed.error.code));
                Outcome { result, cold, timings, version }
            }
        }
    }

    /// Joins a client to the debugger of one of a version's instances, which is started if need be.
    pub async fn debug(
        &self,
        version: &Arc<LiveVersion>,
        client: hyper::upgrade::OnUpgrade,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let attached = self.instances.fleet(version).attach(deadline).await?;
        self.exchange.debug(attached, client);
        Ok(())
    }

    /// Opens the account of a call to a version.
    pub(crate) fn account(&self, version: &Arc<LiveVersion>, arrived: Instant, call: Underway) -> Account {
        Account::open(self.instances.shared().metrics.clone(), self.instances.fleet(version), arrived, call)
    }

    async fn carry_out(&self, account: &mut Account, call: Call) -> Result<Carried, CallError> {
        let version = account.fleet().version.clone();
        if !version.missing_secrets.is_empty() {
            let message = format!(
                "the function needs secrets that do not exist: {}",
                version.missing_secrets.join(", ")
            );
            return Err(CallError::refused(ApiError::new(ErrorCode::FunctionInitFailed, message)));
        }
        match (version.spec.kind, call.payload) {
            (FunctionKind::Handler, Payload::Event(event)) => {
                let call = Call { payload: Payload::Event(Bytes::new()), ..call };
                self.call_handler(account, &version, &call, event).await
            }
            (FunctionKind::Server, Payload::Http(request)) => {
                let mut request = *request;
                for last in [false, false, true] {
                    let slot = account.slot().await?;
                    match self.exchange.send(slot, request, call.deadline).await {
                        Ok(response) => return Ok(Carried::Whole(Answer::Http(Box::new(response)))),
                        Err(forward::Failed::Unsent(back, _)) if !last => request = *back,
                        Err(forward::Failed::Unsent(_, error) | forward::Failed::Final(error)) => {
                            return Err(error);
                        }
                    }
                }
                unreachable_instances()
            }
            (FunctionKind::Server, Payload::Event(event)) => {
                let call = Call { payload: Payload::Event(Bytes::new()), ..call };
                let answered = self.post_event(account, &version, &call, event).await;
                answered.map(Carried::Whole).map_err(|failed| match failed.error.code {
                    // An asynchronous call may have another budget than the function's.
                    ErrorCode::FunctionTimeout => timed_out_after(call.budget_seconds()),
                    _ => failed,
                })
            }
            (FunctionKind::Handler, Payload::Http(_)) => {
                // The HTTP door turns requests into events before they get here.
                Err(CallError::refused(ApiError::new(
                    ErrorCode::Internal,
                    "a handler was sent an HTTP request",
                )))
            }
        }
    }

    async fn call_handler(
        &self,
        account: &mut Account,
        version: &Arc<LiveVersion>,
        call: &Call,
        event: Bytes,
    ) -> Result<Carried, CallError> {
        let slot = account.slot().await?;
        let tap = call.log_tail.as_ref().map(|tail| slot.instance().tap(call.request_id, tail.clone()));
        let link = slot.instance().link.clone();
        let head = InvokeHead {
            request_id: call.request_id.to_string(),
            deadline_unix_ms: unix_ms(call.deadline),
            arn: version.arn(),
            trace_id: call.trace_id.as_deref().unwrap_or_default().to_owned(),
            client_context: call.client_context.clone(),
            timeout_seconds: Some(call.budget_seconds()),
            result_window: 0,
        };
        // Only an HTTP client can be given what is not complete. The other doors get results whole, and the agent
        // holds those to the payload limit.
        let streams = call.source == InvocationSource::Http;
        let deadline = call.deadline + AGENT_MARGIN;
        // A task of its own: cancelling a handler ends its instance, so one whose caller hangs up gets a moment to
        // finish by itself. That the caller is gone the task learns from the channel.
        let (teller, told) = oneshot::channel();
        let run = Run { head, event, deadline, streams, grace: self.grace };
        tokio::spawn(run.carry_out(slot, teller));
        let answered = told.await;
        if let (Some(_tap), Some(tail)) = (tap, &call.log_tail)
            && tail.is_empty()
        {
            // What was written just before the result may come just after it; one round trip lets it arrive.
            let _ = link.ping(Instant::now() + LOG_PATIENCE).await;
        }
        match answered {
            Ok(Ok(Handled::Whole(InvokeResult { content_type, body }))) => {
                Ok(Carried::Whole(Answer::Event { content_type, body }))
            }
            Ok(Ok(Handled::Streamed(stream))) => stream.head(version, deadline).await.map(Carried::Streamed),
            Ok(Err(error)) => Err(call_error(error, version)),
            Err(_) => Err(lost()),
        }
    }

    /// A server function gets an event as a POST, like Lambda's web adapter does it.
    async fn post_event(
        &self,
        account: &mut Account,
        version: &Arc<LiveVersion>,
        call: &Call,
        event: Bytes,
    ) -> Result<Answer, CallError> {
        let mut tries = 0;
        let response = loop {
            let slot = account.slot().await?;
            tries += 1;
            match self.exchange.send(slot, forward::event_request(event.clone(), call), call.deadline).await {
                Ok(response) => break response,
                Err(forward::Failed::Unsent(..)) if tries < TRIES => {}
                Err(forward::Failed::Unsent(_, error) | forward::Failed::Final(error)) => return Err(error),
            }
        };
        forward::event_answer(response, version, call.deadline).await
    }
}

/// What a call brought back, inside the corridor.
enum Carried {
    Whole(Answer),
    Streamed(Answered),
}

/// How a handler answered.
enum Handled {
    Whole(InvokeResult),
    Streamed(Streaming),
}

/// One call to a handler, in a task of its own.
struct Run {
    head: InvokeHead,
    event: Bytes,
    deadline: Instant,
    /// Whether the result may be given before it is complete.
    streams: bool,
    /// How long it may go on after its caller went away.
    grace: Duration,
}

impl Run {
    /// Carries it out in an instance, tells how it went, and gives the slot back, in that order only where the result
    /// is streamed. Ends without a word when the caller went away and the grace is over.
    async fn carry_out(self, mut slot: Slot, mut teller: oneshot::Sender<Result<Handled, LinkError>>) {
        let Self { head, event, deadline, streams, grace } = self;
        let link = slot.instance().link.clone();
        // Until the agent has answered the instance is in the middle of a call: nobody else may be given it, should
        // this end here.
        slot.set_spoiled(true);
        let answered = {
            let abandoned = async {
                teller.closed().await;
                tokio::time::sleep(grace).await;
            };
            tokio::select! {
                biased;
                answered = begin(&link, head, event, deadline, streams) => answered,
                () = abandoned => return,
            }
        };
        let result = match answered {
            Ok(Reply::Streamed(stream)) => {
                let (streaming, held) = stream::share(stream);
                // One that cannot be told any more has gone, and dropping the stream says so.
                let _ = teller.send(Ok(Handled::Streamed(streaming)));
                return stream::hold(slot, held, deadline, grace).await;
            }
            Ok(Reply::Whole(result)) => Ok(Handled::Whole(result)),
            Err(error) => Err(error),
        };
        slot.set_spoiled(match &result {
            Ok(_) => false,
            Err(LinkError::Failure(failure)) => outcome::spoils(failure.kind),
            Err(LinkError::Deadline | LinkError::Closed | LinkError::Protocol(_)) => true,
        });
        drop(slot);
        let _ = teller.send(result);
    }
}

async fn begin(
    link: &Link,
    head: InvokeHead,
    event: Bytes,
    deadline: Instant,
    streams: bool,
) -> Result<Reply, LinkError> {
    if streams {
        link.call(head, event, deadline).await
    } else {
        link.invoke(head, event, deadline).await.map(Reply::Whole)
    }
}

/// What a failed call to a handler is told as.
pub(crate) fn call_error(error: LinkError, version: &LiveVersion) -> CallError {
    match error {
        LinkError::Failure(failure) => outcome::call_failure(failure),
        LinkError::Deadline => timed_out(version),
        LinkError::Closed | LinkError::Protocol(_) => lost(),
    }
}

pub(crate) fn unreachable_instances<T>() -> Result<T, CallError> {
    Err(CallError::refused(ApiError::new(
        ErrorCode::NoCapacity,
        "instances were lost before the call could be sent",
    )))
}

/// The instance went away while it had the call.
pub(crate) fn lost() -> CallError {
    let error = ApiError::new(
        ErrorCode::InstanceLost,
        "the instance was lost during the call; it may have been started",
    );
    CallError { error, function_error: None, started: true }
}

/// The budget ended while the function had the call.
pub(crate) fn timed_out(version: &LiveVersion) -> CallError {
    timed_out_after(version.spec.timeout_seconds)
}

fn timed_out_after(seconds: u32) -> CallError {
    let text = format!("the function did not answer within {seconds} s");
    let error = ApiError::new(ErrorCode::FunctionTimeout, text);
    CallError { error, function_error: None, started: true }
}

/// The agent shares the machine's clock, so an instant can be told as wall time.
fn unix_ms(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + left;
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}
