//! Which requests may go the express way, and the head that the function gets of them. Pure, but for the token that it
//! notes as used.
//!
//! Only what is plain beyond doubt is taken. Everything else, and above all everything that is wrong, is left to the
//! usual way, which knows what to answer: no refusal is written here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{Access, FunctionKind, InvocationId, Role};
use http::{HeaderMap, HeaderValue, header};

use super::answer::{line, number, tokens};
use crate::forward::{is_hop, is_ours};
use crate::http::address::trace;
use crate::http::{Peer, Public, auth, check, choose};
use crate::routes::Lookup;
use crate::version::LiveVersion;

/// Longest body that is read before the function is asked for; longer ones stream the usual way.
pub(super) const BODY_BYTES: usize = 16 * 1024;
/// Header lines of a request, as the usual way takes.
const HEADERS: usize = 100;
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];

/// What a connection's bytes are.
pub(super) enum Verdict {
    /// Not a whole head yet.
    Incomplete,
    /// Nothing for this way.
    Usual,
    /// A call.
    Order(Order),
}

/// A request that goes the express way.
pub(super) struct Order {
    /// Who answers.
    pub(super) version: Arc<LiveVersion>,
    /// Its id.
    pub(super) id: InvocationId,
    /// When it arrived; its budget counts from here.
    pub(super) arrived: Instant,
    /// When that ends.
    pub(super) deadline: Instant,
    /// The trace it belongs to, when its caller named one.
    pub(super) trace_id: Option<Arc<str>>,
    /// Bytes of its head.
    pub(super) head: usize,
    /// Bytes of its body.
    pub(super) body: usize,
    /// Whether it is a HEAD.
    pub(super) to_head: bool,
    /// Whether it is the last on its connection.
    pub(super) last: bool,
}

/// Looks at what has arrived. For an order, the function's head of the request is written to `out`.
pub(super) fn look(received: &[u8], public: &Public, peer: &Peer, out: &mut Vec<u8>) -> Verdict {
    let mut headers = [const { std::mem::MaybeUninit::uninit() }; HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(received, &mut headers) {
        Ok(httparse::Status::Complete(head)) => {
            order(&request, head, public, peer, out).map_or(Verdict::Usual, Verdict::Order)
        }
        Ok(httparse::Status::Partial) => Verdict::Incomplete,
        Err(_) => Verdict::Usual,
    }
}

/// What of a request's headers matters here.
#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a [u8]>,
    length: Option<usize>,
    authorization: Option<&'a [u8]>,
    trace: Option<&'a [u8]>,
    last: bool,
}

impl<'a> Seen<'a> {
    /// `None` when one of them asks for more than this way gives, or is there twice.
    fn of(headers: &'a [httparse::Header<'a>]) -> Option<Self> {
        let mut seen = Self::default();
        for header in headers {
            let name = header.name;
            if name.eq_ignore_ascii_case("host") {
                seen.host.replace(header.value).is_none().then_some(())?;
            } else if name.eq_ignore_ascii_case("content-length") {
                let length = usize::try_from(number(header.value)?).ok().filter(|n| *n <= BODY_BYTES)?;
                seen.length.replace(length).is_none().then_some(())?;
            } else if name.eq_ignore_ascii_case("authorization") {
                seen.authorization.replace(header.value).is_none().then_some(())?;
            } else if name.eq_ignore_ascii_case("x-amzn-trace-id") {
                seen.trace.replace(header.value).is_none().then_some(())?;
            } else if ["transfer-encoding", "expect", "upgrade", "te", "trailer", choose::VERSION]
                .iter()
                .any(|special| name.eq_ignore_ascii_case(special))
            {
                return None;
            }
        }
        for token in tokens(headers) {
            seen.last |= token.eq_ignore_ascii_case(b"close");
            (seen.last || token.eq_ignore_ascii_case(b"keep-alive")).then_some(())?;
        }
        Some(seen)
    }
}

