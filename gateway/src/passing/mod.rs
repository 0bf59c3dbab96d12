//! Calls that another gateway carries out: to it over a port that only gateways speak on, and back. `davit_scaling::gather`
//! decides; every door's calls come by here, since the corridor asks (`Relay::pass`).
//!
//! A call is passed on once at most. Until the other side has taken it, it can come back and be carried out here: what
//! could not be sent twice (a long body) is passed on only where this gateway may hold no instance at all.

mod door;
mod line;
mod words;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use davit_api::{ApiError, ErrorCode, GatewayId, PhaseTimings, limits};
use davit_scaling::gather::{self, Way};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::forward::{clean_response, clean_upgraded, upgrade};
use crate::http::{Body, collect};
use crate::instances::Instances;
use crate::invoke::{Answer, Call, CallError, Outcome, Payload, lost};
use crate::metrics::Metrics;
use crate::peers::Peer;
use crate::version::LiveVersion;
use line::{Line, Lines, Returned};
use words::{Facts, Failure, NOTE, Note, PROOF, Refusal, Seal, TICKET, Ticket};

pub use door::{Inner, serve};

/// Longest body that is held to be sent again, in bytes.
const HELD_BYTES: u64 = 64 * 1024;
/// For how long a gateway that was full is not asked again, which is about what it takes to start an instance.
const FULL: Duration = Duration::from_millis(250);
/// For how long one that did not answer, or ends, is not.
const AWAY: Duration = Duration::from_secs(1);
/// The other side ends a call at its deadline and says so; this is how long its word may take.
const MARGIN: Duration = Duration::from_secs(1);

/// Passes calls on.
pub struct Relay {
    me: GatewayId,
    instances: Instances,
    seal: Seal,
    lines: Lines,
    busy: Busy,
    /// WebSockets that pass through.
    upgrades: TaskTracker,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
}

/// A call on its way back to where it came in, or what became of it.
pub(crate) enum Passed {
    /// It is to be carried out here.
    Here(Call),
    /// It was carried out.
    Done(Outcome),
}

/// What another gateway made of a call.
enum Taken {
    /// Nothing: it can go elsewhere.
    Back(Bytes, Why),
    /// It is done, well or not.
    Done(Result<Answer, CallError>, Facts),
}

/// Why a call came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Refused(Refusal),
    Unreachable,
    /// It cannot be said in a header.
    Unsayable,
}

impl Relay {
    /// `key`: what all gateways of the installation prove themselves by. `stop` ends upgraded connections.
    pub fn new(me: GatewayId, instances: Instances, key: [u8; 32], stop: CancellationToken) -> Self {
        let metrics = instances.shared().metrics.clone();
        let (lines, busy, upgrades) = (Lines::default(), Busy::default(), TaskTracker::new());
        Self { me, instances, seal: Seal::new(key), lines, busy, upgrades, stop, metrics }
    }

    /// Lets go of connections to gateways that take no calls any more, as soon as that is heard of.
    pub async fn tidy(self: Arc<Self>, stop: CancellationToken) {
        let peers = &self.instances.shared().peers;
        while stop.run_until_cancelled(peers.news()).await.is_some() {
            let known = peers.known();
            self.lines.keep_to(|to| known.others.iter().any(|peer| peer.address == *to));
        }
    }

    /// Whether a call may be another gateway's: there are others, and no instance here has a place for it.
    pub(crate) fn concerns(&self, version: &Arc<LiveVersion>) -> bool {
        self.instances.shared().peers.has_others() && !self.instances.place(version).free
    }

    /// Passes a call on if that is what becomes of it.
    pub(crate) async fn pass(&self, version: &Arc<LiveVersion>, mut call: Call) -> Passed {
        let peers = self.instances.shared().peers.known();
        let function = version.function_id.0.as_u128();
        let may_hold =
            |peer: &&Peer| peers.view.share_of(peer.id.0.as_u128(), function, version.spec.max_instances) > 0;
        let others: Vec<Peer> = peers.others.iter().filter(may_hold).copied().collect();
        let ids: Vec<u128> = others.iter().map(|peer| peer.id.0.as_u128()).collect();
        let here = self.instances.place(version);
        if !self.hold(&mut call, here.any || here.may).await {
            return Passed::Here(call);
        }
        // Each is asked once at most, and the last one with a call that waits.
        for _ in 0..=others.len() {
            let here = self.instances.place(version);
            let full = |id| self.busy.is(function, id);
            let Way::To { gateway, waits } = gather::way(function, self.me.0.as_u128(), here, &ids, full)
            else {
                break;
            };
            let Some(peer) = others.iter().find(|peer| peer.id.0.as_u128() == gateway) else { break };
            match self.hand_over(peer, version, &mut call, waits).await {
                Taken::Done(result, facts) => {
                    self.metrics.passed_on.add(1);
                    if let (Some(tail), false) = (&call.log_tail, facts.tail.is_empty()) {
                        tail.push(&facts.tail);
                    }
                    let Facts { cold, timings, .. } = facts;
                    return Passed::Done(Outcome { result, cold, timings, version: version.number });
                }
                Taken::Back(body, why) => {
                    self.metrics.passed_back.add(1);
                    self.busy.note(function, gateway, why);
                    put_back(&mut call, body);
                    if waits || why == Why::Unsayable {
                        break;
                    }
                }
            }
        }
        Passed::Here(call)
    }

