//! Which headers cross the gateway, in both directions. Pure.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::forward::grpc;
use crate::http::Body;

/// The id under which the function sees a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-davit-request-id");

/// The trace that a call belongs to.
pub(crate) const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
/// The function that caused a call.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-davit-caller");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers that belong to one connection (RFC 9110, 7.6.1), and those that frame a message there. In any case of
/// letters.
pub(crate) fn is_hop(name: &str) -> bool {
    const ALL: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    // Most names are none of them, which their first letter tells.
    matches!(
        name.as_bytes().first(),
        Some(b'c' | b'C' | b'k' | b'K' | b'p' | b'P' | b't' | b'T' | b'u' | b'U')
    ) && ALL.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

/// Headers that only the gateway sets: a client must not be able to. In any case of letters.
pub(crate) fn is_ours(name: &str) -> bool {
    const ALL: [&str; 7] = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-real-ip",
    ];
    const PREFIX: &str = "x-davit-";
    matches!(name.as_bytes().first(), Some(b'x' | b'X' | b'f' | b'F'))
        && (name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
            || ALL.iter().any(|ours| name.eq_ignore_ascii_case(ours)))
}

/// Where a request came from. Its values are made once for a connection or a version and cloned into each request,
/// which copies no text.
#[derive(Debug, Clone)]
pub struct Origin<'a> {
    /// The client's address.
    pub ip: &'a HeaderValue,
    /// The host it asked for.
    pub host: &'a HeaderValue,
    /// The port it was sent to.
    pub port: &'a HeaderValue,
    /// `http` or `https`.
    pub proto: &'a HeaderValue,
    /// What of the path comes before the function's own: `/ns/fn`, when it was called by its address, or what its route
    /// takes off.
    pub prefix: Option<&'a HeaderValue>,
    /// What the function sees in front of the path that is left.
    pub added: Option<&'a str>,
    /// The invocation's id.
    pub request_id: &'a HeaderValue,
}

/// Makes a client's request fit for the function: hop-by-hop headers out, ours in, and the path without the
/// function's address, cut and never rebuilt. It is HTTP/1.1 from then on, unless it is gRPC by HTTP/2.
pub fn prepare(request: &mut Request<Body>, origin: &Origin<'_>) {
    let websocket = wants_websocket(request.method(), request.headers());
    if origin.prefix.is_some() || origin.added.is_some() {
        let cut_off = origin.prefix.map_or(0, HeaderValue::len);
        *request.uri_mut() = moved(request.uri(), cut_off, origin.added.unwrap_or_default());
    }
    if request.version() != http::Version::HTTP_2 || !grpc::is_grpc(request.headers()) {
        *request.version_mut() = http::Version::HTTP_11;
    }
    let headers = request.headers_mut();
    strip(headers, |name| is_hop(name.as_str()) || is_ours(name.as_str()) || *name == header::EXPECT);
    let set = [
        (FORWARDED_FOR, Some(origin.ip)),
        (FORWARDED_HOST, Some(origin.host)),
        (FORWARDED_PORT, Some(origin.port)),
        (FORWARDED_PROTO, Some(origin.proto)),
        (FORWARDED_PREFIX, origin.prefix),
        (REQUEST_ID, Some(origin.request_id)),
    ];
    headers.reserve(set.len() + 3);
    for (name, value) in set {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    if websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// A header value; what cannot be one is left empty rather than trusted.
pub(crate) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Origin-form of the URI, without its first `prefix` bytes of path, and with `added` in front of the rest.
fn moved(uri: &Uri, prefix: usize, added: &str) -> Uri {
    let all = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = all.get(prefix..).unwrap_or("/");
    let rest = match (added, rest.starts_with('/')) {
        ("", true) => Bytes::copy_from_slice(rest.as_bytes()),
        ("", false) => Bytes::from(format!("/{rest}")),
        (added, _) => Bytes::from(format!("{added}{rest}")),
    };
    // A suffix of a valid path and query, with a slash or literal segments in front, is a valid one.
    Uri::from_maybe_shared(rest).unwrap_or(Uri::from_static("/"))
}

/// Takes out what `unwanted` names, and what a `Connection` header does.
fn strip(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    // One look at each header that is there, instead of one lookup for each that might be. Most have nothing to hide.
    let mut out: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    // A client may not use this to take away what the message needs, or what the gateway vouches for.
    out.extend(named.flat_map(|v| v.split(',')).filter_map(|name| name.trim().parse().ok()).filter(|n| {
        !matches!(*n, header::HOST | header::CONTENT_LENGTH | header::AUTHORIZATION | header::COOKIE)
    }));
    for name in out {
        headers.remove(name);
    }
}

/// Takes out copies of headers that only the gateway sets.
pub(crate) fn strip_ours(headers: &mut HeaderMap) {
    let out: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name.as_str())).cloned().collect();
    for name in out {
        headers.remove(name);
    }
}

