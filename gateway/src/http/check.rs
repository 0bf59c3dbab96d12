//! What every public request must be before anything looks at it. Pure.

use davit_api::{ApiError, ErrorCode};
use http::{HeaderMap, HeaderValue, Method, Request, Version, header};

use crate::http::Body;
use crate::routes::path;

/// The host a request was sent to: lower-case, without port. Kept as the header value it came in, so that the usual
/// spelling is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host(HeaderValue);

impl Host {
    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        // Made of checked ASCII only.
        self.0.to_str().unwrap_or_default()
    }
    /// As a header's value.
    pub(crate) fn value(&self) -> &HeaderValue {
        &self.0
    }
}

/// Puts an HTTP/2 request into the words of HTTP/1.1, in which functions get it: a `Host` for the authority (RFC 9113,
/// 8.3.1), and one `Cookie` for its pieces (8.2.3).
pub(super) fn like_http11(request: &mut Request<Body>) {
    let authority = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    let headers = request.headers_mut();
    if let (Some(authority), false) = (authority, headers.contains_key(header::HOST)) {
        headers.insert(header::HOST, authority);
    }
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, whole);
    }
}

/// Checks method, target and host.
pub(super) fn request(request: &Request<Body>) -> Result<Host, ApiError> {
    if *request.method() == Method::CONNECT || *request.method() == Method::TRACE {
        return Err(ApiError::new(ErrorCode::MethodNotAllowed, "CONNECT and TRACE are not served"));
    }
    path_and_query(request.uri().path(), request.uri().query().unwrap_or_default())?;
    let host = host(request)?;
    framing(request.headers())?;
    Ok(host)
}

/// Checks the two parts of a target.
pub(super) fn path_and_query(path: &str, query: &str) -> Result<(), ApiError> {
    path::check(path).map_err(bad)?;
    if query.bytes().any(|b| !(0x21..0x7f).contains(&b)) {
        return Err(bad("query: bytes outside ASCII must be percent-encoded"));
    }
    Ok(())
}

/// The host that a `Host` header names.
pub(super) fn host_of(value: &HeaderValue) -> Option<Host> {
    let host = without_port(value.to_str().ok()?)?;
    if host.len() == value.len() && !host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some(Host(value.clone()));
    }
    HeaderValue::from_str(&host.to_ascii_lowercase()).ok().map(Host)
}

fn bad(problem: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, problem.to_string())
}

/// Exactly one host, and the same one wherever the request names it.
fn host(request: &Request<Body>) -> Result<Host, ApiError> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let first = named.next();
    if named.next().is_some() {
        return Err(bad("more than one Host header"));
    }
    let text = match (first, request.version()) {
        (Some(value), _) => value.to_str().map_err(|_| bad("the Host header is not text"))?,
        (None, Version::HTTP_10) => request.uri().authority().map_or("", |a| a.as_str()),
        (None, _) => return Err(bad("the Host header is missing")),
    };
    if let Some(authority) = request.uri().authority()
        && !authority.as_str().eq_ignore_ascii_case(text)
    {
        return Err(bad("the request's target and its Host header name different hosts"));
    }
    let host = match first {
        Some(value) => host_of(value),
        None => HeaderValue::from_str(text).ok().and_then(|value| host_of(&value)),
    };
    host.ok_or_else(|| bad("the Host header is not a host"))
}

/// Cuts the port off; `None` when what is left is no host.
fn without_port(text: &str) -> Option<&str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            (
                &text[..end + 2],
                rest[end + 1..].strip_prefix(':').or(if rest[end + 1..].is_empty() {
                    Some("")
                } else {
                    None
                })?,
            )
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
    (port.bytes().all(|b| b.is_ascii_digit())
        && port.len() <= 5
        && host.len() <= 255
        && host.bytes().all(fine))
    .then_some(host)
}

/// One way to tell where the body ends. hyper refuses most other ways; it settles this one quietly.
fn framing(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        return Err(bad("Content-Length and Transfer-Encoding exclude each other"));
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let one = encodings.next().is_none_or(|v| v.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !one || encodings.next().is_some() {
        return Err(bad("Transfer-Encoding must be chunked, once"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_hosts(uri: &str, hosts: &[&str]) -> Result<Host, ApiError> {
        let mut builder = Request::builder().uri(uri);
        for host in hosts {
            builder = builder.header("host", *host);
        }
        request(&builder.body(Body::empty()).unwrap())
    }

    #[test]
    fn a_request_names_one_host() {
        assert_eq!(
            with_hosts("/", &["Api.Example.com:8080"]),
            Ok(Host(HeaderValue::from_static("api.example.com")))
        );
        assert_eq!(with_hosts("/", &["[::1]:80"]), Ok(Host(HeaderValue::from_static("[::1]"))));
        assert!(with_hosts("http://a/", &["a"]).is_ok());
        for bad in [&[][..], &["a", "a"], &["a@b"], &["a:x"], &["a b"], &["a/b"], &["[::1"], &["[::1]x"]] {
            assert!(with_hosts("/", bad).is_err(), "{bad:?}");
        }
        assert!(with_hosts("http://a/", &["b"]).is_err());
    }

    #[test]
    fn strange_transfer_encodings_are_refused() {
        for (name, values) in [
            ("transfer-encoding", &["chunked, identity"][..]),
            ("transfer-encoding", &["xchunked"]),
            ("transfer-encoding", &["chunked", "chunked"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(name, value.parse().unwrap());
            }
            assert!(framing(&headers).is_err(), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn hosts_never_panic(text in "[a-z0-9:@\\[\\]./ -]{0,30}") {
            if let Some(host) = without_port(&text) {
                prop_assert!(!host.contains(['@', '/', ' ']));
            }
        }
    }
}
