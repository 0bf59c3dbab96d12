//! Courtesy towards a client that still sends what has been refused. Used by both doors.

use std::time::Duration;

use axum::body::HttpBody;
use bytes::Buf as _;
use http_body_util::BodyExt as _;

/// For how long such a client is heard.
const TIME: Duration = Duration::from_secs(2);
/// A client that pauses for so long does not need it.
const PAUSE: Duration = Duration::from_millis(200);

/// Takes and throws away what is still to come of a refused body: up to `most` bytes, for up to two seconds. A client
/// whose connection is reset while it sends sees the reset, and not the answer that says why.
pub async fn hear_out<B>(body: &mut B, most: u64)
where
    B: HttpBody<Data: Send> + Unpin,
{
    let _ = tokio::time::timeout(TIME, discard(body, most)).await;
}

async fn discard<B>(body: &mut B, mut left: u64)
where
    B: HttpBody<Data: Send> + Unpin,
{
    while !body.is_end_stream() && body.size_hint().lower() <= left {
        let Ok(Some(Ok(frame))) = tokio::time::timeout(PAUSE, body.frame()).await else { return };
        let taken = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        match left.checked_sub(taken) {
            Some(less) => left = less,
            None => return,
        }
    }
}
