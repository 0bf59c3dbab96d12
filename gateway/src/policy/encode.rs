//! Which answers are compressed, and how (RFC 9110, sections 8.4 and 12.5.3). Pure, but for the body that is wrapped.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;

use crate::http::Body;
use crate::policy::Encoder;

/// Smaller bodies fit into a packet anyway.
const LEAST_BYTES: u64 = 512;

/// How a body can be coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Brotli (RFC 7932).
    Brotli,
    /// gzip (RFC 1952).
    Gzip,
}

impl Encoding {
    /// Its name as a header's value.
    fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        })
    }
}

/// The best of what a client takes: what it likes most, brotli where it likes both alike.
pub(super) fn accepted(headers: &HeaderMap) -> Option<Encoding> {
    let (mut brotli, mut gzip, mut any) = (None, None, None);
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for part in lines.flat_map(|line| line.split(',')) {
        let mut words = part.split(';').map(str::trim);
        let name = words.next().unwrap_or_default();
        let weight = words.find_map(|word| {
            let value = word.strip_prefix("q=").or_else(|| word.strip_prefix("Q="))?;
            Some(value.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0))
        });
        let weight = Some(weight.unwrap_or(1.0));
        if name.eq_ignore_ascii_case("br") {
            brotli = weight;
        } else if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            gzip = weight;
        } else if name == "*" {
            any = weight;
        }
    }
    let (brotli, gzip) = (brotli.or(any).unwrap_or(0.0), gzip.or(any).unwrap_or(0.0));
    match (brotli > 0.0 && brotli >= gzip, gzip > 0.0) {
        (true, _) => Some(Encoding::Brotli),
        (false, true) => Some(Encoding::Gzip),
        (false, false) => None,
    }
}

/// The answer as its client takes it.
pub(super) fn encode(response: Response<Body>, encoding: Option<Encoding>, to_head: bool) -> Response<Body> {
    let length = response.body().size_hint().exact();
    if !compressible(response.status(), response.headers(), length) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let headers = &mut parts.headers;
    // Whether it is coded or not: a cache must not give it to a client that does not take it.
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    // What a GET's body would have been nobody knows before it was coded.
    let Some(encoding) = encoding.filter(|_| !to_head) else { return Response::from_parts(parts, body) };
    headers.insert(header::CONTENT_ENCODING, encoding.value());
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    weaken(headers);
    Response::from_parts(parts, Body::encoded(Encoder::new(body, encoding)))
}

/// The coded bytes are not those that a strong tag vouches for (RFC 9110, section 8.8.3).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        headers.insert(header::ETAG, weak);
    }
}

/// Whether coding an answer may make it smaller without doing it harm.
fn compressible(status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> bool {
    let whole = !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT);
    let untouched =
        !headers.contains_key(header::CONTENT_ENCODING) && !headers.contains_key(header::CONTENT_RANGE);
    let control = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let may_change =
        !control.flat_map(|line| line.split(',')).any(|w| w.trim().eq_ignore_ascii_case("no-transform"));
    let length = length.filter(|n| *n > 0).or_else(|| {
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|n| n.parse().ok())
    });
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    whole && untouched && may_change && length.is_none_or(|n| n >= LEAST_BYTES) && worthwhile(kind)
}

/// Media types that are text by nature. What is compressed already, or is passed on event by event, is not among them.
fn worthwhile(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "text/event-stream" {
        return false;
    }
    kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || matches!(
            kind.as_str(),
            "application/json"
                | "application/javascript"
                | "application/x-javascript"
                | "application/xml"
                | "application/x-ndjson"
                | "application/graphql"
                | "application/wasm"
                | "application/yaml"
                | "application/manifest+json"
                | "font/ttf"
                | "font/otf"
                | "application/vnd.ms-fontobject"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(text: &str) -> Option<Encoding> {
        accepted(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_str(text).unwrap())]))
    }

    #[test]
    fn a_client_gets_what_it_likes_best() {
        for (text, expected) in [
            ("gzip, deflate, br, zstd", Some(Encoding::Brotli)),
            ("gzip", Some(Encoding::Gzip)),
            ("GZIP;q=0.5", Some(Encoding::Gzip)),
            ("gzip;q=1.0, br;q=0.8", Some(Encoding::Gzip)),
            ("*", Some(Encoding::Brotli)),
            ("br;q=0, *", Some(Encoding::Gzip)),
            ("gzip;q=0", None),
            ("br;q=2", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(asked(text), expected, "{text}");
        }
        assert_eq!(accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn only_whole_text_that_is_not_coded_is() {
        let fits = |status: u16, pairs: &[(header::HeaderName, &'static str)], length| {
            let headers = pairs.iter().map(|(n, v)| (n.clone(), HeaderValue::from_static(v))).collect();
            compressible(StatusCode::from_u16(status).unwrap(), &headers, length)
        };
        let json = (header::CONTENT_TYPE, "application/json; charset=utf-8");
        assert!(
            fits(200, std::slice::from_ref(&json), Some(10_000))
                && fits(404, std::slice::from_ref(&json), None)
        );
        assert!(fits(200, &[(header::CONTENT_TYPE, "image/svg+xml")], None));
        for (status, pairs, length) in [
            (204, vec![json.clone()], None),
            (206, vec![json.clone()], Some(10_000)),
            (304, vec![json.clone()], None),
            (200, vec![json.clone()], Some(100)),
            (200, vec![json.clone(), (header::CONTENT_ENCODING, "gzip")], Some(10_000)),
            (200, vec![json, (header::CACHE_CONTROL, "public, no-transform")], Some(10_000)),
            (200, vec![(header::CONTENT_TYPE, "text/event-stream")], None),
            (200, vec![(header::CONTENT_TYPE, "application/grpc+proto")], None),
            (200, vec![(header::CONTENT_TYPE, "image/png")], Some(10_000)),
            (200, vec![(header::CONTENT_TYPE, "application/zip")], Some(10_000)),
            (200, vec![], Some(10_000)),
        ] {
            assert!(!fits(status, &pairs, length), "{status} {pairs:?}");
        }
    }

    #[test]
    fn a_coded_answer_names_neither_its_old_length_nor_a_strong_tag() {
        let plain = || {
            let answer = Response::builder().header("content-type", "text/plain").header("etag", "\"a\"");
            answer.header("content-length", "1000").body(Body::full(vec![b'x'; 1_000])).unwrap()
        };
        let coded = encode(plain(), Some(Encoding::Gzip), false);
        assert_eq!(
            (&coded.headers()["content-encoding"], &coded.headers()["etag"]),
            (&HeaderValue::from_static("gzip"), &HeaderValue::from_static("W/\"a\""))
        );
        assert!(!coded.headers().contains_key("content-length"));
        for (encoding, to_head) in [(None, false), (Some(Encoding::Gzip), true)] {
            let answer = encode(plain(), encoding, to_head);
            assert!(!answer.headers().contains_key("content-encoding"));
            assert_eq!(answer.headers()["vary"], "accept-encoding");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read(text in "[ -~]{0,60}") {
            let _ = asked(&text);
        }
    }
}