    /// Sees to it that the call's bytes can be sent twice. `false`: they cannot, and it is carried out here. `any`: whether it
    /// can be.
    async fn hold(&self, call: &mut Call, any: bool) -> bool {
        let Payload::Http(request) = &mut call.payload else { return true };
        // gRPC takes HTTP/2 all the way.
        if request.version() == http::Version::HTTP_2 {
            return false;
        }
        let body = request.body();
        if body.is_end_stream() || body.size_hint().exact().is_some_and(|bytes| bytes <= HELD_BYTES) {
            let body = std::mem::take(request.body_mut());
            let whole =
                tokio::time::timeout_at(call.deadline.into(), collect(body, HELD_BYTES as usize)).await;
            let Ok(Ok(bytes)) = whole else {
                // The client broke off; whoever carries the call out finds nothing to read.
                *request.body_mut() = Body::empty();
                return false;
            };
            *request.body_mut() = Body::full(bytes);
            return true;
        }
        !any
    }

    async fn hand_over(
        &self,
        peer: &Peer,
        version: &Arc<LiveVersion>,
        call: &mut Call,
        waits: bool,
    ) -> Taken {
        let (method, target) = match &call.payload {
            Payload::Event(_) => (Method::POST, Uri::from_static("/event")),
            Payload::Http(request) => (request.method().clone(), request.uri().clone()),
        };
        let ticket = self.ticket(peer, version, call, waits);
        let Some((ticket, proof)) = self.seal.sign(&method, &target, &ticket) else {
            return Taken::Back(body_of(call), Why::Unsayable);
        };
        let held = body_of(call);
        let body = match &mut call.payload {
            Payload::Event(event) => Body::full(event.clone()),
            Payload::Http(request) => std::mem::take(request.body_mut()),
        };
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut()) = (method, target);
        if let Payload::Http(theirs) = &call.payload {
            request.headers_mut().clone_from(theirs.headers());
        }
        request.headers_mut().insert(TICKET, ticket);
        request.headers_mut().insert(PROOF, proof);
        request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("gateway"));
        let until = call.deadline + MARGIN;
        let sent = tokio::time::timeout_at(until.into(), self.lines.exchange(peer.address, request)).await;
        match sent {
            Err(_) => done(Err(self.silent())),
            Ok(Err(line::Failed::Unsent)) => Taken::Back(held, Why::Unreachable),
            Ok(Err(line::Failed::Broken(error))) => {
                tracing::debug!(gateway = %peer.id, %error, "a gateway was lost with a call");
                done(Err(lost()))
            }
            Ok(Ok((line, response))) => self.answer(peer, line, response, call, held, until).await,
        }
    }

    fn ticket(&self, peer: &Peer, version: &LiveVersion, call: &Call, waits: bool) -> Ticket {
        let now = Instant::now();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let lineage = call.cause.as_ref().map(|cause| &cause.lineage);
        Ticket {
            to: peer.id,
            at: unix_seconds(),
            function: version.function_id,
            version: version.version_id,
            number: version.number,
            event: matches!(call.payload, Payload::Event(_)),
            request_id: call.request_id,
            source: call.source,
            left_ms: ms(call.deadline.saturating_duration_since(now)),
            spent_ms: ms(now.saturating_duration_since(call.arrived)),
            trace_id: call.trace_id.as_deref().map(str::to_owned),
            client_context: call.client_context.clone(),
            hops: lineage.map(|lineage| lineage.hops),
            caller: lineage.and_then(|lineage| lineage.caller.clone()),
            tail: call.log_tail.is_some(),
            waits,
        }
    }

    async fn answer(
        &self,
        peer: &Peer,
        line: Line,
        mut response: Response<Incoming>,
        call: &mut Call,
        held: Bytes,
        until: Instant,
    ) -> Taken {
        let note = Note::of(response.headers().get(NOTE));
        response.headers_mut().remove(NOTE);
        match note {
            Some(Note::Refused(refusal)) => Taken::Back(held, Why::Refused(refusal)),
            Some(Note::Http(facts)) => {
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    self.join(call, line, &mut response);
                    let mut response = response.map(|_| Body::empty());
                    clean_upgraded(response.headers_mut());
                    return Taken::Done(Ok(Answer::Http(Box::new(response))), facts);
                }
                let returned = Box::new(Returned::new(self.lines.clone(), line));
                let mut response = response.map(|body| Body::stream(body).guarded(returned));
                clean_response(response.headers_mut());
                Taken::Done(Ok(Answer::Http(Box::new(response))), facts)
            }
            Some(Note::Event(facts)) => {
                let content_type = response.headers().get(header::CONTENT_TYPE);
                let content_type =
                    content_type.and_then(|value| value.to_str().ok()).unwrap_or("application/json");
                let content_type = content_type.to_owned();
                let whole = self.whole(line, response, limits::PAYLOAD_BYTES, until).await;
                Taken::Done(whole.map(|body| Answer::Event { content_type, body }), facts)
            }
            Some(Note::Failed(facts)) => {
                let told = self.whole(line, response, limits::PAYLOAD_BYTES, until).await;
                let told = told.and_then(|body| {
                    let told: Failure = serde_json::from_slice(&body).map_err(|_| unclear())?;
                    Ok(told)
                });
                let failed = told.map_or_else(
                    |error| error,
                    |Failure { error, started }| CallError {
                        error: ApiError::new(error.code, error.message),
                        function_error: error.function_error,
                        started,
                    },
                );
                Taken::Done(Err(failed), facts)
            }
            None => {
                let status = response.status();
                tracing::warn!(gateway = %peer.id, %status, "another gateway does not take calls of this one");
                match status {
                    // It does not know us, or is another one at this address: it took nothing.
                    StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => {
                        Taken::Back(held, Why::Unreachable)
                    }
                    _ => done(Err(unclear())),
                }
            }
        }
    }

    /// An answer's body, and its connection back among the idle ones.
    async fn whole(
        &self,
        line: Line,
        response: Response<Incoming>,
        most: usize,
        until: Instant,
    ) -> Result<Bytes, CallError> {
        let returned = Box::new(Returned::new(self.lines.clone(), line));
        let body = Body::stream(response.into_body()).guarded(returned);
        match tokio::time::timeout_at(until.into(), collect(body, most)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => Err(lost()),
            Err(_) => Err(self.silent()),
        }
    }

    /// The client's WebSocket and the other gateway's are joined.
    fn join(&self, call: &mut Call, line: Line, response: &mut Response<Incoming>) {
        let Payload::Http(request) = &mut call.payload else { return };
        let (client, there) = (hyper::upgrade::on(&mut **request), hyper::upgrade::on(response));
        let (stop, metrics) = (self.stop.clone(), self.metrics.clone());
        self.upgrades.spawn(async move {
            if let Err(error) = upgrade::join(client, there, &metrics, stop).await {
                tracing::debug!(%error, "an upgrade that was passed on did not come about");
            }
            drop(line);
        });
    }

    /// Waits until WebSockets that pass through have ended; `stop` makes them.
    pub async fn drained(&self) {
        self.upgrades.close();
        self.upgrades.wait().await;
    }

    fn silent(&self) -> CallError {
        let text = "the gateway that had the call did not answer in its time";
        CallError { error: ApiError::new(ErrorCode::InstanceLost, text), function_error: None, started: true }
    }
}

