//! What functions ask of their own platform: calls of other functions, now or later, and messages for topics.
//!
//! A request comes over the link of the instance that asks ([`Answers`]), so who asks needs no token and cannot say that
//! it is somebody else. `place.rs` reads what is wanted, `caller.rs` decides what follows from who wants it, `lambda.rs`
//! has the words of AWS's API; the rest is the same as for everybody: the corridor, the acceptor, the same errors.

mod caller;
mod lambda;
mod place;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use davit_api::{
    ApiError, ErrorCode, InvocationId, InvocationSource, InvocationWishes, Lineage, Qualifier, limits,
};
use davit_link::{AnswerHead, Ask, AskBody, AskHead};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use self::caller::{Caller, would_wait_for_itself};
use self::lambda::Kind;
use self::place::{Function, Place};
use crate::admit::ParkedBytes;
use crate::cloud_events;
use crate::event;
use crate::http::address::trace_id;
use crate::http::invocations::{answered, missing, when};
use crate::http::later::Via;
use crate::http::{Body, Public, choose, error};
use crate::instances::{Answers, Instance, LogTail};
use crate::invoke::{Answer, Call, Outcome, Payload, Target};
use crate::version::LiveVersion;

/// In which a body must come that was asked for; it has been read already, in the container.
const ARRIVAL: Duration = Duration::from_secs(30);

impl Answers for Public {
    fn answer(self: Arc<Self>, instance: &Arc<Instance>, ask: Ask) {
        let Some(version) = instance.version().cloned() else { return };
        let named = ask.head.request_id.as_deref().and_then(|id| id.parse().ok());
        let caller = Caller { version, standing: instance.ledger.standing(named) };
        let Ask { head, body, mut to } = ask;
        tokio::spawn(async move {
            let response = tokio::select! {
                biased;
                response = self.respond(&caller, &head, body) => response,
                // Dropping the call stops the function as a caller does who hangs up.
                () = to.gone() => return,
            };
            let (parts, body) = response.into_parts();
            let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
            let head = AnswerHead { status: parts.status.as_u16(), headers: headers.collect() };
            to.send(&head, body.into_bytes());
        });
    }
}

/// One request of a function.
struct Asked<'a> {
    caller: &'a Caller,
    headers: HeaderMap,
    query: &'a str,
    size: usize,
    body: AskBody,
    at: Instant,
}

/// A call that is to be made at once.
struct Now {
    callee: Arc<LiveVersion>,
    event: Bytes,
    client_context: Option<String>,
    tail: Option<Arc<LogTail>>,
}

impl Public {
    async fn respond(&self, caller: &Caller, head: &AskHead, body: AskBody) -> Response<Body> {
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let size = usize::try_from(head.size).unwrap_or(usize::MAX);
        let asked = Asked { caller, headers: headers(head), query, size, body, at: Instant::now() };
        let done = match place::read(&head.method, path, query) {
            Err(error) => Err(error),
            Ok(Place::Invoke(function)) => self.asked_to_call(asked, &function).await,
            Ok(Place::Batch(function)) => self.asked_to_call_many(asked, &function).await,
            Ok(Place::Publish(namespace, topic)) => {
                let own = &caller.version.namespace;
                if namespace.is_none_or(|namespace| namespace == *own) {
                    self.asked_to_publish(asked, cloud_events::Place { namespace: own, topic: &topic }).await
                } else {
                    let text = format!("a function publishes to topics of its own namespace, {own}");
                    Err(ApiError::new(ErrorCode::Forbidden, text))
                }
            }
            Ok(Place::Lambda(named)) => self.asked_by_lambda(asked, &named).await,
        };
        done.unwrap_or_else(|refused| {
            self.metrics.asked.refused.add(1);
            tracing::debug!(function = %caller.version.function, %refused, "a function was refused");
            if place::is_lambda(path) { lambda::refused(&refused) } else { error::refuse(&refused) }
        })
    }

