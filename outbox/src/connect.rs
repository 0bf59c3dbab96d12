//! One connection to somebody's database: where it may lead, how long it may take, and what its errors mean.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use davit_daemon::Allowed;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client};
use tokio_util::task::AbortOnDropHandle;

use crate::address::Address;
use crate::{Trouble, tls};

/// Time to connect, from the name's resolution to the server's welcome.
const CONNECT: Duration = Duration::from_secs(10);
/// Time for a statement, waiting for locks (5 s) included.
pub(crate) const STATEMENT: Duration = Duration::from_secs(15);

/// A connection. It ends when this is dropped, and the server rolls back what it had not committed.
pub struct Session {
    pub(crate) client: Client,
    pub(crate) notified: Arc<Notify>,
    pub(crate) address: Address,
    _driver: AbortOnDropHandle<()>,
}

impl Session {
    /// Connects.
    pub async fn connect(address: &Address, allowed: &Allowed) -> Result<Self, Trouble> {
        let connecting = tokio::time::timeout(CONNECT, connect(address, allowed));
        connecting.await.unwrap_or_else(|_| {
            Err(Trouble::Unreachable(format!("no answer within {} s", CONNECT.as_secs())))
        })
    }

    /// What an error of this connection means.
    pub(crate) fn trouble(&self, error: &tokio_postgres::Error) -> Trouble {
        trouble(&self.address, error)
    }

    /// Carries out a statement or a question of ours, within its time.
    pub(crate) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Trouble> {
        match tokio::time::timeout(STATEMENT, work).await {
            Ok(done) => done.map_err(|error| self.trouble(&error)),
            Err(_) => Err(Trouble::Unreachable(format!("no answer within {} s", STATEMENT.as_secs()))),
        }
    }
}

async fn connect(address: &Address, allowed: &Allowed) -> Result<Session, Trouble> {
    let unreachable = |error: io::Error| {
        // A guard's refusal is the address's fault, not the network's.
        match error.downcast::<davit_daemon::outbound::Closed>() {
            Ok(closed) => Trouble::Address(closed.to_string()),
            Err(error) => Trouble::Unreachable(error.to_string()),
        }
    };
    let found = allowed.resolve(&address.host, address.port).await.map_err(unreachable)?;
    let stream = open(&found).await.map_err(unreachable)?;
    // Commands are small and wait for their answers.
    let _ = stream.set_nodelay(true);
    let mut maker = tls::maker(address.proof)?;
    let connector = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut maker, &address.host)
        .map_err(|error| Trouble::Address(format!("TLS: {error}")))?;
    let welcomed = address.config.connect_raw(stream, connector).await;
    let (client, mut connection) = welcomed.map_err(|error| trouble(address, &error))?;
    let notified = Arc::new(Notify::new());
    let notify = notified.clone();
    let driver = tokio::spawn(async move {
        loop {
            let message = std::future::poll_fn(|cx| connection.poll_message(cx)).await;
            match message {
                Some(Ok(AsyncMessage::Notification(_))) => notify.notify_one(),
                Some(Ok(_)) => {}
                // Whoever waits finds out by asking.
                Some(Err(_)) | None => break,
            }
        }
        notify.notify_one();
    });
    Ok(Session { client, notified, address: address.clone(), _driver: AbortOnDropHandle::new(driver) })
}

/// The first of them that answers.
async fn open(found: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in found {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn trouble(address: &Address, error: &tokio_postgres::Error) -> Trouble {
    let Some(db) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(one) = cause {
            text = format!("{text}: {one}");
            cause = one.source();
        }
        return Trouble::Unreachable(address.without_password(text));
    };
    let text = address.without_password(db.message().to_owned());
    let code = db.code();
    if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        return Trouble::Rights(text);
    }
    if [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) {
        return Trouble::Busy(text);
    }
    if [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(code) {
        return Trouble::Missing(format!("{text}; run what davit source sql prints"));
    }
    match code.code().get(..2) {
        // Invalid authorization, and a database that is not there.
        Some("28" | "3D") => Trouble::Refused(text),
        // Connections, resources, shutdown and start-up.
        Some("08" | "53" | "57") => Trouble::Unreachable(text),
        _ => Trouble::Database(text),
    }
}
