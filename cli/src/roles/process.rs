//! What the roles have in common around their parts: the admin listener, signals, and the wait for one of
//! them or for a fault.

use std::net::SocketAddr;

use davit_daemon::signal::Signals;
use davit_daemon::{Limits, Readiness, Tasks, listener};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Result};

/// A role's process.
pub(super) struct Process {
    /// Its background tasks.
    pub(super) tasks: Tasks,
    /// What it still waits for.
    pub(super) readiness: Readiness,
    signals: Signals,
    /// Stops the admin listener, last of all.
    admin: CancellationToken,
}

/// Why a process stops.
pub(super) enum Stop {
    /// It was asked to.
    Asked,
    /// One of its tasks failed.
    Fault(String),
}

impl Process {
    /// Subscribes to the signals, so that from here on none of them ends the process half-way.
    pub(super) fn new() -> Result<Self> {
        let signals = Signals::subscribe().map_err(|e| Failure::while_doing("signals", e))?;
        Ok(Self {
            tasks: Tasks::new(),
            readiness: Readiness::new(),
            signals,
            admin: CancellationToken::new(),
        })
    }

    /// Serves the admin routes until the process ends.
    pub(super) fn serve_admin(&self, listener: TcpListener, admin: davit_controller::http::Admin) {
        let limits = Limits { max_connections: 64, drain: std::time::Duration::ZERO, ..Limits::default() };
        let app = davit_controller::http::admin_router(admin);
        tokio::spawn(listener::serve(listener, app, limits, self.admin.clone()));
    }

    /// Runs the start of the role; a signal ends it, and what was started so far is dropped.
    pub(super) async fn start<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            started = work => started,
            signal = self.signals.next() => Err(Failure::Failed(format!("{signal} during the start"))),
        }
    }

    /// Waits for a signal or a fault.
    pub(super) async fn stop(&mut self) -> Stop {
        tokio::select! {
            signal = self.signals.next() => {
                tracing::info!(signal, "stopping");
                Stop::Asked
            }
            fault = self.tasks.fault() => Stop::Fault(fault),
        }
    }

    /// Runs the drain; a second signal ends it at once.
    pub(super) async fn drain(&mut self, work: impl Future<Output = bool>, stop: Stop) -> Result<()> {
        let in_time = tokio::select! {
            in_time = work => in_time,
            signal = self.signals.next() => return Err(Failure::Failed(format!("second {signal}: stopped at once"))),
        };
        self.admin.cancel();
        match stop {
            Stop::Fault(fault) => Err(Failure::Failed(fault)),
            Stop::Asked if !in_time => {
                Err(Failure::Failed("stopped, but not everything ended in time".into()))
            }
            Stop::Asked => {
                tracing::info!("stopped");
                Ok(())
            }
        }
    }
}

/// Binds a listener; the error names what it is for.
pub(super) async fn bind(what: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let failed = |e| Failure::while_doing(format!("{what} address {address}"), e);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
