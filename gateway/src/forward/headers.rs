//! Which headers cross the gateway, in both directions. Pure.

use std::net::IpAddr;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::http::Body;

/// The id under which the function sees a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-davit-request-id");

/// Headers that belong to one connection (RFC 9110, 7.6.1), and those that frame a message there.
const HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Headers of ours that a client must not be able to set.
const OURS: [HeaderName; 7] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("forwarded"),
];

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The client's address.
    pub ip: IpAddr,
    /// The host it asked for.
    pub host: &'a str,
    /// The port it was sent to.
    pub port: u16,
    /// What of the path comes before the function's own, `/ns/fn`.
    pub prefix: &'a str,
    /// The invocation's id.
    pub request_id: &'a str,
}

/// Makes a client's request fit for the function: hop-by-hop headers out, ours in, and the path without the
/// function's address, cut and never rebuilt.
pub fn prepare(request: &mut Request<Body>, origin: &Origin<'_>) {
    let websocket = wants_websocket(request.method(), request.headers());
    *request.uri_mut() = cut(request.uri(), origin.prefix.len());
    *request.version_mut() = http::Version::HTTP_11;
    let headers = request.headers_mut();
    strip_hop_by_hop(headers);
    // The gateway answers `100 Continue` itself, when the instance begins to read.
    headers.remove(header::EXPECT);
    strip_ours(headers);
    let set: [(&'static str, &str); 5] = [
        ("x-forwarded-for", &origin.ip.to_string()),
        ("x-forwarded-host", origin.host),
        ("x-forwarded-port", &origin.port.to_string()),
        ("x-forwarded-proto", "http"),
        (REQUEST_ID_TEXT, origin.request_id),
    ];
    for (name, text) in set {
        headers.insert(HeaderName::from_static(name), value(text));
    }
    if !origin.prefix.is_empty() {
        headers.insert("x-forwarded-prefix", value(origin.prefix));
    }
    if websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

const REQUEST_ID_TEXT: &str = "x-davit-request-id";

/// A header value; what cannot be one is left empty rather than trusted.
pub(crate) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Origin-form of the URI, without its first `prefix` bytes of path.
fn cut(uri: &Uri, prefix: usize) -> Uri {
    let all = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = all.get(prefix..).unwrap_or("/");
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    // A suffix of a valid path and query, with a slash in front, is a valid one.
    rest.parse().unwrap_or(Uri::from_static("/"))
}

/// Takes out what belongs to the connection, and what `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    // A client may not use this to take away what the message needs, or what the gateway vouches for.
    for name in named.iter().filter(|n| {
        !matches!(**n, header::HOST | header::CONTENT_LENGTH | header::AUTHORIZATION | header::COOKIE)
    }) {
        headers.remove(name);
    }
    for name in &HOP {
        headers.remove(name);
    }
}

/// Takes out copies of headers that only the gateway sets.
pub(crate) fn strip_ours(headers: &mut HeaderMap) {
    for name in &OURS {
        headers.remove(name);
    }
    let platform: Vec<HeaderName> =
        headers.keys().filter(|n| n.as_str().starts_with("x-davit-")).cloned().collect();
    for name in platform {
        headers.remove(name);
    }
}

/// Makes a function's response fit for the client.
pub(super) fn clean_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
}

/// The same for the response that switches protocols.
pub(super) fn clean_upgraded(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
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

    fn origin(prefix: &str) -> Origin<'_> {
        Origin { ip: [127, 0, 0, 1].into(), host: "h", port: 80, prefix, request_id: "id" }
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
        prepare(&mut r, &origin(""));
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
        prepare(&mut r, &origin(""));
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
        prepare(&mut r, &origin(""));
        assert_eq!(r.headers()["upgrade"], "websocket");
        for missing in 0..good.len() {
            let mut some = good.to_vec();
            some.remove(missing);
            let mut r = request("/", &some);
            prepare(&mut r, &origin(""));
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
            prepare(&mut r, &origin("/ns/fn"));
            assert_eq!(r.uri(), seen, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn cutting_keeps_every_byte_after_the_prefix(rest in "(/[a-zA-Z0-9%._~;:@-]{0,8}){0,4}(\\?[a-z0-9=&/?%]{0,12})?") {
            let uri: Uri = format!("/ns/fn{rest}").parse().unwrap();
            let seen = cut(&uri, 6).to_string();
            let rooted = format!("/{rest}");
            prop_assert!(seen == rest || seen == rooted);
        }
    }
}