/// Makes a function's response fit for the client.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    strip(headers, |name| is_hop(name.as_str()));
}

/// The same for the response that switches protocols.
pub(crate) fn clean_upgraded(headers: &mut HeaderMap) {
    strip(headers, |name| is_hop(name.as_str()));
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Whether a request asks for a WebSocket, complete and well-formed (RFC 6455, 4.2.1).
pub(super) fn wants_websocket(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET
        && is_websocket(headers)
        && names(headers, &header::CONNECTION, "upgrade")
        && headers.contains_key(header::SEC_WEBSOCKET_KEY)
        && headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|v| v == "13")
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
}

/// Whether a message says that it is about WebSockets and nothing else.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::UPGRADE).iter();
    all.next().is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket")) && all.next().is_none()
}

fn names(headers: &HeaderMap, header: &HeaderName, token: &str) -> bool {
    headers
        .get_all(header)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|t| t.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prepare(request: &mut Request<Body>, prefix: &'static str) {
        let text = HeaderValue::from_static;
        let prefix = (!prefix.is_empty()).then(|| text(prefix));
        let (ip, host, port) = (&text("127.0.0.1"), &text("h"), &text("80"));
        let (proto, id) = (&text("http"), &text("id"));
        let prefix = prefix.as_ref();
        super::prepare(request, &Origin { ip, host, port, proto, prefix, added: None, request_id: id });
    }

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<Body> {
        let mut builder = Request::builder().uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(Body::empty()).unwrap()
    }

    #[test]
    fn what_connection_names_goes_with_it_but_not_what_matters() {
        let mut r = request(
            "/",
            &[
                ("connection", "close, x-tenant, authorization"),
                ("x-tenant", "a"),
                ("authorization", "b"),
                ("keep-alive", "1"),
                ("te", "trailers"),
            ],
        );
        prepare(&mut r, "");
        let h = r.headers();
        assert!(
            !h.contains_key("connection")
                && !h.contains_key("x-tenant")
                && !h.contains_key("keep-alive")
                && !h.contains_key("te")
        );
        assert_eq!(h["authorization"], "b");
    }

    #[test]
    fn clients_cannot_speak_for_the_gateway() {
        let mut r = request(
            "/",
            &[
                ("x-forwarded-for", "1.2.3.4"),
                ("x-davit-request-id", "mine"),
                ("x-davit-anything", "x"),
                ("forwarded", "for=x"),
            ],
        );
        prepare(&mut r, "");
        assert_eq!(r.headers()["x-forwarded-for"], "127.0.0.1");
        assert_eq!(r.headers()["x-davit-request-id"], "id");
        assert!(!r.headers().contains_key("x-davit-anything") && !r.headers().contains_key("forwarded"));
    }

    #[test]
    fn only_a_whole_websocket_request_is_one() {
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-key", "k"),
            ("sec-websocket-version", "13"),
        ];
        let mut r = request("/", &good);
        prepare(&mut r, "");
        assert_eq!(r.headers()["upgrade"], "websocket");
        for missing in 0..good.len() {
            let mut some = good.to_vec();
            some.remove(missing);
            let mut r = request("/", &some);
            prepare(&mut r, "");
            assert!(!r.headers().contains_key("upgrade"), "without {:?}", good[missing]);
        }
    }

    #[test]
    fn the_address_is_cut_off_and_the_rest_is_untouched() {
        for (uri, seen) in [
            ("/ns/fn", "/"),
            ("/ns/fn/", "/"),
            ("/ns/fn?a=1", "/?a=1"),
            ("/ns/fn/a%20b/c?x=%2F&y", "/a%20b/c?x=%2F&y"),
        ] {
            let mut r = request(uri, &[]);
            prepare(&mut r, "/ns/fn");
            assert_eq!(r.uri(), seen, "{uri}");
        }
    }

    #[test]
    fn what_a_route_adds_comes_before_the_rest() {
        for (uri, prefix, added, seen) in [
            ("/api/x?a=b", 4, "/v2", "/v2/x?a=b"),
            ("/api", 4, "/v2", "/v2"),
            ("/api?a", 4, "/v2", "/v2?a"),
            ("/api/x", 0, "/v2", "/v2/api/x"),
        ] {
            assert_eq!(moved(&uri.parse().unwrap(), prefix, added), seen, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn cutting_keeps_every_byte_after_the_prefix(rest in "(/[a-zA-Z0-9%._~;:@-]{0,8}){0,4}(\\?[a-z0-9=&/?%]{0,12})?") {
            let uri: Uri = format!("/ns/fn{rest}").parse().unwrap();
            let seen = moved(&uri, 6, "").to_string();
            let rooted = format!("/{rest}");
            prop_assert!(seen == rest || seen == rooted);
        }
    }
}
