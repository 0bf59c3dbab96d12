//! The local port: takes a request, writes its head anew, and passes bytes on in both directions. What it carries, be it a stream
//! or a WebSocket, it does not look at.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use davit_api::NamespaceName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

use super::address::{Forward, Local, Refused, Table, Upstream};
use super::listen;
use crate::escape::visible;
use crate::output::note;

/// Longest head of a request.
const HEAD_BYTES: usize = 64 * 1024;
/// How long a client may take for it.
const HEAD: Duration = Duration::from_secs(30);
/// Connections at a time.
const CONNECTIONS: usize = 256;

/// What the port needs to know.
pub(super) struct Port {
    pub(super) namespace: NamespaceName,
    pub(super) token: Option<String>,
    /// Host and port.
    pub(super) gateway: String,
    pub(super) management: String,
    /// Those that are deployed now.
    pub(super) functions: RwLock<Vec<Local>>,
}

impl Port {
    /// Serves for as long as it is polled.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let carry = |client| {
            let port = self.clone();
            // How it ended matters to nobody.
            async move { drop(port.carry(client).await) }
        };
        listen::serve(listener, CONNECTIONS, carry).await;
    }

    async fn carry(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(4096);
        let forward = loop {
            let read = tokio::time::timeout(HEAD, client.read_buf(&mut bytes))
                .await
                .map_err(std::io::Error::other)??;
            if read == 0 {
                return Ok(());
            }
            match self.forward(&bytes) {
                Ok(forward) => break forward,
                Err(Refused::Incomplete) if bytes.len() < HEAD_BYTES => {}
                Err(Refused::Incomplete) => return answer(&mut client, 431, "the head is too large").await,
                Err(Refused::Answer(status, text)) => return answer(&mut client, status, &text).await,
            }
        };
        let begun = Instant::now();
        let to = match forward.upstream {
            Upstream::Gateway => &self.gateway,
            Upstream::Management => &self.management,
        };
        let mut upstream = match TcpStream::connect(to).await {
            Ok(upstream) => upstream,
            Err(error) => return answer(&mut client, 502, &format!("davit at {to}: {error}")).await,
        };
        let _ = upstream.set_nodelay(true);
        upstream.write_all(&forward.head).await?;
        upstream.write_all(bytes.get(forward.read..).unwrap_or_default()).await?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_davit, mut to_davit) = upstream.split();
        let up = async {
            let done = copy(&mut from_client, &mut to_davit).await;
            let _ = to_davit.shutdown().await;
            done
        };
        let down = async {
            let mut first = Vec::with_capacity(4096);
            from_davit.read_buf(&mut first).await?;
            said(&forward.said, &first, begun);
            to_client.write_all(&first).await?;
            copy(&mut from_davit, &mut to_client).await?;
            to_client.shutdown().await
        };
        // The answer's end is the request's: a client that waits for it sends no more.
        tokio::pin!(up, down);
        tokio::select! {
            done = &mut down => done,
            sent = &mut up => match sent {
                Ok(_) => down.await,
                Err(error) => Err(error),
            },
        }
    }

    fn forward(&self, bytes: &[u8]) -> std::result::Result<Forward, Refused> {
        let functions = self.functions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let table = Table {
            namespace: &self.namespace,
            token: self.token.as_deref(),
            functions: &functions,
            gateway: &self.gateway,
            management: &self.management,
        };
        table.forward(bytes)
    }
}

/// A line for each request: what was asked, the status, the time to its first byte.
fn said(asked: &str, first: &[u8], begun: Instant) {
    let status = first.get(9..12).map(String::from_utf8_lossy).unwrap_or_default();
    let took = begun.elapsed().as_secs_f64() * 1_000.0;
    note(format!("{} → {} in {took:.0} ms", visible(asked), visible(&status)));
}

async fn answer(client: &mut TcpStream, status: u16, text: &str) -> std::io::Result<()> {
    note(format!("refused ({status}): {}", visible(text)));
    let body = format!("{text}\n");
    let head = format!(
        "HTTP/1.1 {status} davit\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    client.shutdown().await
}
