//! The head of a streamed result: what the corridor answers with while the body is still being written.
//!
//! A runtime client that streams for HTTP puts JSON in front of the body, `{"statusCode","headers","cookies"}`, and
//! eight NUL bytes after it. It arrives in pieces like everything else of the stream.

use bytes::{Bytes, BytesMut};
use davit_api::ApiError;
use http::{HeaderValue, Response, header};

use super::response::{bad, is_bodiless, media_type, prelude};

/// What runtime clients call a result that brings its own status and headers in front of the body.
pub(super) const WITH_PRELUDE: &str = "application/vnd.awslambda.http-integration-response";
/// What ends the prelude.
pub(super) const SEPARATOR: [u8; 8] = [0; 8];
/// Bytes of a prelude: the largest headers and room for their JSON.
const PRELUDE_BYTES: usize = 256 * 1024;

/// Collects the head of a streamed result.
pub enum Head {
    /// The content type says it all.
    Plain(Response<()>),
    /// These bytes came, and they do not hold the whole prelude yet.
    Partial(BytesMut),
}

/// A head that is complete, and the first bytes of the body.
pub type Begun = (Response<()>, Bytes);

impl Head {
    /// For a result of this content type.
    pub fn new(content_type: &str) -> Self {
        if media_type(content_type) == WITH_PRELUDE {
            return Self::Partial(BytesMut::new());
        }
        let mut response = Response::new(());
        let usual = HeaderValue::from_static("application/octet-stream");
        let named = HeaderValue::from_str(content_type).ok().filter(|value| !value.is_empty());
        response.headers_mut().insert(header::CONTENT_TYPE, named.unwrap_or(usual));
        Self::Plain(response)
    }

    /// Takes the next bytes; the response's head once they complete it.
    pub fn push(&mut self, bytes: Bytes) -> Result<Option<Begun>, ApiError> {
        let seen = match self {
            Self::Plain(response) => return Ok(Some((std::mem::take(response), bytes))),
            Self::Partial(seen) => seen,
        };
        // The separator may have begun in the last piece.
        let from = seen.len().saturating_sub(SEPARATOR.len() - 1);
        seen.extend_from_slice(&bytes);
        let Some(at) = seen[from..].windows(SEPARATOR.len()).position(|w| w == SEPARATOR) else {
            if seen.len() > PRELUDE_BYTES {
                return Err(bad(&format!("has a prelude of more than {PRELUDE_BYTES} bytes")));
            }
            return Ok(None);
        };
        let mut body = std::mem::take(seen).freeze();
        let head = body.split_to(from + at);
        if head.len() > PRELUDE_BYTES {
            return Err(bad(&format!("has a prelude of more than {PRELUDE_BYTES} bytes")));
        }
        Ok(Some((prelude(&head).map_err(|problem| bad(&problem))?, body.split_off(SEPARATOR.len()))))
    }

    /// The result has ended: without a byte, or within its prelude.
    pub fn end(self) -> Result<Begun, ApiError> {
        match self {
            Self::Plain(response) => Ok((response, Bytes::new())),
            Self::Partial(_) => Err(bad("has no prelude")),
        }
    }
}

/// Whether HTTP has no body for this response, so that nothing of the result's rest can be sent.
pub fn has_no_body(response: &Response<()>) -> bool {
    is_bodiless(response.status())
}

#[cfg(test)]
mod tests {
    use davit_api::ErrorCode;
    use proptest::prelude::*;

    use super::*;

    fn feed(parts: &[&[u8]]) -> Result<Option<Begun>, ApiError> {
        let mut head = Head::new(WITH_PRELUDE);
        for (n, part) in parts.iter().enumerate() {
            if let Some((response, first)) = head.push(Bytes::copy_from_slice(part))? {
                let body = std::iter::once(first.to_vec()).chain(parts[n + 1..].iter().map(|p| p.to_vec()));
                return Ok(Some((response, body.collect::<Vec<_>>().concat().into())));
            }
        }
        Ok(None)
    }

    #[test]
    fn without_a_prelude_the_content_type_is_the_head() {
        for (named, sent) in [("text/event-stream", "text/event-stream"), ("", "application/octet-stream")] {
            let (response, first) = Head::new(named).push(Bytes::from_static(b"x")).unwrap().unwrap();
            assert_eq!((response.status().as_u16(), &first[..]), (200, &b"x"[..]));
            assert_eq!(response.headers()[header::CONTENT_TYPE], sent);
        }
        assert!(Head::new("text/plain").end().unwrap().1.is_empty());
        assert_eq!(Head::new(WITH_PRELUDE).end().unwrap_err().code, ErrorCode::FunctionBadResponse);
    }

    #[test]
    fn what_is_no_prelude_is_the_functions_fault() {
        for bytes in
            [&b"{\0\0\0\0\0\0\0\0"[..], b"{\"statusCode\":99}\0\0\0\0\0\0\0\0", b"[]\0\0\0\0\0\0\0\0x"]
        {
            assert_eq!(feed(&[bytes]).unwrap_err().code, ErrorCode::FunctionBadResponse);
        }
        let endless = vec![b' '; PRELUDE_BYTES + 1];
        assert_eq!(feed(&[&endless]).unwrap_err().code, ErrorCode::FunctionBadResponse);
        assert!(feed(&[b"{}\0\0\0\0\0\0\0"]).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_prelude_is_cut(cuts in prop::collection::vec(1usize..20, 0..12), body in prop::collection::vec(any::<u8>(), 0..40)) {
            let json = br#"{"statusCode":418,"headers":{"x-a":"1"},"cookies":["a=b","c=d"]}"#;
            let whole = [&json[..], &SEPARATOR, &body].concat();
            let mut parts: Vec<&[u8]> = Vec::new();
            let mut rest = &whole[..];
            for cut in cuts {
                let (part, left) = rest.split_at(cut.min(rest.len()));
                parts.push(part);
                rest = left;
            }
            parts.push(rest);
            let (response, sent) = feed(&parts).unwrap().unwrap();
            prop_assert_eq!(&sent[..], &body[..]);
            prop_assert_eq!(response.status().as_u16(), 418);
            prop_assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        }
    }
}
