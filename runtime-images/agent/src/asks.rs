//! What the function asks of its platform, above all to call another function: HTTP requests that go to the gateway
//! over the link. `runtime_api.rs` brings them here.
//!
//! Nothing is decided here but bounds: the gateway knows by the link who asks, and answers.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use davit_link::frame::{FIRST_ASK, Frame, FrameKind, body_frames};
use davit_link::{ASK_AHEAD, ASKS, AnswerHead, AskHead, PAYLOAD_BYTES};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::agent::Agent;
use crate::runtime_api::{Answer, Unread, collect};

/// Target and headers of a request.
const HEAD_BYTES: usize = 64 * 1024;
/// The call during which a function with several under way asks; only its own are believed.
const INVOCATION: &str = "x-davit-invocation-id";
/// Longer than any id.
const ID_CHARS: usize = 64;

/// Whether a path is one that the gateway answers: davit's own API, or that of AWS Lambda, in whichever edition.
pub(crate) fn is_one(path: &str) -> bool {
    path.starts_with("/v1/") || path.split('/').nth(2) == Some("functions")
}

/// Passes a request on and waits for its answer. Dropping the future takes it back.
pub(crate) async fn ask(agent: &Rc<Agent>, request: Request<Incoming>) -> Answer {
    if !agent.function.get().is_some_and(|function| function.answers_asks) {
        return Refusal::Unavailable.answer("this gateway does not answer functions");
    }
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let request_id = during(agent, &parts.headers);
    let headers: Vec<(String, String)> =
        parts.headers.iter().filter(|(name, _)| matters(name)).map(text).collect();
    let length = target.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    // Read in any case: clients write it all before they look at the answer.
    let body = match collect(body, PAYLOAD_BYTES).await {
        Ok(body) => body.bytes,
        Err(Unread::TooLarge) => {
            return Refusal::TooLarge.answer(&format!("the body is larger than {PAYLOAD_BYTES} bytes"));
        }
        Err(Unread::Truncated) => return Refusal::Invalid.answer("the body ended early"),
    };
    if length > HEAD_BYTES {
        return Refusal::HeadTooLarge
            .answer(&format!("target and headers are larger than {HEAD_BYTES} bytes"));
    }
    let method = parts.method.to_string();
    let head = AskHead { method, target, headers, size: body.len() as u64, request_id };
    let Some((stream, answer)) = agent.asks.borrow_mut().begin(&body) else {
        let text = format!("at most {ASKS} requests at a time from one instance");
        return Refusal::TooMany.answer(&text);
    };
    let _place = Place { agent: agent.clone(), stream };
    let now = if head.size > ASK_AHEAD { Vec::new() } else { agent.asks.borrow_mut().body(stream) };
    agent.send(agent.json_frame(FrameKind::Ask, stream, &head).into_iter().chain(now));
    match answer.await {
        Ok((head, body)) => told(&head, body),
        Err(_) => Refusal::Unavailable.answer("the gateway does not answer now"),
    }
}

/// The call that asks: the one that the function names, if that runs here, or the only one.
fn during(agent: &Agent, headers: &HeaderMap) -> Option<String> {
    let calls = agent.calls.borrow();
    let named = headers.get(INVOCATION).and_then(|value| value.to_str().ok());
    let named = named.filter(|id| id.len() <= ID_CHARS);
    let serves = agent.server.get().is_some();
    // Which calls a server has, the gateway knows.
    let named = named.filter(|id| serves || calls.is_running(id));
    named.or_else(|| calls.sole()).map(str::to_owned)
}

/// Whether the gateway looks at a header. Signatures and keys never leave the container.
fn matters(name: &HeaderName) -> bool {
    const EXACT: [&str; 5] = ["content-type", "prefer", "idempotency-key", "traceparent", "x-amzn-trace-id"];
    const SECRET: [&str; 3] = ["x-amz-security-token", "x-amz-content-sha256", "x-amz-date"];
    let name = name.as_str();
    EXACT.contains(&name)
        || (["x-davit-", "x-amz-", "ce-"].iter().any(|start| name.starts_with(start))
            && !SECRET.contains(&name)
            && name != INVOCATION)
}

