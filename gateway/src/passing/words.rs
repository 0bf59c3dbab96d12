//! What gateways say to each other about a call: beside its bytes a ticket, which is signed, and beside the answer's a note. Pure.

use std::time::Duration;

use davit_api::{
    CalledBy, ErrorBody, ErrorCode, FunctionId, GatewayId, InvocationId, InvocationSource, PhaseTimings,
    VersionId,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The header with the ticket.
pub(super) const TICKET: HeaderName = HeaderName::from_static("x-davit-ticket");
/// The header with what proves it.
pub(super) const PROOF: HeaderName = HeaderName::from_static("x-davit-proof");
/// The header with the note.
pub(super) const NOTE: HeaderName = HeaderName::from_static("x-davit-note");
/// How far the clocks of two gateways may be apart, and how long a ticket that was seen by somebody is good.
const APART: Duration = Duration::from_secs(120);

/// A call without its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ticket {
    /// Whom it is for.
    pub(super) to: GatewayId,
    /// When it was written, in seconds of Unix time.
    pub(super) at: u64,
    pub(super) function: FunctionId,
    pub(super) version: VersionId,
    /// The version's number, by which it is looked up where it is not held.
    pub(super) number: u32,
    /// Whether the bytes are an event; else the request is the function's.
    pub(super) event: bool,
    pub(super) request_id: InvocationId,
    pub(super) source: InvocationSource,
    /// What is left of its time, in milliseconds.
    pub(super) left_ms: u64,
    /// What of it has passed.
    pub(super) spent_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_context: Option<String>,
    /// Its place among functions that cause each other, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hops: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) caller: Option<CalledBy>,
    /// Whether the last lines that the function writes are wanted.
    #[serde(default)]
    pub(super) tail: bool,
    /// It waits even where there is no room.
    #[serde(default)]
    pub(super) waits: bool,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Note {
    /// Not taken; nothing of it has begun.
    Refused(Refusal),
    /// The answer's body is a [`Failure`].
    Failed(Facts),
    /// The answer's body is the event's result.
    Event(Facts),
    /// The answer is the function's response.
    Http(Facts),
}

/// Why a call was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Refusal {
    /// There is no room for it.
    Full,
    /// Its version is not known here, or not yet.
    Unknown,
    /// The gateway ends.
    Leaving,
}

/// What there is to know of a call that was carried out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) cold: bool,
    pub(super) timings: PhaseTimings,
    /// The last lines that the function wrote, when they were wanted.
    #[serde(default)]
    pub(super) tail: String,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) error: ErrorBody,
    pub(super) started: bool,
}

/// Signs tickets and looks at signatures.
#[derive(Clone)]
pub(super) struct Seal(Hmac<Sha256>);

/// What is wrong with a ticket, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    Missing,
    Proof,
    NotForUs,
    Time,
}

impl Seal {
    /// With the key that all gateways of an installation have.
    pub(super) fn new(key: [u8; 32]) -> Self {
        // HMAC takes keys of any length; the type wants to hear it.
        Self(Hmac::new_from_slice(&key).unwrap_or_else(|_| unreachable!()))
    }