    /// The version of a function that this caller may call, and gets. By name it may ask for versions of its own
    /// namespace only: which ones others still run is nobody else's business.
    async fn callee(
        &self,
        asked: &Asked<'_>,
        function: &Function,
        wanted: Option<&Qualifier>,
    ) -> Result<Arc<LiveVersion>, ApiError> {
        let caller = asked.caller;
        let own = &caller.version.namespace;
        let namespace = function.namespace.as_ref().unwrap_or(own);
        let live = self.routes.load().function(namespace.as_str(), function.name.as_str()).cloned();
        let live = live.ok_or_else(|| match namespace == own {
            true => missing(namespace, function.name.as_str()),
            false => caller.refused(&format!("{namespace}/{}", function.name)),
        })?;
        // The list that is in force counts, and that of the version that answers.
        caller.may_call(&live)?;
        if let Some(wanted) = wanted.filter(|_| namespace != own) {
            let text = format!("{namespace}/{} can be called as it is live, not {wanted}", function.name);
            return Err(ApiError::new(ErrorCode::Forbidden, text));
        }
        let callee = self.version_of(&live, wanted, &asked.headers).await?;
        caller.may_call(&callee)?;
        Ok(callee)
    }

    async fn asked_to_call(&self, asked: Asked<'_>, function: &Function) -> Result<Response<Body>, ApiError> {
        let wanted = choose::wanted(&asked.headers)?;
        let callee = self.callee(&asked, function, wanted.as_ref()).await?;
        let (wanted_later, wishes) = when(&asked.headers, asked.query)?;
        let (lineage, trace_id) = asked.lineage()?;
        if wanted_later {
            let (body, _parked) = self.body(asked, limits::ASYNC_PAYLOAD_BYTES).await?;
            return self.accept(&callee, wanted, event::json(body)?, wishes, lineage).await;
        }
        let (caller, at) = (asked.caller, asked.at);
        let (body, _parked) = self.body(asked, limits::PAYLOAD_BYTES).await?;
        let now = Now { callee, event: event::json(body)?, client_context: None, tail: None };
        let (outcome, id) = self.call_for(caller, at, now, lineage, trace_id).await?;
        Ok(answered(outcome, id))
    }

    async fn asked_to_call_many(
        &self,
        asked: Asked<'_>,
        function: &Function,
    ) -> Result<Response<Body>, ApiError> {
        let wanted = choose::wanted(&asked.headers)?;
        let callee = self.callee(&asked, function, wanted.as_ref()).await?;
        let (lineage, _) = asked.lineage()?;
        let (body, _parked) = self.body(asked, limits::PAYLOAD_BYTES).await?;
        let via = Via { source: InvocationSource::Function, lineage };
        let accepted = self.batch(&callee, wanted, &body, via).await?;
        self.metrics.asked.accepted.add(1);
        Ok(accepted)
    }

    async fn asked_to_publish(
        &self,
        asked: Asked<'_>,
        place: cloud_events::Place<'_>,
    ) -> Result<Response<Body>, ApiError> {
        let (lineage, _) = asked.lineage()?;
        let (headers, query) = (asked.headers.clone(), asked.query);
        let (body, _parked) = self.body(asked, limits::ASYNC_PAYLOAD_BYTES).await?;
        let published = self.publish_as(place, &headers, query, &body, lineage).await?;
        self.metrics.asked.published.add(1);
        Ok(published)
    }

    async fn asked_by_lambda(
        &self,
        asked: Asked<'_>,
        named: &lambda::Named,
    ) -> Result<Response<Body>, ApiError> {
        let wishes = lambda::wishes(&asked.headers)?;
        let wanted = named.qualifier.clone();
        let callee = self.callee(&asked, &named.function, wanted.as_ref()).await?;
        let (lineage, trace_id) = asked.lineage()?;
        match wishes.kind {
            Kind::DryRun => Ok(lambda::bare(StatusCode::NO_CONTENT, None)),
            Kind::Event => {
                let (body, _parked) = self.body(asked, limits::ASYNC_PAYLOAD_BYTES).await?;
                let event = event::json(body)?;
                let accepted =
                    self.accept(&callee, wanted, event, InvocationWishes::default(), lineage).await?;
                let id = accepted.headers().get("x-davit-invocation-id").and_then(|id| id.to_str().ok());
                Ok(lambda::bare(StatusCode::ACCEPTED, id.and_then(|id| id.parse().ok())))
            }
            Kind::RequestResponse => {
                let (caller, at) = (asked.caller, asked.at);
                // What another tenant's function logs is that tenant's.
                let own = callee.namespace == caller.version.namespace;
                let tail = (wishes.tail && own).then(Arc::<LogTail>::default);
                let (body, _parked) = self.body(asked, limits::PAYLOAD_BYTES).await?;
                let event = event::json(body)?;
                let client_context = wishes.client_context;
                let now = Now { callee, event, client_context, tail: tail.clone() };
                let (outcome, id) = self.call_for(caller, at, now, lineage, trace_id).await?;
                let mut response = match outcome.result {
                    Ok(Answer::Event { body, .. }) => lambda::answered(body, outcome.version, id),
                    Ok(Answer::Http(response)) => *response,
                    Err(failed) => lambda::failed(&failed, outcome.version, id),
                };
                if let Some(tail) = tail {
                    lambda::log_tail(&mut response, &tail.text());
                }
                Ok(response)
            }
        }
    }