fn text((name, value): (&HeaderName, &HeaderValue)) -> (String, String) {
    (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn told(head: &AnswerHead, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in &head.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

/// What never reaches the gateway, in words that clients of both APIs know.
#[derive(Clone, Copy)]
enum Refusal {
    Invalid,
    TooLarge,
    HeadTooLarge,
    TooMany,
    Unavailable,
}

impl Refusal {
    fn answer(self, message: &str) -> Answer {
        let (status, code, aws) = match self {
            Self::Invalid => (400, "invalid_request", "InvalidRequestContentException"),
            Self::TooLarge => (413, "too_large", "RequestTooLargeException"),
            Self::HeadTooLarge => (431, "headers_too_large", "RequestTooLargeException"),
            Self::TooMany => (429, "too_many_requests", "TooManyRequestsException"),
            Self::Unavailable => (503, "unavailable", "ServiceException"),
        };
        let ours = status >= 500;
        let body = serde_json::json!({
            "code": code, "message": message, "source": if ours { "platform" } else { "client" },
            "retryable": matches!(self, Self::TooMany | Self::Unavailable),
            "Type": if ours { "Service" } else { "User" },
        });
        let headers = [("content-type", "application/json"), ("x-amzn-errortype", aws)];
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        told(&AnswerHead { status, headers }, body.to_string().into())
    }
}

/// One that waits for its answer; dropped before that came, it is taken back.
struct Place {
    agent: Rc<Agent>,
    stream: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.agent.asks.borrow_mut().open.remove(&self.stream).is_some() {
            self.agent.send([Frame::empty(FrameKind::Cancel, self.stream)]);
        }
    }
}

/// What was asked for and is not answered yet. Pure bookkeeping.
#[derive(Default)]
pub(crate) struct Asks {
    last: u32,
    open: HashMap<u32, Open>,
}

struct Open {
    /// What is still to be sent.
    body: Bytes,
    answer: oneshot::Sender<(AnswerHead, Bytes)>,
    head: Option<AnswerHead>,
    parts: BytesMut,
}

impl Asks {
    /// Takes one in: its stream, and where its answer comes. None when there are too many.
    fn begin(&mut self, body: &Bytes) -> Option<(u32, oneshot::Receiver<(AnswerHead, Bytes)>)> {
        if self.open.len() >= ASKS {
            return None;
        }
        // Over all of an instance's life no stream has two meanings, and none of those that are open.
        self.last = self.last.wrapping_add(1);
        let stream = FIRST_ASK | self.last;
        let (answer, receiver) = oneshot::channel();
        let open = Open { body: body.clone(), answer, head: None, parts: BytesMut::new() };
        self.open.insert(stream, open);
        Some((stream, receiver))
    }

    /// The frames of a body that was not sent yet.
    fn body(&mut self, stream: u32) -> Vec<Frame> {
        let body = self.open.get_mut(&stream).map(|open| std::mem::take(&mut open.body));
        body.map(|body| body_frames(stream, body)).unwrap_or_default()
    }

    /// Takes a frame of the gateway's in; what is to be sent now.
    pub(crate) fn take(&mut self, frame: Frame) -> Result<Vec<Frame>, String> {
        let stream = frame.stream;
        // Of one that was taken back the answer may be on its way.
        let Some(open) = self.open.get_mut(&stream) else { return Ok(Vec::new()) };
        match frame.kind {
            FrameKind::Answer => {
                let head = serde_json::from_slice(&frame.body).map_err(|e| format!("Answer: {e}"))?;
                open.head = Some(head);
            }
            FrameKind::Data => {
                if open.parts.len() + frame.body.len() > 2 * PAYLOAD_BYTES {
                    return Err("an answer is over the limit".into());
                }
                open.parts.extend_from_slice(&frame.body);
            }
            FrameKind::End => {
                if let Some(Open { answer, head: Some(head), parts, .. }) = self.open.remove(&stream) {
                    let _ = answer.send((head, parts.freeze()));
                }
            }
            FrameKind::Credit => return Ok(self.body(stream)),
            // Refused: whoever waits learns of it by the sender's end.
            FrameKind::Cancel => drop(self.open.remove(&stream)),
            other => return Err(format!("a gateway does not send {other:?} there")),
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: FrameKind, stream: u32, body: &str) -> Frame {
        Frame { kind, stream, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn paths_of_both_apis_are_passed_on_and_those_of_the_runtime_are_not() {
        for path in
            ["/v1/topics/a/messages", "/2015-03-31/functions/f/invocations", "/2021-11-15/functions/f/x"]
        {
            assert!(is_one(path), "{path}");
        }
        for path in
            ["/", "/v1", "/2018-06-01/runtime/invocation/next", "/2020-01-01/extension/register", "/ping"]
        {
            assert!(!is_one(path), "{path}");
        }
    }

    #[test]
    fn keys_and_signatures_stay() {
        let passed = |name: &'static str| matters(&HeaderName::from_static(name));
        for name in ["x-amz-invocation-type", "ce-id", "x-davit-delay", "prefer", "content-type"] {
            assert!(passed(name), "{name}");
        }
        for name in ["authorization", "cookie", "x-amz-security-token", "x-amz-date", "host", "user-agent"] {
            assert!(!passed(name), "{name}");
        }
    }

    #[test]
    fn an_answer_is_given_once_whole() {
        let mut asks = Asks::default();
        let (stream, mut answer) = asks.begin(&Bytes::from_static(b"hi")).unwrap();
        assert_eq!(asks.body(stream).len(), 2);
        assert_eq!(asks.body(stream).len(), 1, "what was sent is not sent again");
        let head = r#"{"status":200,"headers":[["a","b"]]}"#;
        for (kind, body) in [(FrameKind::Answer, head), (FrameKind::Data, "on"), (FrameKind::Data, "e")] {
            assert!(asks.take(frame(kind, stream, body)).unwrap().is_empty());
            assert!(answer.try_recv().is_err());
        }
        asks.take(frame(FrameKind::End, stream, "")).unwrap();
        let (head, body) = answer.try_recv().unwrap();
        assert_eq!((head.status, &body[..]), (200, &b"one"[..]));
        assert!(asks.open.is_empty() && asks.take(frame(FrameKind::End, stream, "")).is_ok());
    }

    #[test]
    fn a_long_body_goes_when_it_is_wanted_and_a_refusal_is_noticed() {
        let mut asks = Asks::default();
        let (stream, mut answer) = asks.begin(&Bytes::from(vec![1; 600_000])).unwrap();
        let sent = asks.take(frame(FrameKind::Credit, stream, "")).unwrap();
        assert_eq!(sent.iter().map(|f| f.body.len()).sum::<usize>(), 600_000);
        asks.take(frame(FrameKind::Cancel, stream, "")).unwrap();
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_may_be(steps in prop::collection::vec(any::<bool>(), 0..2_000)) {
            let mut asks = Asks::default();
            let mut kept = Vec::new();
            for begins in steps {
                if begins {
                    match asks.begin(&Bytes::new()) {
                        Some(one) => kept.push(one),
                        None => prop_assert_eq!(kept.len(), ASKS),
                    }
                } else if let Some((stream, _)) = kept.pop() {
                    asks.take(Frame::empty(FrameKind::Cancel, stream)).unwrap();
                }
                prop_assert_eq!(asks.open.len(), kept.len());
            }
        }
    }
}
