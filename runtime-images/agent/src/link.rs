//! The agent's end of the link: one gateway, for life.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use davit_link::frame::{FIRST_ASK, Frame, FrameKind};
use davit_link::socket::{self, Inbox};
use davit_link::{Hello, InitRequest, InvokeHead, PAYLOAD_BYTES, PROTOCOL};
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;

use crate::agent::Agent;
use crate::calls::Call;
use crate::server::Inside;
use crate::start::Bundle;
use crate::{door, environment, failure, limits, secrets, server, start};

/// Takes the one gateway and greets it.
pub(crate) async fn accept(agent: &Rc<Agent>) -> Result<Inbox, String> {
    let (outbox, inbox) = socket::split(door::open(agent).await?);
    tokio::task::spawn_local(outbox.clone().drive());
    let _ = agent.outbox.set(outbox);
    let runtime = std::env::var("AWS_EXECUTION_ENV").unwrap_or_default();
    let hello = Hello {
        protocol: PROTOCOL,
        runtime,
        takes_mounted_code: true,
        takes_secret_files: true,
        takes_debugger: true,
    };
    agent.send(agent.json_frame(FrameKind::Hello, 0, &hello));
    Ok(inbox)
}

/// A call whose event is still arriving.
struct Arriving {
    head: InvokeHead,
    parts: Vec<Bytes>,
    size: usize,
}

/// What the gateway has begun to send.
#[derive(Default)]
struct Arrivals {
    calls: HashMap<u32, Arriving>,
    /// The init's stream, and where its bundle goes; where no descriptor could come.
    bundle: Option<(u32, pipe::Sender)>,
}

/// Does what the gateway says until it hangs up.
pub(crate) async fn serve(agent: &Rc<Agent>, mut inbox: Inbox) {
    let mut arrivals = Arrivals::default();
    loop {
        match inbox.next().await {
            Ok(Some((frame, descriptor))) => {
                if let Err(what) = take(agent, &mut arrivals, frame, descriptor).await {
                    return agent.end(&|id| failure::ended_with_another(id, &what)).await;
                }
            }
            // While ending, the last frames may still be on their way to a gateway that has stopped sending.
            _ if agent.is_ending() => std::future::pending().await,
            Ok(None) => return,
            Err(error) => return crate::say(&format!("link: {error}")),
        }
    }
}

async fn take(
    agent: &Rc<Agent>,
    arrivals: &mut Arrivals,
    frame: Frame,
    descriptor: Option<OwnedFd>,
) -> Result<(), String> {
    let stream = frame.stream;
    if stream >= FIRST_ASK {
        let now = agent.asks.borrow_mut().take(frame)?;
        agent.send(now);
        return Ok(());
    }
    match frame.kind {
        FrameKind::Init => {
            let mut request: InitRequest = parse(&frame)?;
            environment::with_asks(&mut request);
            let bundle = match descriptor {
                Some(descriptor) => Bundle::Whole(File::from(descriptor)),
                None => {
                    let (send, receive) = pipe::pipe().map_err(|e| format!("no pipe: {e}"))?;
                    arrivals.bundle = Some((stream, send));
                    Bundle::Coming(receive)
                }
            };
            // Once means once: a second function in the same container would meet the first one's remains.
            agent.function.set(request).map_err(|_| "init came twice")?;
            tokio::task::spawn_local(start::start(agent.clone(), stream, bundle));
        }
        FrameKind::SecretFile => {
            if agent.function.get().is_some() {
                return Err("a secret file came after the init".into());
            }
            if let Err(what) = secrets::write(&frame.body) {
                agent.unwritten.borrow_mut().get_or_insert(what);
            }
        }
        FrameKind::Invoke => {
            let head = parse(&frame)?;
            arrivals.calls.insert(stream, Arriving { head, parts: Vec::new(), size: 0 });
        }
        FrameKind::Data => {
            if let Some((_, bundle)) = arrivals.bundle.as_mut().filter(|(init, _)| *init == stream) {
                // Who unpacks may have had enough; then the rest only has to go by.
                let _ = bundle.write_all(&frame.body).await;
            } else if let Some(call) = arrivals.calls.get_mut(&stream) {
                call.size += frame.body.len();
                if call.size > PAYLOAD_BYTES {
                    return Err("an event is over the payload limit".into());
                }
                call.parts.push(frame.body);
            }
        }
        FrameKind::End => {
            if arrivals.bundle.take_if(|(init, _)| *init == stream).is_some() {
                // Closing the pipe is its end.
            } else if let Some(call) = arrivals.calls.remove(&stream) {
                agent.begin(Call { stream, head: call.head, event: join(call.parts) });
            }
        }
        FrameKind::Cancel => {
            if arrivals.calls.remove(&stream).is_none() {
                agent.abandon(stream).await;
            }
        }
        FrameKind::Credit => {
            let bytes = frame.body.as_ref().try_into().map_err(|_| "credit is no number")?;
            agent.calls.borrow().credit(stream, u32::from_le_bytes(bytes));
        }
        FrameKind::Open => {
            agent.thaw();
            tokio::task::spawn_local(server::open(agent.clone(), stream, Inside::Server));
        }
        FrameKind::OpenDebugger => {
            agent.thaw();
            tokio::task::spawn_local(server::open(agent.clone(), stream, Inside::Debugger));
        }
        FrameKind::Freeze => {
            agent.freeze();
            agent.send([Frame::empty(FrameKind::Frozen, stream)]);
        }
        FrameKind::Thaw => {
            agent.thaw();
            agent.send([Frame::empty(FrameKind::Thawed, stream)]);
        }
        FrameKind::Ping => {
            let said = limits::now().and_then(|limits| serde_json::to_vec(&limits).ok());
            agent.send([Frame { kind: FrameKind::Pong, stream, body: said.unwrap_or_default().into() }]);
        }
        other => return Err(format!("a gateway does not send {other:?}")),
    }
    Ok(())
}

/// A frame's JSON body.
pub(crate) fn parse<T: DeserializeOwned>(frame: &Frame) -> Result<T, String> {
    serde_json::from_slice(&frame.body).map_err(|error| format!("{:?}: {error}", frame.kind))
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        whole.extend_from_slice(&part);
    }
    whole.freeze()
}
