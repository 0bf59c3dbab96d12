//! Who asks, and what follows from that: whether he may, how far the chain has come, how much time is left, which trace
//! it belongs to. Pure decisions about what the connection tells; nothing that a function sends can change them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{ApiError, CalledBy, ErrorCode, InvocationId, Lineage, may_call, next_hop};

use crate::call::{Cause, Waiting};
use crate::instances::{Standing, Underway};
use crate::version::{FleetKey, LiveVersion};

/// What of its time a caller keeps for itself, so that it can still say how its call ended; a twentieth, if that is less.
const RESERVE: Duration = Duration::from_millis(200);

/// A function that asks for something.
pub(super) struct Caller {
    /// The version that asks.
    pub(super) version: Arc<LiveVersion>,
    /// In whose name.
    pub(super) standing: Standing,
}

/// When a call has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) deadline: Instant,
    /// It is the caller's time that ends then, not the function's own.
    pub(super) inherited: bool,
}

impl Caller {
    fn call(&self) -> Option<&Underway> {
        match &self.standing {
            Standing::Call(call) | Standing::Past(call) => Some(call),
            Standing::OneOf { .. } | Standing::Nobody => None,
        }
    }

    /// Whether it may call a function.
    pub(super) fn may_call(&self, callee: &LiveVersion) -> Result<(), ApiError> {
        let LiveVersion { namespace, function, .. } = &*self.version;
        let allowed = callee.spec.allow_callers.as_deref();
        match may_call(namespace, function, &callee.namespace, allowed) {
            true => Ok(()),
            false => Err(self.refused(&format!("{}/{}", callee.namespace, callee.function))),
        }
    }

    /// What it is told that may not call a function, or asks for one of another namespace that does not exist: whether
    /// it does is nobody else's business.
    pub(super) fn refused(&self, callee: &str) -> ApiError {
        let LiveVersion { namespace, function, .. } = &*self.version;
        let own = callee.strip_prefix(&format!("{namespace}/")).is_some();
        let entry = if own { function.to_string() } else { format!("{namespace}/{function}") };
        let text = format!(
            "{namespace}/{function} may not call {callee}: the davit.toml of {callee} has to say allow_callers = [\"{entry}\"]"
        );
        ApiError::new(ErrorCode::Forbidden, text)
    }

    /// The place in the chain of what it causes.
    pub(super) fn lineage(&self, trace_id: Option<&str>) -> Result<Lineage, ApiError> {
        let hops = match &self.standing {
            Standing::Call(call) | Standing::Past(call) => {
                call.cause.as_ref().map_or(0, |cause| cause.lineage.hops)
            }
            Standing::OneOf { hops, .. } => *hops,
            // A function that calls itself while it loads would start instances without an end.
            Standing::Nobody => {
                let text = "a function can call others only while it has a call itself, not while it loads";
                return Err(ApiError::new(ErrorCode::Conflict, text));
            }
        };
        let version = &self.version;
        let caller = CalledBy {
            namespace: version.namespace.clone(),
            function: version.function.clone(),
            version: version.number,
            invocation_id: self.call().map(|call| call.id),
            trace_id: trace_id.map(str::to_owned),
        };
        Ok(Lineage { hops: next_hop(hops)?, caller: Some(caller) })
    }

    /// What causes a call for whose answer it waits.
    pub(super) fn cause(&self, lineage: Lineage) -> Cause {
        let next = match &self.standing {
            Standing::Call(call) => call.cause.as_ref().and_then(|cause| cause.waiting.clone()),
            Standing::OneOf { .. } | Standing::Past(_) | Standing::Nobody => None,
        };
        let fleet = self.version.fleet_key();
        Cause { lineage, waiting: Some(Arc::new(Waiting { fleet, next })) }
    }

