//! The head of a function's answer: read once, and written as the client gets it. Pure.
//!
//! What is not understood for certain is refused; the caller then gets a named error instead of the function's bytes.

use std::io::Write as _;
use std::time::SystemTime;

use crate::forward::is_hop;

/// Header lines of an answer.
const HEADERS: usize = 100;
/// Interim answers (1xx) in front of the real one.
const INTERIM: usize = 8;

/// How long an answer's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Until its last chunk.
    Chunked,
    /// Until the function closes the connection.
    UntilClose,
}

/// An answer's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The function's status.
    pub(super) status: u16,
    /// Bytes it took.
    pub(super) length: usize,
    /// What follows.
    pub(super) framing: Framing,
    /// Whether the function's connection may carry another exchange.
    pub(super) reusable: bool,
}

/// Why there is no answer that could be passed on; the text is for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Bad(pub(super) &'static str);

/// What the client's head is made of, besides the function's.
pub(super) struct Ours<'a> {
    /// Whether the request was a HEAD, whose answer has no body whatever its headers say.
    pub(super) to_head: bool,
    /// The invocation's id.
    pub(super) invocation: &'a str,
    /// Now, for the `Date` of functions that do not say.
    pub(super) now: SystemTime,
    /// Whether the client's connection ends with this answer.
    pub(super) closing: bool,
}

/// Reads an answer's head, and writes the client's to `out`. `None` when it is not complete yet.
pub(super) fn head(received: &[u8], ours: &Ours<'_>, out: &mut Vec<u8>) -> Result<Option<Head>, Bad> {
    let mut at = 0;
    for _ in 0..=INTERIM {
        let mut headers = [const { std::mem::MaybeUninit::uninit() }; HEADERS];
        let mut answer = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut answer,
            &received[at..],
            &mut headers,
        );
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Bad("the server's answer has too many headers"));
            }
            Err(_) => return Err(Bad("the server's answer is not HTTP")),
        };
        at += length;
        match answer.code.unwrap_or_default() {
            101 => return Err(Bad("the server switched protocols without being asked to")),
            100..=199 => continue,
            _ => return write(&answer, at, ours, out).map(Some),
        }
    }
    Err(Bad("the server sends interim answers without end"))
}

fn write(
    answer: &httparse::Response<'_, '_>,
    length: usize,
    ours: &Ours<'_>,
    out: &mut Vec<u8>,
) -> Result<Head, Bad> {
    let code = answer.code.unwrap_or_default();
    let (framing, declared) = framing(answer, code, ours.to_head)?;
    let connection = Connection::of(answer.headers);
    let start = out.len();
    // Writing to memory does not fail.
    let _ = write!(out, "HTTP/1.1 {code} {}\r\n", answer.reason.unwrap_or_default());
    let mut dated = false;
    for header in answer.headers.iter() {
        let name = header.name;
        if is_hop(name)
            || name.eq_ignore_ascii_case("content-length")
            || name.eq_ignore_ascii_case("x-davit-invocation-id")
            || connection.names(name)
        {
            continue;
        }
        if header.value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            out.truncate(start);
            return Err(Bad("a header of the server's answer is not valid"));
        }
        dated |= name.eq_ignore_ascii_case("date");
        line(out, name, header.value);
    }
    match (framing, declared) {
        (Framing::Length(length), _) => drop(write!(out, "content-length: {length}\r\n")),
        (Framing::Chunked | Framing::UntilClose, _) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n")
        }
        // What the body would have been: of use to a HEAD's sender and to a cache's, a lie with a 204.
        (Framing::Empty, Some(length)) if code != 204 => drop(write!(out, "content-length: {length}\r\n")),
        (Framing::Empty, _) => {}
    }
    if !dated {
        line(out, "date", httpdate::fmt_http_date(ours.now).as_bytes());
    }
    line(out, "x-davit-invocation-id", ours.invocation.as_bytes());
    if ours.closing {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    let reusable = answer.version == Some(1) && !connection.close && framing != Framing::UntilClose;
    Ok(Head { status: code, length, framing, reusable })
}

