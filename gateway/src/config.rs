//! What the gateway is told at its start. Read and checked by the binary; nothing here reads the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use davit_daemon::Allowed;

use crate::http::TlsFiles;

/// Settings of one gateway.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where functions are reached.
    pub listen: SocketAddr,
    /// The address that clients use, for links and for the gateway's row in the registry.
    pub public_url: String,
    /// Holds the instances' sockets and the prefetched bundles.
    pub state_dir: PathBuf,
    /// The certificate, when TLS is spoken there.
    pub tls: Option<TlsFiles>,
    /// Threads that carry public connections.
    pub threads: usize,
    /// Whether instances may share code on this host; where they cannot, they do not.
    pub share_code: bool,
    /// The port for other gateways; without it calls are neither passed on nor taken from others.
    pub peers: Option<PeersPort>,
    /// Where webhooks may lead to besides the public internet.
    pub outbound: Allowed,
    /// Bounds of the public listener.
    pub http: HttpLimits,
    /// Bounds and times of instances and waiting lines.
    pub instances: InstanceLimits,
}

/// The port for other gateways.
#[derive(Debug, Clone, Copy)]
pub struct PeersPort {
    /// Where it is opened.
    pub listen: SocketAddr,
    /// What others reach it by, when that is not the same.
    pub advertised: Option<SocketAddr>,
}

/// Bounds of the public listener.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// Time to send a request's header, and idle time of a kept-alive connection.
    pub header_timeout: Duration,
    /// How long a client may take nothing of what is written to it. Then its connection ends, and with it what it
    /// held.
    pub write_timeout: Duration,
    /// Bytes of request line and headers together.
    pub header_bytes: usize,
    /// Bytes of event bodies that may be held at a time, over all calls.
    pub parked_bytes: usize,
}

/// Bounds and times of instances and waiting lines.
#[derive(Debug, Clone, Copy)]
pub struct InstanceLimits {
    /// Longest waiting line of one version.
    pub waiting: usize,
    /// Idle time before an instance's processes are stopped. Not zero, because a steady stream of calls would
    /// otherwise pay for a stop and a start each time.
    pub freeze_after: Duration,
    /// Time a version has to load; a call's own budget may end earlier.
    pub init_timeout: Duration,
    /// How long a handler that lost its client may go on before it is stopped.
    pub abandon_grace: Duration,
}

impl Config {
    /// Defaults around the two things that have none.
    pub fn new(listen: SocketAddr, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            public_url: format!("http://{listen}"),
            state_dir: state_dir.into(),
            tls: None,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            share_code: true,
            peers: None,
            outbound: Allowed::default(),
            http: HttpLimits::default(),
            instances: InstanceLimits::default(),
        }
    }
    /// The socket of an instance's agent.
    pub fn agent_socket(state_dir: &Path, instance: davit_api::InstanceId) -> PathBuf {
        state_dir.join("instances").join(instance.to_string()).join("agent.sock")
    }
    /// Where bundles lie.
    pub fn bundles_dir(&self) -> PathBuf {
        self.state_dir.join("bundles")
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            header_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(30),
            header_bytes: 64 * 1024,
            parked_bytes: 512 * 1024 * 1024,
        }
    }
}

impl Default for InstanceLimits {
    fn default() -> Self {
        Self {
            waiting: 1_000,
            freeze_after: Duration::from_millis(20),
            init_timeout: Duration::from_secs(10),
            abandon_grace: Duration::from_secs(2),
        }
    }
}
