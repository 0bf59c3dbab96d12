//! Functions that are servers: waiting until one listens, and handing connections to it over to the gateway.

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

/// Connects to the server and hands the socket over.
pub(crate) async fn open(agent: Rc<Agent>, stream: u32) {
    match connect(&agent).await {
        Ok(socket) => {
            if let Some(outbox) = agent.outbox.get() {
                outbox.send_with_descriptor(Frame::empty(FrameKind::Opened, stream), socket);
            }
        }
        Err(what) => {
            let failure = failure::bad_response(&what);
            agent.send(agent.json_frame(FrameKind::Failed, stream, &failure));
        }
    }
}

async fn connect(agent: &Agent) -> Result<OwnedFd, String> {
    let place = agent.server.get().ok_or("this function is no server")?;
    let failed =
        |e: std::io::Error| format!("the server does not accept connections on port {SERVER_PORT}: {e}");
    let stream = TcpStream::connect(place).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream.into_std().map_err(failed)?.into())
}
