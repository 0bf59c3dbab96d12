//! What the ports that `davit dev` opens on this machine have in common.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::failure::{Failure, Result};

/// Binds a port of this machine alone; 0 takes a free one. `option` is what chooses another one.
pub(super) async fn bind(port: u16, option: &str) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address)
        .await
        .map_err(|e| Failure::Usage(format!("{address}: {e}; {option} chooses another one")))
}

/// Carries each connection in a task of its own, at most so many at a time, for as long as it is polled.
pub(super) async fn serve<F>(listener: TcpListener, connections: usize, carry: impl Fn(TcpStream) -> F + Send)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let _ = client.set_nodelay(true);
                let carried = carry(client);
                tokio::spawn(async move {
                    carried.await;
                    drop(place);
                });
            }
            // Too many open files, such as: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