pub(super) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// How the body is framed (RFC 9112, 6.3), and the length that the head names.
fn framing(
    answer: &httparse::Response<'_, '_>,
    code: u16,
    to_head: bool,
) -> Result<(Framing, Option<u64>), Bad> {
    let all = |name: &'static str| {
        answer.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    };
    let mut encodings = all("transfer-encoding");
    let encoding = encodings.next();
    let mut lengths = all("content-length");
    let length = match lengths.next() {
        None => None,
        Some(_) if lengths.next().is_some() => return Err(Bad("the server's answer has two lengths")),
        Some(value) => Some(number(value).ok_or(Bad("the length of the server's answer is not a number"))?),
    };
    let framing = match (encoding, length) {
        _ if to_head || matches!(code, 204 | 304) => Framing::Empty,
        (Some(_), Some(_)) => return Err(Bad("the server's answer has both a length and chunks")),
        (Some(value), None) if value.eq_ignore_ascii_case(b"chunked") && encodings.next().is_none() => {
            Framing::Chunked
        }
        (Some(_), None) => {
            return Err(Bad("the server's answer has a transfer encoding that is not chunked"));
        }
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::UntilClose,
    };
    Ok((framing, length))
}

/// Digits and nothing else.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// What the `Connection` headers of an answer say.
struct Connection<'a> {
    close: bool,
    lines: &'a [httparse::Header<'a>],
    /// Whether any of them names another header, which then belongs to that connection alone.
    naming: bool,
}

impl<'a> Connection<'a> {
    fn of(lines: &'a [httparse::Header<'a>]) -> Self {
        let mut this = Self { close: false, lines, naming: false };
        for token in tokens(lines) {
            if token.eq_ignore_ascii_case(b"close") {
                this.close = true;
            } else if !token.eq_ignore_ascii_case(b"keep-alive") {
                this.naming = true;
            }
        }
        this
    }

    fn names(&self, name: &str) -> bool {
        self.naming && tokens(self.lines).any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// What stands between the commas of all `Connection` headers.
pub(super) fn tokens<'a>(lines: &'a [httparse::Header<'a>]) -> impl Iterator<Item = &'a [u8]> {
    let named = lines.iter().filter(|h| h.name.eq_ignore_ascii_case("connection"));
    named.flat_map(|h| h.value.split(|b| *b == b',')).map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ours(to_head: bool, closing: bool) -> Ours<'static> {
        Ours { to_head, invocation: "id", now: SystemTime::UNIX_EPOCH, closing }
    }

    fn read(wire: &str, to_head: bool) -> Result<(Head, String), Bad> {
        let mut out = Vec::new();
        let head = head(wire.as_bytes(), &ours(to_head, false), &mut out)?.expect("it is complete");
        Ok((head, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn an_answer_crosses_without_what_belongs_to_its_connection() {
        let wire = "HTTP/1.1 201 Made\r\nConnection: x-private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: 5\r\n\
                    Content-Length: 5\r\nX-Davit-Invocation-Id: mine\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nhello";
        let (head, text) = read(wire, false).unwrap();
        assert_eq!(
            head,
            Head { status: 201, length: wire.len() - 5, framing: Framing::Length(5), reusable: true }
        );
        assert_eq!(
            text,
            "HTTP/1.1 201 Made\r\nSet-Cookie: a\r\nSet-Cookie: b\r\ncontent-length: 5\r\n\
             date: Thu, 01 Jan 1970 00:00:00 GMT\r\nx-davit-invocation-id: id\r\n\r\n"
        );
    }

    #[test]
    fn bodies_are_as_long_as_the_head_says() {
        for (head, to_head, framing, reusable) in [
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, Framing::Chunked, true),
            ("HTTP/1.1 200 OK\r\n\r\n", false, Framing::UntilClose, false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false, Framing::Length(0), false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", true, Framing::Empty, true),
            ("HTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\n", false, Framing::Empty, true),
            ("HTTP/1.1 304 Same\r\nConnection: Close\r\n\r\n", false, Framing::Empty, false),
            (
                "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
                false,
                Framing::Length(1),
                true,
            ),
        ] {
            let (seen, text) = read(head, to_head).unwrap();
            assert_eq!((seen.framing, seen.reusable), (framing, reusable), "{head}");
            assert_eq!(text.contains("content-length: 7"), to_head, "{text}");
        }
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for bad in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
            "hello\r\n\r\n",
        ] {
            assert!(read(bad, false).is_err(), "{bad}");
        }
        let endless = "HTTP/1.1 102 Wait\r\n\r\n".repeat(20);
        assert!(head(endless.as_bytes(), &ours(false, false), &mut Vec::new()).is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
        assert!(head(many.as_bytes(), &ours(false, false), &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn noise_never_panics_and_never_splits_a_header(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            let wire = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), noise, b"\r\n\r\n".to_vec()].concat();
            if let Ok(Some(_)) = head(&wire, &ours(false, true), &mut out) {
                let mut headers = [httparse::EMPTY_HEADER; 120];
                let mut again = httparse::Response::new(&mut headers);
                prop_assert!(again.parse(&out).is_ok_and(|s| s.is_complete()));
            }
        }
    }
}
