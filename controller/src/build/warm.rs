//! One warm, generic container of a runtime image that serves a single errand of the build: it prepares a source, or
//! starts a version for the first time. Used once, then destroyed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{InstanceId, PoolKey};
use davit_link::{Link, LinkEvent};
use tokio::sync::mpsc;

use super::Failed;
use super::run::backend;
use crate::backend::{Backend, ContainerId, ImageId, Role, StartRequest};
use crate::probe;
use crate::world::{BusyGuard, World};

/// From the sign of being ready to the agent's first frame.
const CONNECT: Duration = Duration::from_secs(5);

/// Which warm containers are alike: the image by its content, and the limits.
pub(super) type Class = (ImageId, PoolKey);

/// See the module. Dropping it removes the container, in the background: nobody waits for that.
pub(super) struct Warm {
    pub(super) instance: InstanceId,
    pub(super) link: Link,
    /// What the agent says by itself; taken by whoever listens to it.
    pub(super) events: Option<mpsc::Receiver<LinkEvent>>,
    _remove: Remove,
}

impl Warm {
    /// Starts one and waits until it takes a version.
    pub(super) async fn start(world: &World, class: &Class) -> Result<Self, Failed> {
        let instance = InstanceId::new();
        // Left in place when this future is dropped: the collector then finds a container nobody is busy with.
        let errand = world.errands.enter(instance);
        let (image, key) = class.clone();
        let request = StartRequest { instance, role: Role::Smoke, image, key };
        let container = world.backend.start(request).await.map_err(backend)?;
        let remove = Remove {
            backend: world.backend.clone(),
            container: container.clone(),
            instance,
            errand: Some(errand),
        };
        let ready = probe::wait_ready(&*world.backend, instance, &container).await;
        let place = ready.map_err(|error| Failed::Platform(format!("the runtime did not start: {error}")))?;
        // Held open from here on: should this process end, so does the container.
        let connected = Link::connect(&place, Instant::now() + CONNECT).await;
        let (link, events) = connected.map_err(Failed::platform)?;
        Ok(Self { instance, link, events: Some(events), _remove: remove })
    }

    /// Whether it can be used. One whose node is drained holds that up as long as it is kept.
    pub(super) fn waits(&self) -> bool {
        !self.link.is_closed() && !self.link.is_leaving()
    }
}

/// Removes the container when dropped.
struct Remove {
    backend: Arc<dyn Backend>,
    container: ContainerId,
    instance: InstanceId,
    errand: Option<BusyGuard>,
}

impl Drop for Remove {
    fn drop(&mut self) {
        // Without a runtime the process is ending; the next one finds the container by its label.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (backend, container, instance) = (self.backend.clone(), self.container.clone(), self.instance);
        let errand = self.errand.take();
        runtime.spawn(async move {
            if let Err(error) = backend.stop(&container, Some(instance)).await {
                tracing::warn!(%error, "cannot remove a first start's container");
            }
            drop(errand);
        });
    }
}