    /// The body of a request, of at most `limit` bytes, and the room that it takes.
    async fn body(&self, asked: Asked<'_>, limit: usize) -> Result<(Bytes, ParkedBytes<'_>), ApiError> {
        if asked.size > limit {
            let text = format!("the body is larger than {limit} bytes");
            return Err(ApiError::new(ErrorCode::TooLarge, text));
        }
        let parked = self.parked.take(asked.size)?;
        let body = tokio::time::timeout(ARRIVAL, asked.body.whole()).await.ok().flatten();
        let body = body.ok_or_else(|| ApiError::new(ErrorCode::Unavailable, "the body did not come"))?;
        Ok((body, parked))
    }

    /// Hands a call to the queue.
    async fn accept(
        &self,
        callee: &LiveVersion,
        wanted: Option<Qualifier>,
        event: Bytes,
        wishes: InvocationWishes,
        lineage: Lineage,
    ) -> Result<Response<Body>, ApiError> {
        let via = Via { source: InvocationSource::Function, lineage };
        let accepted = self.later(callee, wanted, event, wishes, via).await?;
        self.metrics.asked.accepted.add(1);
        Ok(accepted)
    }

    /// Carries a call out for a function that waits for its answer.
    async fn call_for(
        &self,
        caller: &Caller,
        arrived: Instant,
        now: Now,
        lineage: Lineage,
        trace_id: Option<Arc<str>>,
    ) -> Result<(Outcome, InvocationId), ApiError> {
        let Now { callee, event, client_context, tail } = now;
        let cause = caller.cause(lineage);
        would_wait_for_itself(&cause, &callee)?;
        let budget = caller.budget(&callee, arrived);
        let request_id = InvocationId::new();
        let call = Call {
            payload: Payload::Event(event),
            arrived,
            deadline: budget.deadline,
            request_id,
            source: InvocationSource::Function,
            trace_id,
            client_context,
            cause: Some(Arc::new(cause)),
            log_tail: tail,
        };
        self.metrics.asked.calls.add(1);
        let mut outcome = self.corridor.invoke(Target { version: callee.clone() }, call).await;
        if let Err(failed) = &mut outcome.result
            && budget.inherited
            && matches!(failed.error.code, ErrorCode::FunctionTimeout | ErrorCode::NoCapacity)
        {
            // It had less than its own time, and whoever looks at that must not be misled.
            let had = budget.deadline.saturating_duration_since(arrived).as_secs_f64();
            let (by, of) = (&caller.version.function, &callee.function);
            failed.error.message =
                format!("{of} did not answer within the {had:.2} s that were left of {by}'s time");
            failed.function_error = None;
        }
        Ok((outcome, request_id))
    }
}

impl Asked<'_> {
    /// Where what it causes stands: in its chain, and in which trace.
    fn lineage(&self) -> Result<(Lineage, Option<Arc<str>>), ApiError> {
        let traceparent = self.headers.get("traceparent").and_then(|value| value.to_str().ok());
        let trace_id = self.caller.trace_id(trace_id(&self.headers).as_deref(), traceparent);
        Ok((self.caller.lineage(trace_id.as_deref())?, trace_id))
    }
}

fn headers(head: &AskHead) -> HeaderMap {
    let pairs = head.headers.iter().filter_map(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for (name, value) in pairs {
        // One that is there twice stays so: whoever reads it decides what that means.
        headers.append(name, value);
    }
    headers
}
