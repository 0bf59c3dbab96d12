//! Waits for one starting instance until its agent takes its gateway, or it is clear that it never will.

use std::time::Duration;

use davit_api::InstanceId;
use davit_link::Place;
use tokio::time::Instant;

use crate::backend::{Backend, ContainerId, Life};

/// How long a runtime may take to get warm once its container runs.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a container may wait for a machine with room, or for its image.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(5);
const ASK: Duration = Duration::from_millis(500);

/// Why an instance did not become ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReady {
    /// Its process ended; what it printed last.
    #[error("it ended at start: {0}")]
    Ended(String),
    /// It runs, but its runtime is not warm.
    #[error("it was not ready within 30 s: {0}")]
    Late(String),
    /// It was never started.
    #[error("it cannot be started: {0}")]
    NotStarted(String),
    /// Something about it cannot be set.
    #[error("{0}")]
    Host(String),
}

/// Returns when the instance is ready, with where its agent is reached.
pub(crate) async fn wait_ready(
    backend: &dyn Backend,
    instance: InstanceId,
    container: &ContainerId,
) -> Result<Place, NotReady> {
    let waiting_since = Instant::now();
    let mut begun = waiting_since;
    let mut asked = begun;
    loop {
        match backend.ready(instance, container).await {
            Ok(Some(place)) => return Ok(place),
            Ok(None) => {}
            Err(error) => return Err(NotReady::Host(error.to_string())),
        }
        if asked.elapsed() >= ASK {
            asked = Instant::now();
            match backend.life(container).await {
                Ok(Life::Gone | Life::Ended) => {
                    return Err(NotReady::Ended(last_words(backend, container).await));
                }
                Ok(Life::Hopeless(why)) => return Err(NotReady::NotStarted(why)),
                Ok(Life::Waiting(why)) if waiting_since.elapsed() >= PATIENCE => {
                    return Err(NotReady::NotStarted(why));
                }
                // Its own time has not begun.
                Ok(Life::Waiting(_)) => begun = Instant::now(),
                // An engine that does not answer says nothing about the instance.
                Ok(Life::Running) | Err(_) => {}
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
        let (waited, ()) = tokio::join!(wait_ready(&backend, instance, &container), async {
            backend.warm_up(instance);
        });
        assert!(matches!(waited, Ok(Place::Socket(_))));
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