    fn mac(&self, method: &Method, target: &Uri, ticket: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in [method.as_str().as_bytes(), target.to_string().as_bytes(), ticket] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    /// The ticket's and the proof's header.
    pub(super) fn sign(
        &self,
        method: &Method,
        target: &Uri,
        ticket: &Ticket,
    ) -> Option<(HeaderValue, HeaderValue)> {
        let text = serde_json::to_vec(ticket).ok()?;
        let proof: String = self
            .mac(method, target, &text)
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Some((HeaderValue::from_bytes(&text).ok()?, HeaderValue::from_str(&proof).ok()?))
    }

    /// The ticket of a request, if a gateway of this installation wrote it for `me` a moment ago.
    pub(super) fn open(
        &self,
        request: &http::request::Parts,
        me: GatewayId,
        now: u64,
    ) -> Result<Ticket, Bad> {
        let text = request.headers.get(TICKET).ok_or(Bad::Missing)?.as_bytes();
        let proof = request.headers.get(PROOF).ok_or(Bad::Missing)?.as_bytes();
        let proof = from_hex(proof).ok_or(Bad::Proof)?;
        self.mac(&request.method, &request.uri, text).verify_slice(&proof).map_err(|_| Bad::Proof)?;
        let ticket: Ticket = serde_json::from_slice(text).map_err(|_| Bad::Proof)?;
        if ticket.to != me {
            return Err(Bad::NotForUs);
        }
        if ticket.at.abs_diff(now) > APART.as_secs() {
            return Err(Bad::Time);
        }
        Ok(ticket)
    }
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let pairs = (0..text.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

impl Note {
    /// The note's header. JSON leaves one character as it is that no header may have; lines with it are left out.
    pub(super) fn header(mut self) -> HeaderValue {
        if let Ok(value) = self.text() {
            return value;
        }
        match &mut self {
            Self::Failed(facts) | Self::Event(facts) | Self::Http(facts) => facts.tail.clear(),
            Self::Refused(_) => {}
        }
        self.text().unwrap_or(HeaderValue::from_static("{}"))
    }

    fn text(&self) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        HeaderValue::from_bytes(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// What a header says.
    pub(super) fn of(value: Option<&HeaderValue>) -> Option<Self> {
        serde_json::from_slice(value?.as_bytes()).ok()
    }
}

impl Failure {
    /// What clients are told when the other side's word cannot be understood.
    pub(super) fn unclear() -> davit_api::ApiError {
        davit_api::ApiError::new(
            ErrorCode::InstanceLost,
            "the gateway that had the call did not say how it ended",
        )
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn ticket(to: GatewayId, at: u64) -> Ticket {
        Ticket {
            to,
            at,
            function: FunctionId::new(),
            version: VersionId::new(),
            number: 4,
            event: true,
            request_id: InvocationId::new(),
            source: InvocationSource::Http,
            left_ms: 30_000,
            spent_ms: 12,
            trace_id: None,
            client_context: Some("{\"custom\":\"grüße\"}".into()),
            hops: Some(3),
            caller: None,
            tail: true,
            waits: false,
        }
    }

    fn request(seal: &Seal, ticket: &Ticket, path: &str) -> http::request::Parts {
        let uri: Uri = "/orders?n=1".parse().unwrap();
        let (ticket, proof) = seal.sign(&Method::POST, &uri, ticket).unwrap();
        let request = Request::builder().method("POST").uri(path).header(TICKET, ticket).header(PROOF, proof);
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_ticket_opens_only_for_whom_it_was_written_and_with_the_same_key() {
        let (seal, me, now) = (Seal::new([7; 32]), GatewayId::new(), 1_800_000_000);
        let one = ticket(me, now);
        let good = request(&seal, &one, "/orders?n=1");
        assert_eq!(seal.open(&good, me, now + 30), Ok(one.clone()));
        assert_eq!(seal.open(&good, GatewayId::new(), now), Err(Bad::NotForUs));
        assert_eq!(seal.open(&good, me, now + 1_000), Err(Bad::Time));
        assert_eq!(Seal::new([8; 32]).open(&good, me, now), Err(Bad::Proof));
        assert_eq!(seal.open(&request(&seal, &one, "/orders?n=2"), me, now), Err(Bad::Proof));
        let mut changed = good.clone();
        let more = serde_json::to_vec(&Ticket { left_ms: 900_000, ..one }).unwrap();
        changed.headers.insert(TICKET, HeaderValue::from_bytes(&more).unwrap());
        assert_eq!(seal.open(&changed, me, now), Err(Bad::Proof));
        for missing in [TICKET, PROOF] {
            let mut without = good.clone();
            without.headers.remove(&missing);
            assert_eq!(seal.open(&without, me, now), Err(Bad::Missing));
        }
        let mut odd = good.clone();
        odd.headers.insert(PROOF, HeaderValue::from_static("zz"));
        assert_eq!(seal.open(&odd, me, now), Err(Bad::Proof));
    }

    #[test]
    fn a_note_says_the_same_on_the_other_side_whatever_the_function_wrote() {
        let facts = Facts { cold: true, timings: PhaseTimings::default(), tail: "ä\n\u{1}\"".into() };
        for note in [
            Note::Refused(Refusal::Full),
            Note::Failed(facts.clone()),
            Note::Event(facts.clone()),
            Note::Http(facts),
        ] {
            assert_eq!(Note::of(Some(&note.clone().header())), Some(note));
        }
        assert_eq!(Note::of(None), None);
        let odd = Note::Event(Facts { cold: true, tail: "\u{7f}".into(), ..Facts::default() });
        let told = Note::Event(Facts { cold: true, ..Facts::default() });
        assert_eq!(Note::of(Some(&odd.header())), Some(told), "how the call went must always be said");
    }
}
