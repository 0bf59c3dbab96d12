//! An engine that is a map: for unit tests of what drives an engine. Behaves like one that works, or like one
//! that refuses everything, as the test says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use davit_api::{InstanceId, PoolKey, RuntimeName};
use davit_link::Place;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    Backend, BackendError, BuildOutcome, BuildRequest, ContainerId, ImageId, Life, Observed, Reply, Resized,
    RuntimeImage, StartRequest,
};

/// See the module.
#[derive(Debug, Default)]
pub struct FakeBackend {
    containers: Mutex<BTreeMap<String, Observed>>,
    refuse: Mutex<Option<BackendError>>,
    refuse_starts: Mutex<Option<BackendError>>,
    images: Vec<String>,
    /// Instances are ready at once.
    warm: bool,
    ready: Mutex<BTreeSet<InstanceId>>,
    /// What comes of another size; without it there are none.
    resized: Mutex<Option<Result<Resized, BackendError>>>,
    /// The key whose memory and CPU a container has.
    sizes: Mutex<BTreeMap<String, PoolKey>>,
}

impl FakeBackend {
    /// As [`Self::with_images`], and every instance is ready at once.
    pub fn warm(images: &[&str]) -> Self {
        Self { warm: true, ..Self::with_images(images) }
    }
    /// An engine that has these images and no container.
    pub fn with_images(images: &[&str]) -> Self {
        Self { images: images.iter().map(|&i| i.to_owned()).collect(), ..Default::default() }
    }
    /// From now on every verb fails with this.
    pub fn refuse(&self, error: Option<BackendError>) {
        *self.refuse.lock() = error;
    }
    /// From now on every start fails with this.
    pub fn refuse_starts(&self, error: Option<BackendError>) {
        *self.refuse_starts.lock() = error;
    }
    /// From now on this comes of another size.
    pub fn resize_with(&self, outcome: Result<Resized, BackendError>) {
        *self.resized.lock() = Some(outcome);
    }
    /// The key whose memory and CPU an instance's container has.
    pub fn size(&self, instance: InstanceId) -> Option<PoolKey> {
        self.sizes.lock().get(&format!("c-{instance}")).cloned()
    }
    /// The process of a container ends.
    pub fn kill(&self, container: &ContainerId) {
        if let Some(found) = self.containers.lock().get_mut(&container.0) {
            found.running = false;
            found.status = "Exited (137) just now".into();
        }
    }
    /// The runtime of an instance is warm from now on.
    pub fn warm_up(&self, instance: InstanceId) {
        self.ready.lock().insert(instance);
    }
    fn id(&self, name: &str) -> ImageId {
        ImageId(format!("sha256:{name}"))
    }
    fn gate(&self) -> Result<(), BackendError> {
        self.refuse.lock().clone().map_or(Ok(()), Err)
    }
    fn answer<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T, BackendError>) -> Reply<'_, T> {
        let answer = self.gate().and_then(|()| work(self));
        std::future::ready(answer).boxed()
    }
}

impl Backend for FakeBackend {
    fn observe(&self) -> Reply<'_, Vec<Observed>> {
        self.answer(|s| Ok(s.containers.lock().values().cloned().collect()))
    }
    fn resolve(&self, image: &str) -> Reply<'_, ImageId> {
        self.answer(|s| {
            let found = s.images.iter().find(|name| {
                let id = RuntimeName::split_pinned(image).map(|(_, id)| id);
                *name == image || id == Some(&s.id(name).0)
            });
            found.map(|name| s.id(name)).ok_or_else(|| BackendError::NoImage(image.into()))
        })
    }
    fn runtime_images(&self) -> Reply<'_, Vec<RuntimeImage>> {
        self.answer(|s| {
            let image =
                |name: &String| RuntimeImage { name: name.clone(), id: s.id(name), always_warm: true };
            Ok(s.images.iter().map(image).collect())
        })
    }
    fn start(&self, request: StartRequest) -> Reply<'_, ContainerId> {
        self.answer(|s| {
            s.refuse_starts.lock().clone().map_or(Ok(()), Err)?;
            let container = ContainerId(format!("c-{}", request.instance));
            let observed = Observed {
                container: container.clone(),
                instance: Some(request.instance),
                role: Some(request.role),
                running: true,
                status: "Up".into(),
                created: SystemTime::now(),
            };
            if s.warm {
                s.warm_up(request.instance);
            }
            s.sizes.lock().insert(container.0.clone(), request.key);
            s.containers.lock().insert(container.0.clone(), observed);
            Ok(container)
        })
    }
    fn stop(&self, container: &ContainerId, _: Option<InstanceId>) -> Reply<'_, ()> {
        self.answer(|s| {
            s.containers.lock().remove(&container.0);
            s.sizes.lock().remove(&container.0);
            Ok(())
        })
    }
    fn life(&self, container: &ContainerId) -> Reply<'_, Life> {
        self.answer(|s| {
            let of = |found: &Observed| if found.running { Life::Running } else { Life::Ended };
            Ok(s.containers.lock().get(&container.0).map_or(Life::Gone, of))
        })
    }
    fn ready(&self, instance: InstanceId, _: &ContainerId) -> Reply<'_, Option<Place>> {
        self.answer(|s| {
            let ready = s.ready.lock().contains(&instance);
            Ok(ready.then(|| Place::Socket(format!("/nowhere/{instance}").into())))
        })
    }
    fn resizes(&self) -> bool {
        self.resized.lock().is_some()
    }
    fn resize(&self, container: &ContainerId, key: &PoolKey) -> Reply<'_, Resized> {
        self.answer(|s| {
            let outcome = s.resized.lock().clone().unwrap_or(Ok(Resized::Refused("no sizes".into())))?;
            if outcome == Resized::Done {
                s.sizes.lock().insert(container.0.clone(), key.clone());
            }
            Ok(outcome)
        })
    }
    fn image_label(&self, _: &ImageId, _: &'static str) -> Reply<'_, Option<String>> {
        self.answer(|s| Ok(s.resizes().then(|| "resizable = true".to_owned())))
    }
    fn last_words(&self, _: &ContainerId) -> Reply<'_, Vec<String>> {
        self.answer(|_| Ok(Vec::new()))
    }
    fn build(&self, _: BuildRequest, _: mpsc::Sender<String>) -> Reply<'_, BuildOutcome> {
        self.answer(|_| Ok(BuildOutcome { exit_code: 0, out_of_memory: false, deps_written: false }))
    }
}
