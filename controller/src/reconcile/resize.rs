//! Gives waiting instances another size. Safe to be interrupted anywhere: the row says that it was begun before the engine is
//! told, and what was begun is done again by the next look, or the instance goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use davit_api::{InstanceId, PoolKey};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::apply::Applier;
use super::plan::{Reason, Removal, Resize};
use crate::backend::{ImageId, Resized};
use crate::build::{TOML_LABEL, is_resizable};

/// A size that could not be given is not tried again for so long: each time costs a call the wait.
const REST: Duration = Duration::from_secs(300);
/// Sizes that are remembered.
const SIZES: usize = 1_000;

/// Sizes that could not be given a while ago; clones share them.
#[derive(Clone, Default)]
pub(super) struct Unfit(Arc<Mutex<HashMap<PoolKey, Instant>>>);

impl Unfit {
    fn note(&self, key: &PoolKey) {
        let mut all = self.0.lock();
        all.retain(|_, since| since.elapsed() < REST);
        if all.len() < SIZES {
            all.insert(key.clone(), Instant::now());
        }
    }

    fn rests(&self, key: &PoolKey) -> bool {
        self.0.lock().get(key).is_some_and(|since| since.elapsed() < REST)
    }
}

impl Applier {
    /// Whether an instance may be made one of that kind now.
    pub(super) fn may_resize(&self, key: &PoolKey) -> bool {
        self.world.backend.resizes() && !self.unfit.rests(key)
    }

    /// Whether instances of a kind may be given another size once they wait. What is in a function's own image starts only
    /// with its version, and so with the size that it has then.
    pub(super) async fn is_resizable(&self, key: &PoolKey, image: &ImageId) -> bool {
        let backend = &self.world.backend;
        if !backend.resizes() || key.is_own_image() {
            return backend.resizes();
        }
        let label = backend.image_label(image, TOML_LABEL).await;
        label.is_ok_and(|label| label.is_some_and(|text| is_resizable(&text)))
    }

    /// Begins in the background.
    pub(super) fn resize(&self, resize: Resize) {
        let busy = self.resizing.enter(resize.instance);
        let this = self.clone();
        self.tasks.spawn("resize-instance", async move {
            this.carry_out(resize).await;
            drop(busy);
            this.wake.notify_one();
        });
    }

    async fn carry_out(&self, resize: Resize) {
        let Resize { instance, container, key, again } = resize;
        let (registry, attempt, began) = (&self.world.registry, Uuid::new_v4(), Instant::now());
        match registry.begin_resize(instance, &key, attempt).await {
            Ok(true) => {}
            // It has ended, or been done, since the look.
            Ok(false) => return,
            Err(error) => return tracing::warn!(%error, "cannot say that an instance gets another size"),
        }
        let stopping = self.tasks.stopping();
        let outcome = tokio::select! {
            outcome = self.world.backend.resize(&container, &key) => outcome,
            // Whoever comes next finds that it was begun.
            () = stopping.cancelled() => return,
        };
        let why = match outcome {
            Ok(Resized::Done) => {
                // Should this fail, the next look does it again, to the same end.
                match registry.finish_resize(instance, &key).await {
                    // Or its gateway has seen it first.
                    Ok(_) => {
                        let (memory_mb, cpu_millis, took) = (key.memory_mb, key.cpu_millis, began.elapsed());
                        tracing::info!(%instance, memory_mb, cpu_millis, ?took, "instance has another size");
                        self.obstacles.clear(&key).await;
                    }
                    Err(error) => tracing::warn!(%error, "cannot say that an instance has another size"),
                }
                return;
            }
            Ok(Resized::Refused(why)) if !again => {
                tracing::info!(%instance, why, "instance keeps its size");
                self.unfit.note(&key);
                return self.decline(instance, Some(attempt)).await;
            }
            Ok(Resized::Refused(why)) => why,
            Err(error) => error.to_string(),
        };
        self.unfit.note(&key);
        match registry.abandon_resize(instance).await {
            Ok(true) => {}
            // Its gateway has seen that it was done, or another controller has.
            Ok(false) => return,
            Err(error) => return tracing::warn!(%error, "cannot say that the size of an instance is unknown"),
        }
        tracing::warn!(%instance, why, "instance could not be given another size; it goes");
        let reason = Reason::SizeUnknown(why.chars().take(500).collect());
        self.remove(Removal { container, instance: Some(instance), has_row: true, reason });
    }

    /// Takes the wish away; the gateway has its instance back as it was.
    pub(super) async fn decline(&self, instance: InstanceId, attempt: Option<Uuid>) {
        if let Err(error) = self.world.registry.decline_resize(instance, attempt).await {
            tracing::warn!(%error, "cannot say that an instance keeps its size; the next look will");
        }
    }
}
