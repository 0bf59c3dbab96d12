//! One exchange of the express way with a function's server: the request out, the head of the answer in.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use davit_api::{ApiError, ErrorCode};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::answer::{self, Bad, Head, Ours};
use super::order::Order;
use crate::account::{Account, TRIES};
use crate::forward::{Refused, bad_response, ended_in_request, not_connected, spoils};
use crate::instances::{Instance, Slot, connect};
use crate::invoke::{CallError, timed_out, unreachable_instances};

/// Longest head of an answer.
const HEAD_BYTES: usize = 256 * 1024;
/// What is read at a time.
const READ_BYTES: usize = 16 * 1024;

/// A function that has begun to answer.
pub(super) struct Answering {
    pub(super) head: Head,
    pub(super) stream: TcpStream,
    pub(super) instance: Arc<Instance>,
    pub(super) slot: Slot,
}

enum Failed {
    /// No byte was sent.
    Unsent(CallError),
    /// It may have been started.
    Final(CallError),
}

/// Sends `request` to an instance. What came of the answer after its head is left in `received`; the client's head is
/// written to `out`.
pub(super) async fn send(
    account: &mut Account,
    order: &Order,
    request: &[u8],
    received: &mut BytesMut,
    out: &mut Vec<u8>,
) -> Result<Answering, CallError> {
    for tried in 1..=TRIES {
        let slot = account.slot().await?;
        received.clear();
        match attempt(slot, order, request, received, out).await {
            Ok(answering) => return Ok(answering),
            Err(Failed::Unsent(_)) if tried < TRIES => {}
            Err(Failed::Unsent(error) | Failed::Final(error)) => return Err(error),
        }
    }
    unreachable_instances()
}

async fn attempt(
    mut slot: Slot,
    order: &Order,
    request: &[u8],
    received: &mut BytesMut,
    out: &mut Vec<u8>,
) -> Result<Answering, Failed> {
    let instance = slot.instance().clone();
    let mut idle = instance.upstreams.raw.take();
    loop {
        let reused = idle.is_some();
        let mut stream = match idle.take() {
            Some(stream) => stream,
            None => match connect(&instance.link, order.deadline).await {
                Ok(stream) => stream,
                Err(error) => {
                    slot.set_spoiled(spoils(&error));
                    return Err(match not_connected(error, &order.version) {
                        Refused::Unsent(error) => Failed::Unsent(error),
                        Refused::Final(error) => Failed::Final(error),
                    });
                }
            },
        };
        let exchanged = async {
            match write(&stream, request).await {
                Ok(()) => {}
                // The server closed an idle connection in the moment we took it; nothing was written.
                Err(0) if reused => return Ok(None),
                Err(_) => return Err(Bad("the server closed the connection without an answer")),
            }
            read_head(&mut stream, order, received, out).await.map(Some)
        };
        return match tokio::time::timeout_at(order.deadline.into(), exchanged).await {
            Ok(Ok(Some(head))) => Ok(Answering { head, stream, instance, slot }),
            Ok(Ok(None)) => continue,
            Ok(Err(_)) if instance.link.is_closed() => Err(Failed::Final(ended_in_request())),
            Ok(Err(Bad(why))) => Err(Failed::Final(bad_response(why))),
            Err(_) => Err(Failed::Final(timed_out(&order.version))),
        };
    }
}

/// Writes all; on failure says how much had been written.
async fn write(stream: &TcpStream, bytes: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.try_write(&bytes[written..]) {
            Ok(0) => return Err(written),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.writable().await.map_err(|_| written)?;
            }
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

async fn read_head(
    stream: &mut TcpStream,
    order: &Order,
    received: &mut BytesMut,
    out: &mut Vec<u8>,
) -> Result<Head, Bad> {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let invocation = order.id.0.hyphenated().encode_lower(&mut text);
    loop {
        received.reserve(READ_BYTES);
        match stream.read_buf(received).await {
            Ok(0) | Err(_) => return Err(Bad("the server closed the connection without an answer")),
            Ok(_) => {}
        }
        let now = SystemTime::now();
        let ours = Ours { to_head: order.to_head, invocation, now, closing: order.last };
        if let Some(head) = answer::head(received, &ours, out)? {
            let _ = received.split_to(head.length);
            return Ok(head);
        }
        if received.len() > HEAD_BYTES {
            return Err(Bad("the head of the server's answer is too long"));
        }
    }
}

/// The budget ended before the request had arrived whole.
pub(super) fn body_late() -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, "the body did not arrive within the function's time budget")
}
