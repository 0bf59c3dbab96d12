//! The agent's end of the link: one gateway, for life.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use davit_link::frame::{FIRST_ASK, Frame, FrameKind};
use davit_link::socket::{self, Inbox};
use davit_link::{Hello, InitRequest, InvokeHead, PAYLOAD_BYTES, PROTOCOL};
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};

use crate::agent::Agent;
use crate::calls::Call;
use crate::server::Inside;
use crate::{LINK_SOCKET, environment, failure, secrets, server, start};

/// Without a gateway by then, the instance is nobody's.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(120);

/// Opens the socket, takes the one gateway, and closes the socket.
pub(crate) async fn accept(agent: &Rc<Agent>) -> Result<Inbox, String> {
    let listener = UnixListener::bind(LINK_SOCKET).map_err(|e| format!("{LINK_SOCKET}: {e}"))?;
    // Gateways need not be root. The folder around the socket decides who reaches it.
    fs::set_permissions(LINK_SOCKET, Permissions::from_mode(0o666))
        .map_err(|e| format!("{LINK_SOCKET}: {e}"))?;
    let stream = tokio::time::timeout(GATEWAY_TIMEOUT, async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if is_outside(&stream) => return stream,
                // Somebody of this container, or gone again.
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    })
    .await
    .map_err(|_| "no gateway came".to_owned())?;
    drop(listener);
    // Nobody listens any more; the name goes too, where the host has not yet closed the folder to this user.
    let _ = fs::remove_file(LINK_SOCKET);
    let (outbox, inbox) = socket::split(stream);
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

/// A process outside our PID namespace has no number in it. Whoever has one is a neighbour in the container.
fn is_outside(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.pid() == Some(0))
}

/// A call whose event is still arriving.
struct Arriving {
    head: InvokeHead,
    parts: Vec<Bytes>,
    size: usize,
}

/// Does what the gateway says until it hangs up.
pub(crate) async fn serve(agent: &Rc<Agent>, mut inbox: Inbox) {
    let mut arriving = HashMap::new();
    loop {
        match inbox.next().await {
            Ok(Some((frame, descriptor))) => {
                if let Err(what) = take(agent, &mut arriving, frame, descriptor).await {
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
    arriving: &mut HashMap<u32, Arriving>,
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
            let bundle = File::from(descriptor.ok_or("init came without a bundle")?);
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
            arriving.insert(stream, Arriving { head, parts: Vec::new(), size: 0 });
        }
        FrameKind::Data => {
            if let Some(call) = arriving.get_mut(&stream) {
                call.size += frame.body.len();
                if call.size > PAYLOAD_BYTES {
                    return Err("an event is over the payload limit".into());
                }
                call.parts.push(frame.body);
            }
        }
        FrameKind::End => {
            if let Some(call) = arriving.remove(&stream) {
                agent.begin(Call { stream, head: call.head, event: join(call.parts) });
            }
        }
        FrameKind::Cancel => {
            if arriving.remove(&stream).is_none() {
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
        FrameKind::Ping => agent.send([Frame::empty(FrameKind::Pong, stream)]),
        other => return Err(format!("a gateway does not send {other:?}")),
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(frame: &Frame) -> Result<T, String> {
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
