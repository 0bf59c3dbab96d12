//! Results that a runtime streams: its bytes go on as they come, as fast as the gateway takes them.
//!
//! `runtime_api.rs` calls this for a response in streaming mode when the gateway gave the call a window. Nothing is
//! collected here: while there is no credit the runtime's connection is not read, and the runtime waits.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use davit_link::STREAM_BYTES;
use davit_link::frame::{Frame, FrameKind, HEADER_BYTES, MAX_BODY_BYTES};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Notify;

use crate::agent::Agent;

/// How many bytes of frames the gateway takes now. Closed when its call ends, however it does.
#[derive(Default)]
pub(crate) struct Window {
    left: Cell<usize>,
    closed: Cell<bool>,
    changed: Notify,
}

impl Window {
    pub(crate) fn new(bytes: u32) -> Rc<Self> {
        Rc::new(Self { left: Cell::new(bytes as usize), ..Self::default() })
    }

    /// The gateway has taken this much.
    pub(crate) fn add(&self, bytes: u32) {
        self.left.set(self.left.get().saturating_add(bytes as usize));
        self.changed.notify_one();
    }

    /// There is nobody to send to any more.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.changed.notify_one();
    }

    /// Cuts the next frame's body off, waiting for room for at least one byte; `None` when the call has ended.
    async fn cut(&self, data: &mut Bytes) -> Option<Bytes> {
        loop {
            if self.closed.get() {
                return None;
            }
            let room = self.left.get().saturating_sub(HEADER_BYTES);
            if room > 0 {
                let part = data.split_to(data.len().min(room).min(MAX_BODY_BYTES));
                self.left.set(self.left.get() - HEADER_BYTES - part.len());
                return Some(part);
            }
            self.changed.notified().await;
        }
    }
}

/// How a streamed result ended.
pub(crate) enum Passed {
    /// Its bytes are sent, and these are its trailers. `begun` tells whether there was any byte.
    Whole { begun: bool, trailers: HeaderMap },
    /// The runtime's connection broke.
    Truncated,
    /// It is over the limit.
    TooLarge,
    /// Its call ended before it did.
    CallEnded,
}

/// Passes a body on until its end. The head goes out with the first byte, so that what fails before it can still be
/// told as an error.
pub(crate) async fn pass_on(
    agent: &Agent,
    stream: u32,
    window: &Window,
    content_type: &str,
    mut body: Incoming,
) -> Passed {
    let (mut begun, mut size, mut trailers) = (false, 0, HeaderMap::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Passed::Truncated };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                trailers = frame.into_trailers().unwrap_or_default();
                continue;
            }
        };
        size += data.len() as u64;
        if size > STREAM_BYTES {
            return Passed::TooLarge;
        }
        while !data.is_empty() {
            let Some(part) = window.cut(&mut data).await else { return Passed::CallEnded };
            if !std::mem::replace(&mut begun, true) {
                agent.begin_stream(stream, content_type);
            }
            agent.send([Frame { kind: FrameKind::Data, stream, body: part }]);
        }
    }
    Passed::Whole { begun, trailers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn the_end_of_a_call_wakes_who_waits_for_room() {
        let window = Window::new(HEADER_BYTES as u32);
        let mut data = Bytes::from_static(b"x");
        assert!(now(window.cut(&mut data)).is_none(), "a header alone is no use");
        window.close();
        assert_eq!(now(window.cut(&mut data)), Some(None));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_came_and_never_more_than_was_credited(
            length in 1usize..2_000_000, credits in prop::collection::vec(1u32..300_000, 1..30)
        ) {
            let window = Window::new(0);
            let mut data = Bytes::from(vec![7; length]);
            let (mut credited, mut cost, mut sent) = (0, 0, 0);
            for credit in credits {
                window.add(credit);
                credited += credit as usize;
                while !data.is_empty() {
                    let Some(part) = now(window.cut(&mut data)).flatten() else { break };
                    prop_assert!(!part.is_empty() && part.len() <= MAX_BODY_BYTES);
                    sent += part.len();
                    cost += HEADER_BYTES + part.len();
                }
                prop_assert!(cost <= credited);
                prop_assert!(data.is_empty() || credited - cost <= HEADER_BYTES);
            }
            prop_assert_eq!(sent + data.len(), length);
        }
    }
}
