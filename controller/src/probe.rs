//! Waits for one starting instance: its agent makes its socket only when the runtime is warm, so the socket's
//! name in the shared directory is the sign. Looking at a directory costs microseconds; asking the engine
//! costs milliseconds and is done seldom.

use std::time::Duration;

use davit_api::InstanceId;
use tokio::time::Instant;

use crate::backend::{Backend, ContainerId};

/// Name of the agent's socket.
pub(crate) const SOCKET: &str = "agent.sock";
/// How long a runtime may take to get warm.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);
const ASK: Duration = Duration::from_millis(500);

/// Why an instance did not become ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReady {
    /// Its process ended; what it printed last.
    #[error("it ended at start: {0}")]
    Ended(String),
    /// It runs, but made no socket.
    #[error("it was not ready within 30 s: {0}")]
    Late(String),
    /// Something about it cannot be set.
    #[error("{0}")]
    Host(String),
}

/// Returns when the instance is ready, after closing its directory to what will run inside.
pub(crate) async fn wait_ready(
    backend: &dyn Backend,
    instance: InstanceId,
    container: &ContainerId,
) -> Result<(), NotReady> {
    let socket = backend.instance_dir(instance).join(SOCKET);
    let begun = Instant::now();
    let mut asked = begun;
    loop {
        if std::fs::symlink_metadata(&socket).is_ok() {
            return backend.seal(instance).map_err(|e| NotReady::Host(e.to_string()));
        }
        if asked.elapsed() >= ASK {
            asked = Instant::now();
            // An engine that does not answer says nothing about the instance.
            if matches!(backend.running(container).await, Ok(None | Some(false))) {
                return Err(NotReady::Ended(last_words(backend, container).await));
            }
        }
        if begun.elapsed() >= LIMIT {
            return Err(NotReady::Late(last_words(backend, container).await));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn last_words(backend: &dyn Backend, container: &ContainerId) -> String {
    let words = backend.last_words(container).await.unwrap_or_default();
    if words.is_empty() { "it printed nothing".into() } else { words.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::FakeBackend;
    use crate::backend::{ImageId, Role, StartRequest};
    use davit_api::{NetworkClass, PoolKey};

    fn request() -> StartRequest {
        let key = PoolKey {
            image: "x".into(),
            memory_mb: 64,
            cpu_millis: 100,
            ephemeral_mb: 16,
            network: NetworkClass::None,
        };
        StartRequest { instance: InstanceId::new(), role: Role::Instance, image: ImageId("x".into()), key }
    }

    #[tokio::test]
    async fn the_socket_is_the_sign() {
        let backend = FakeBackend::default();
        let request = request();
        let instance = request.instance;
        let container = backend.start(request).await.unwrap();
        let dir = backend.instance_dir(instance);
        let (waited, ()) = tokio::join!(wait_ready(&backend, instance, &container), async {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(SOCKET), "").unwrap();
        });
        assert_eq!(waited, Ok(()));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn a_process_that_ends_is_noticed() {
        let backend = FakeBackend::default();
        let request = request();
        let instance = request.instance;
        let container = backend.start(request).await.unwrap();
        backend.kill(&container);
        assert!(matches!(wait_ready(&backend, instance, &container).await, Err(NotReady::Ended(_))));
    }
}
