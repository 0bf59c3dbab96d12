//! The codec under arbitrary frames, cuts and garbage.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use bytes::{Bytes, BytesMut};
use davit_link::frame::{Decoder, Frame, FrameError, FrameKind, HEADER_BYTES, MAX_BODY_BYTES, body_frames};
use proptest::prelude::*;

fn frame() -> impl Strategy<Value = Frame> {
    let body = prop::collection::vec(any::<u8>(), 0..600).prop_map(Bytes::from);
    (prop::sample::select(FrameKind::ALL), any::<u32>(), body).prop_map(|(kind, stream, body)| Frame {
        kind,
        stream,
        body,
    })
}

fn decode_all(decoder: &mut Decoder) -> Vec<Frame> {
    std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_however_it_is_cut(frames in prop::collection::vec(frame(), 0..12), cuts in prop::collection::vec(1usize..700, 0..40)) {
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        let mut decoder = Decoder::default();
        let mut decoded = Vec::new();
        for cut in cuts {
            let part = bytes.split_to(cut.min(bytes.len()));
            decoder.buffer().extend_from_slice(&part);
            decoded.extend(decode_all(&mut decoder));
        }
        decoder.buffer().extend_from_slice(&bytes);
        decoded.extend(decode_all(&mut decoder));
        prop_assert_eq!(decoded, frames);
        prop_assert!(!decoder.is_mid_frame());
    }

    #[test]
    fn garbage_never_panics_and_never_yields_more_than_it_holds(garbage in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&garbage);
        let mut taken = 0;
        while let Ok(Some(frame)) = decoder.next_frame() {
            taken += HEADER_BYTES + frame.body.len();
        }
        prop_assert!(taken <= garbage.len());
    }

    #[test]
    fn a_body_of_any_length_is_cut_and_joins_again(length in 0usize..3 * MAX_BODY_BYTES) {
        let body = Bytes::from(vec![7; length]);
        let frames = body_frames(5, body.clone());
        prop_assert_eq!(frames.last().map(|f| f.kind), Some(FrameKind::End));
        prop_assert!(frames.iter().all(|f| f.stream == 5 && f.body.len() <= MAX_BODY_BYTES));
        let joined: Vec<Bytes> = frames.into_iter().map(|f| f.body).collect();
        prop_assert!(joined.concat() == body);
    }
}

#[test]
fn bad_headers_are_refused_before_their_body_comes() {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(&[1, 0, 0, 0, 99, 0, 0, 0, 0]);
    assert_eq!(decoder.next_frame(), Err(FrameError::UnknownKind(99)));
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(&u32::MAX.to_le_bytes());
    decoder.buffer().extend_from_slice(&[3, 0, 0, 0, 0]);
    assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(u32::MAX)));
}
