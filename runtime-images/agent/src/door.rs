//! How the one gateway comes in: through a socket in a folder that this container alone has, or by TCP after both have
//! proven the instance's secret. The container's settings say which.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use davit_link::InstanceSecret;
use davit_link::proof::{CLAIM_BYTES, Claimed, Greeter, Nonce, Purpose};
use davit_link::socket::{self, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};

use crate::agent::Agent;
use crate::server::{self, Inside};
use crate::{LINK_SOCKET, say};

/// Without a gateway by then, the instance is nobody's.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(120);
/// The setting that holds the instance's secret; with it, the gateway comes by TCP.
pub(crate) const SECRET: &str = "DAVIT_LINK_SECRET";
/// Where it comes to then.
const PORT: u16 = 9000;
/// For a stranger to prove what he cannot.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// Strangers at a time: whoever reaches the port may keep these places busy, and nothing else.
const UNPROVEN: usize = 64;
/// A piece of what is passed between a gateway and a server.
const PIECE: usize = 64 * 1024;

/// Takes the one gateway; nobody listens for another one afterwards.
pub(crate) async fn open(agent: &Rc<Agent>) -> Result<Wire, String> {
    let came = async {
        match std::env::var(SECRET) {
            Ok(secret) => by_tcp(agent, secret.parse().map_err(|what| format!("{SECRET}: {what}"))?).await,
            Err(_) => by_socket().await.map_err(|e| format!("{LINK_SOCKET}: {e}")),
        }
    };
    tokio::time::timeout(GATEWAY_TIMEOUT, came).await.map_err(|_| "no gateway came".to_owned())?
}

async fn by_socket() -> std::io::Result<Wire> {
    let listener = UnixListener::bind(LINK_SOCKET)?;
    // Gateways need not be root. The folder around the socket decides who reaches it.
    fs::set_permissions(LINK_SOCKET, Permissions::from_mode(0o666))?;
    let stream = loop {
        match listener.accept().await {
            Ok((stream, _)) if is_outside(&stream) => break stream,
            // Somebody of this container, or gone again.
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    drop(listener);
    // Nobody listens any more; the name goes too, where the host has not yet closed the folder to this user.
    let _ = fs::remove_file(LINK_SOCKET);
    Ok(Wire::Unix(stream))
}

/// A process outside our PID namespace has no number in it. Whoever has one is a neighbour in the container.
fn is_outside(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.pid() == Some(0))
}

/// The port stays open: connections to a server inside come through it, too.
async fn by_tcp(agent: &Rc<Agent>, secret: InstanceSecret) -> Result<Wire, String> {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
    let listener = match TcpListener::bind(everywhere).await {
        Ok(listener) => listener,
        // A machine without IPv6.
        Err(_) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.map_err(|e| format!("port {PORT}: {e}"))?
        }
    };
    let (send, gateway) = oneshot::channel();
    let door = Rc::new(Door { agent: agent.clone(), secret, gateway: Cell::new(Some(send)) });
    tokio::task::spawn_local(async move {
        let places = Arc::new(Semaphore::new(UNPROVEN));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            // With every place taken, who comes now is sent away.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let door = door.clone();
            tokio::task::spawn_local(async move {
                let proven = tokio::time::timeout(PROOF_TIMEOUT, door.prove(stream)).await;
                drop(place);
                if let Ok(Some((claimed, stream))) = proven {
                    door.enter(claimed, stream).await;
                }
            });
        }
    });
    gateway.await.map_err(|_| "no gateway came".to_owned())
}

struct Door {
    agent: Rc<Agent>,
    secret: InstanceSecret,
    /// Who waits for the gateway, until it is there.
    gateway: Cell<Option<oneshot::Sender<Wire>>>,
}

impl Door {
    /// `None`: somebody who does not know the secret. He is told nothing.
    async fn prove(&self, mut stream: TcpStream) -> Option<(Claimed, TcpStream)> {
        let mut nonce = Nonce::default();
        socket::fill_random(&mut nonce).ok()?;
        socket::mind(&stream).ok()?;
        let greeter = Greeter::new(self.secret.clone(), nonce);
        stream.write_all(&greeter.greeting()).await.ok()?;
        let mut claim = [0; CLAIM_BYTES];
        stream.read_exact(&mut claim).await.ok()?;
        match greeter.judge(&claim) {
            Ok(claimed) => Some((claimed, stream)),
            Err(error) => {
                say(&format!("refused a connection: {error}"));
                None
            }
        }
    }

    async fn enter(&self, claimed: Claimed, mut stream: TcpStream) {
        let inside = match claimed.purpose {
            Purpose::Link => {
                let Some(waiting) = self.gateway.take() else {
                    let _ = stream.write_all(&claimed.reply(Err("this instance has its gateway"))).await;
                    return;
                };
                if stream.write_all(&claimed.reply(Ok(()))).await.is_ok() {
                    let _ = waiting.send(Wire::Tcp(stream));
                } else {
                    self.gateway.set(Some(waiting));
                }
                return;
            }
            Purpose::Server => Inside::Server,
            Purpose::Debugger => Inside::Debugger,
        };
        self.agent.thaw();
        match server::connect(&self.agent, inside).await {
            Ok(mut server) => {
                if stream.write_all(&claimed.reply(Ok(()))).await.is_ok() {
                    // However it ends, both ends learn of it by the end of their connection.
                    let _ = tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut server, PIECE, PIECE)
                        .await;
                }
            }
            Err(what) => {
                let _ = stream.write_all(&claimed.reply(Err(&what))).await;
            }
        }
    }
}