fn order(
    request: &httparse::Request<'_, '_>,
    head: usize,
    public: &Public,
    peer: &Peer,
    out: &mut Vec<u8>,
) -> Option<Order> {
    let (method, target) = (request.method?, request.path?);
    let plain = request.version == Some(1) && METHODS.contains(&method) && target.starts_with('/');
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // A fragment never reaches a server, and of these bytes not all readers of targets agree.
    let clean = !target.contains(['#', '<', '>', '"', '{', '}', '|', '^', '`'])
        && check::path_and_query(path, query).is_ok();
    if !plain || !clean || path == "/healthz" || path == "/v1" || path.starts_with("/v1/") {
        return None;
    }
    let seen = Seen::of(request.headers)?;
    let host = HeaderValue::from_bytes(seen.host?).ok().and_then(|value| check::host_of(&value))?;
    let table = public.routes.load();
    let Lookup::Found(found) = table.lookup(host.as_str(), method, path) else { return None };
    // Chance is asked once: what goes the usual way is chosen there.
    let split = table.aliases(found.version.function_id).and_then(|aliases| aliases.live.as_ref());
    if found.alias.is_some() || split.is_some_and(|split| !split.is_plain()) {
        return None;
    }
    let headers = request.headers.iter().map(|header| (header.name, header.value));
    let version = match split {
        Some(split) => split.pick(|sticky| choose::key(sticky, headers)).clone(),
        None => found.version,
    };
    // What holds for an address is looked after by the usual way; and a preflight to a route asks about another method.
    let policy = if found.route.is_some() { &found.policy } else { &version.policy };
    if policy.is_some() || (method == "OPTIONS" && found.route.is_some() && preflight(request.headers)) {
        return None;
    }
    if version.spec.kind != FunctionKind::Server || !version.missing_secrets.is_empty() {
        return None;
    }
    match version.spec.access {
        Access::Public => {}
        Access::Private => return None,
        Access::Token => {
            let value = HeaderValue::from_bytes(seen.authorization?).ok()?;
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
            public.let_in(&table, &headers, &version.namespace, Role::Invoke).ok()?;
        }
    }
    if public.corridor.may_pass_on(&version) {
        return None;
    }
    public.metrics.requests.add(1);
    let (id, arrived) = (InvocationId::new(), Instant::now());
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = id.0.hyphenated().encode_lower(&mut text);
    let rest = target.get(found.prefix..).unwrap_or("/");
    start(method, rest, out);
    for header in request.headers.iter() {
        let name = header.name;
        let secret = name.eq_ignore_ascii_case("authorization") && auth::is_ours(header.value);
        if !secret && !is_hop(name) && !is_ours(name) {
            line(out, name, header.value);
        }
    }
    let prefix = (found.prefix > 0).then(|| version.address.as_bytes());
    let ours = [
        ("x-forwarded-for", Some(peer.ip.as_bytes())),
        ("x-forwarded-host", Some(host.as_str().as_bytes())),
        ("x-forwarded-port", Some(public.port.value.as_bytes())),
        ("x-forwarded-proto", Some(&b"http"[..])),
        ("x-forwarded-prefix", prefix),
        ("x-davit-request-id", Some(text.as_bytes())),
    ];
    for (name, value) in ours {
        if let Some(value) = value {
            line(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
    let deadline = arrived + Duration::from_secs(version.spec.timeout_seconds.into());
    let (body, to_head) = (seen.length.unwrap_or(0), method == "HEAD");
    let trace_id = seen.trace.and_then(trace);
    Some(Order { version, id, arrived, deadline, trace_id, head, body, to_head, last: seen.last })
}

/// Whether a page in a browser asks by this request what it may do.
fn preflight(headers: &[httparse::Header<'_>]) -> bool {
    headers.iter().any(|header| header.name.eq_ignore_ascii_case("access-control-request-method"))
}

/// The request line, with the path cut and never rebuilt.
fn start(method: &str, rest: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(if rest.starts_with('/') { b" " } else { b" /" });
    out.extend_from_slice(rest.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
}
