//! The right to make one call to one instance. However the call ends, the slot comes back by being dropped.

use std::sync::Arc;

use crate::instances::{Fleet, Instance};

/// One call's place in an instance.
pub struct Slot {
    fleet: Arc<Fleet>,
    instance: Arc<Instance>,
    thaw: bool,
    cold_ms: Option<f64>,
    spoiled: bool,
}

impl Slot {
    pub(super) fn new(fleet: Arc<Fleet>, instance: Arc<Instance>, thaw: bool, cold_ms: Option<f64>) -> Self {
        Self { fleet, instance, thaw, cold_ms, spoiled: false }
    }
    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }
    /// How long its start took, when this is its first call.
    pub fn cold_ms(&self) -> Option<f64> {
        self.cold_ms
    }
    /// Says whether the instance may serve again after this call.
    pub fn set_spoiled(&mut self, spoiled: bool) {
        self.spoiled = spoiled;
    }
    /// Lets the instance run again if it was frozen.
    pub async fn thaw(&mut self) -> Result<(), davit_link::LinkError> {
        if !std::mem::take(&mut self.thaw) {
            return Ok(());
        }
        let (fleet, instance) = (self.fleet.clone(), self.instance.clone());
        if instance.ice.try_lock().is_ok() {
            // Nobody freezes it this moment: the frame is written without waiting.
            return fleet.shared.thaw(&fleet, &instance).await;
        }
        // A task of its own, so that a caller who goes away now does not leave an instance stopped that counts
        // as running.
        let thawed = tokio::spawn(async move { fleet.shared.thaw(&fleet, &instance).await });
        thawed.await.unwrap_or(Err(davit_link::LinkError::Closed))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.thaw {
            // Granted and never used: the fleet counts the instance as running, so make it so.
            let (fleet, instance) = (self.fleet.clone(), self.instance.clone());
            tokio::spawn(async move { fleet.shared.thaw(&fleet, &instance).await });
        }
        self.fleet.release(&self.instance, self.spoiled);
    }
}