fn unclear() -> CallError {
    CallError { error: Failure::unclear(), function_error: None, started: true }
}

fn done(result: Result<Answer, CallError>) -> Taken {
    Taken::Done(result, Facts { timings: PhaseTimings::default(), ..Facts::default() })
}

/// What a call would be sent again with.
fn body_of(call: &Call) -> Bytes {
    match &call.payload {
        Payload::Event(event) => event.clone(),
        Payload::Http(request) => request.body().held(),
    }
}

fn put_back(call: &mut Call, body: Bytes) {
    if let Payload::Http(request) = &mut call.payload {
        *request.body_mut() = Body::full(body);
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Who was full, and who was away.
#[derive(Default)]
struct Busy(Mutex<HashMap<(u128, u128), Instant>>);

/// Of every function, for a gateway that is away.
const ALL: u128 = 0;
/// Notes that are kept; those that have lapsed go when there are more.
const NOTES: usize = 4_096;

impl Busy {
    fn note(&self, function: u128, gateway: u128, why: Why) {
        let now = Instant::now();
        let (of, until) = match why {
            Why::Refused(Refusal::Full) => (function, now + FULL),
            Why::Refused(Refusal::Unknown) => (function, now + AWAY),
            Why::Refused(Refusal::Leaving) | Why::Unreachable => (ALL, now + AWAY),
            Why::Unsayable => return,
        };
        let mut notes = self.0.lock();
        if notes.len() >= NOTES {
            notes.retain(|_, until| *until > now);
        }
        if notes.len() < NOTES {
            notes.insert((of, gateway), until);
        }
    }

    fn is(&self, function: u128, gateway: u128) -> bool {
        let (notes, now) = (self.0.lock(), Instant::now());
        [function, ALL].iter().any(|of| notes.get(&(*of, gateway)).is_some_and(|until| *until > now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gateway_is_full_for_one_function_and_one_that_is_away_for_all() {
        let busy = Busy::default();
        busy.note(1, 10, Why::Refused(Refusal::Full));
        busy.note(1, 20, Why::Unreachable);
        assert!(busy.is(1, 10) && !busy.is(2, 10) && !busy.is(1, 30));
        assert!(busy.is(1, 20) && busy.is(2, 20));
        busy.0.lock().values_mut().for_each(|until| *until = Instant::now());
        assert!(!busy.is(1, 10) && !busy.is(2, 20), "not for ever");
    }
}
