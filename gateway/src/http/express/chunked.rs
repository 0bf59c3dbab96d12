//! A chunked body on its way from a function to a client: read chunk by chunk and written as chunks of our own, so that
//! nothing of the function's framing is trusted further than it has been understood. Trailers are left out. Pure.

use bytes::{Buf, BytesMut};

/// Longest line of a chunk's size with its extensions, and all trailers together.
const LINE_BYTES: usize = 8 * 1024;

/// Why a body cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body's chunks are malformed")]
pub(super) struct Malformed;

/// Where in the body the reader is.
#[derive(Debug, Default)]
pub(super) struct Chunks(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers(usize),
}

impl Chunks {
    /// Moves what `input` holds of the body to `out`; true when that was the end of it.
    pub(super) fn pass(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<bool, Malformed> {
        loop {
            match &mut self.0 {
                State::Size => match httparse::parse_chunk_size(input).map_err(|_| Malformed)? {
                    httparse::Status::Complete((line, size)) => {
                        input.advance(line);
                        self.0 = if size == 0 { State::Trailers(0) } else { State::Data(size) };
                    }
                    httparse::Status::Partial if input.len() > LINE_BYTES => return Err(Malformed),
                    httparse::Status::Partial => return Ok(false),
                },
                State::Data(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    if here == 0 {
                        return Ok(false);
                    }
                    write(&input[..here], out);
                    input.advance(here);
                    *left -= here as u64;
                    if *left == 0 {
                        self.0 = State::DataEnd;
                    }
                }
                State::DataEnd => match input.get(..2) {
                    Some(b"\r\n") => {
                        input.advance(2);
                        self.0 = State::Size;
                    }
                    Some(_) => return Err(Malformed),
                    None => return Ok(false),
                },
                State::Trailers(seen) => {
                    let Some(end) = input.windows(2).position(|w| w == b"\r\n") else {
                        return if *seen + input.len() > LINE_BYTES { Err(Malformed) } else { Ok(false) };
                    };
                    *seen += end + 2;
                    input.advance(end + 2);
                    if end == 0 {
                        out.extend_from_slice(END);
                        return Ok(true);
                    }
                    if *seen > LINE_BYTES {
                        return Err(Malformed);
                    }
                }
            }
        }
    }
}

/// The end of a chunked body.
pub(super) const END: &[u8] = b"0\r\n\r\n";

/// Writes one chunk. Of nothing it writes nothing, because an empty chunk is the end.
pub(super) fn write(data: &[u8], out: &mut Vec<u8>) {
    use std::io::Write as _;
    if !data.is_empty() {
        // Writing to memory does not fail.
        let _ = write!(out, "{:x}\r\n", data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Passes `wire` in pieces of `step` bytes; what came out, and what was left over behind the end.
    fn passed(wire: &[u8], step: usize) -> Result<(Vec<u8>, usize), Malformed> {
        let (mut chunks, mut input, mut out) = (Chunks::default(), BytesMut::new(), Vec::new());
        for piece in wire.chunks(step.max(1)) {
            input.extend_from_slice(piece);
            if chunks.pass(&mut input, &mut out)? {
                return Ok((out, input.len()));
            }
        }
        Err(Malformed)
    }

    /// The data of a body that we wrote ourselves.
    fn data(mut wire: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        while wire != END {
            let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(wire) else {
                panic!("not a chunk: {wire:?}")
            };
            all.extend_from_slice(&wire[line..line + size as usize]);
            wire = &wire[line + size as usize + 2..];
        }
        all
    }

    #[test]
    fn extensions_and_trailers_do_not_cross() {
        let wire = b"5;x=\"y\"\r\nhello\r\n0\r\nContent-Length: 3\r\nX: y\r\n\r\n";
        assert_eq!(passed(wire, 1000), Ok((b"5\r\nhello\r\n0\r\n\r\n".to_vec(), 0)));
    }

    #[test]
    fn framing_that_could_be_read_two_ways_ends_the_body() {
        for bad in [
            &b"0_2\r\nab\r\n0\r\n\r\n"[..],
            b"-1\r\n",
            b"fffffffffffffffff\r\n",
            b"2\nab\n0\n\n",
            b"2\r\nabc\r\n0\r\n\r\n",
            b"\r\n",
            b"g\r\n",
        ] {
            assert!(passed(bad, 1).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(passed(&[b'1'; 20_000], 100).is_err());
        let endless = [b"0\r\n".to_vec(), b"X: y\r\n".repeat(5_000)].concat();
        assert!(passed(&endless, 1_000).is_err());
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_bytes(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), step in 1usize..50, rest in 0usize..9,
        ) {
            let mut wire = Vec::new();
            parts.iter().for_each(|part| write(part, &mut wire));
            wire.extend_from_slice(END);
            let whole = wire.len();
            wire.extend(std::iter::repeat_n(b'H', rest));
            let (out, left) = passed(&wire, step).unwrap();
            prop_assert_eq!(data(&out), parts.concat());
            // Bytes behind the end are not taken, as far as they had come.
            prop_assert!(left <= rest && whole + left <= wire.len());
        }

        #[test]
        fn noise_never_panics(wire in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..20) {
            let _ = passed(&wire, step);
        }
    }
}
