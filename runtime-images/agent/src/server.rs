//! What listens inside the container, a function that is a server or a runtime's debugger: waiting until the server does, and handing
//! connections over to the gateway.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use davit_link::frame::{Frame, FrameKind};
use tokio::net::TcpStream;

use crate::agent::Agent;
use crate::{SERVER_PORT, failure};

const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Waits until something accepts connections on the port.
pub(crate) async fn listening() -> SocketAddr {
    // Some programs bind "localhost", which may be the one or the other.
    let places = [
        SocketAddr::from((Ipv4Addr::LOCALHOST, SERVER_PORT)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, SERVER_PORT)),
    ];
    let mut pause = PAUSE;
    loop {
        for place in places {
            if TcpStream::connect(place).await.is_ok() {
                return place;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What a connection is made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// The function itself.
    Server,
    /// The debugger of its runtime.
    Debugger,
}

/// Connects to what is inside and hands the socket over.
pub(crate) async fn open(agent: Rc<Agent>, stream: u32, to: Inside) {
    let connected = connect(&agent, to).await;
    match connected.and_then(|stream| stream.into_std().map_err(|e| e.to_string())) {
        Ok(socket) => {
            if let Some(outbox) = agent.outbox.get() {
                outbox.send_with_descriptor(Frame::empty(FrameKind::Opened, stream), OwnedFd::from(socket));
            }
        }
        Err(what) => {
            let failure = failure::bad_response(&what);
            agent.send(agent.json_frame(FrameKind::Failed, stream, &failure));
        }
    }
}

/// A connection to what is inside, if the init asked for it.
pub(crate) async fn connect(agent: &Agent, to: Inside) -> Result<TcpStream, String> {
    let (name, place) = match to {
        Inside::Server => ("server", agent.server.get().ok_or("this function is no server")?),
        Inside::Debugger => {
            // Only what the init asked for is opened: a version that is not deployed for debugging has no such door.
            let debugger = agent.function.get().and_then(|function| function.debugger);
            let debugger = debugger.ok_or("this version is not deployed for debugging")?;
            ("debugger", SocketAddr::from((Ipv4Addr::LOCALHOST, debugger.port)))
        }
    };
    let failed =
        |e: std::io::Error| format!("the {name} does not accept connections on port {}: {e}", place.port());
    let stream = TcpStream::connect(place).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}