    /// How much time such a call has.
    pub(super) fn budget(&self, callee: &LiveVersion, now: Instant) -> Budget {
        let own = now + Duration::from_secs(callee.spec.timeout_seconds.into());
        let left = match &self.standing {
            Standing::Call(call) => call.deadline.checked_duration_since(now),
            Standing::OneOf { deadline, .. } => deadline.checked_duration_since(now),
            Standing::Past(_) | Standing::Nobody => None,
        };
        // A server's answer may go on after its budget; then its own calls have theirs.
        let left = left.map(|left| now + left - RESERVE.min(left / 20));
        match left {
            Some(deadline) if deadline < own => Budget { deadline, inherited: true },
            _ => Budget { deadline: own, inherited: false },
        }
    }

    /// The trace of what it causes: that of its own call, in which this call is the parent. `given`: what the function
    /// says, which may name another parent in the same trace, or a trace where there is none.
    pub(super) fn trace_id(&self, given: Option<&str>, traceparent: Option<&str>) -> Option<Arc<str>> {
        let given = given.map(str::to_owned).or_else(|| traceparent.and_then(from_w3c));
        let call = self.call();
        let known = call.and_then(|call| call.trace_id.as_deref());
        match (known, given, call) {
            (Some(known), Some(given), _) if names_another_parent(&given, known) => Some(given.into()),
            (Some(known), _, Some(call)) => Some(below(known, call.id).into()),
            (_, Some(given), _) => Some(given.into()),
            (_, None, Some(call)) => Some(begun_by(call.id).into()),
            (_, None, None) => None,
        }
    }
}

/// Whether a call would wait for what only its own callers could make free.
pub(super) fn would_wait_for_itself(cause: &Cause, callee: &LiveVersion) -> Result<(), ApiError> {
    let fleet = callee.fleet_key();
    let places = callee.spec.max_instances as usize * callee.spec.concurrency as usize;
    let taken = waiting(cause, fleet);
    if taken < places {
        return Ok(());
    }
    let text = format!(
        "{}/{} has room for {places} calls at a time, and {taken} of them wait for the answer of this one: raise its max_instances",
        callee.namespace, callee.function
    );
    Err(ApiError::new(ErrorCode::LoopDetected, text))
}

fn waiting(cause: &Cause, fleet: FleetKey) -> usize {
    let mut next = cause.waiting.as_ref();
    std::iter::from_fn(|| {
        let waiting = next?;
        next = waiting.next.as_ref();
        Some(waiting.fleet)
    })
    .filter(|of| *of == fleet)
    .count()
}

/// A part of an `X-Amzn-Trace-Id`.
fn part<'a>(trace: &'a str, name: &str) -> Option<&'a str> {
    trace.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
}

fn root(trace: &str) -> Option<&str> {
    part(trace, "Root")
}

/// Whether a trace is the same one with a parent of its own. AWS's SDKs send what the function was told, which names the
/// parent of the call that asks, not that call.
fn names_another_parent(given: &str, known: &str) -> bool {
    let parent = part(given, "Parent");
    root(given) == root(known) && parent.is_some() && parent != part(known, "Parent")
}

/// The id of a call as the id of a span: 16 hexadecimal digits, those that were left to chance.
fn span(id: InvocationId) -> String {
    id.0.simple().to_string()[16..].to_owned()
}

/// A trace, where a call of it is the parent.
fn below(trace: &str, parent: InvocationId) -> String {
    let sampled = part(trace, "Sampled").unwrap_or("0");
    format!("Root={};Parent={};Sampled={sampled}", root(trace).unwrap_or_default(), span(parent))
}

/// The trace that a call without one begins: its root is the call's id in another form, so who knows one knows the
/// other.
fn begun_by(id: InvocationId) -> String {
    let digits = id.0.simple().to_string();
    format!("Root=1-{}-{};Parent={};Sampled=0", &digits[..8], &digits[8..], span(id))
}

/// A `traceparent` (W3C Trace Context, level 1: `00-trace-parent-flags`) in Amazon's form.
fn from_w3c(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let ["00", trace, parent, flags] = parts.as_slice() else { return None };
    if !hex(trace, 32) || !hex(parent, 16) || !hex(flags, 2) {
        return None;
    }
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
    Some(format!("Root=1-{}-{};Parent={parent};Sampled={sampled}", &trace[..8], &trace[8..]))
}

#[cfg(test)]
mod tests;
