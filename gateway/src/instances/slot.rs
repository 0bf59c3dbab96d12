//! The right to make one call to one instance. However the call ends, the slot comes back by being dropped.

use std::sync::Arc;
use std::time::Instant;

use davit_api::{ColdPhases, InvocationId};

use crate::instances::state::Grant;
use crate::instances::{Fleet, Instance, Underway};

/// One call's place in an instance.
pub struct Slot {
    fleet: Arc<Fleet>,
    instance: Arc<Instance>,
    thaw: bool,
    cold: Option<ColdPhases>,
    spoiled: bool,
    /// Since when it is used; none when its call had gone before it could be.
    granted: Option<Instant>,
    /// The call that was entered into the instance's ledger.
    entered: Option<InvocationId>,
}

impl Slot {
    pub(super) fn new(fleet: Arc<Fleet>, grant: Grant) -> Self {
        let Grant { instance, thaw, cold, at } = grant;
        Self { fleet, instance, thaw, cold, spoiled: false, granted: Some(at), entered: None }
    }
    /// Nobody took it: its time says nothing about how long calls take.
    pub(super) fn set_unused(&mut self) {
        self.granted = None;
    }
    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }
    /// The call is sent now: from here on the instance may ask for something in its name.
    pub fn enter(&mut self, call: Underway) {
        self.entered = Some(call.id);
        self.instance.ledger.enter(call);
    }
    /// Where the time of its start went, when this is its first call; without what comes before and after it.
    pub fn cold(&self) -> Option<ColdPhases> {
        self.cold
    }
    /// Says whether the instance may serve again after this call.
    pub fn set_spoiled(&mut self, spoiled: bool) {
        self.spoiled = spoiled;
    }
    /// Lets the instance run again if it was frozen. Every call that was granted a frozen instance does so before
    /// it sends anything; the first one's frame counts.
    pub async fn thaw(&mut self) -> Result<(), davit_link::LinkError> {
        if !std::mem::take(&mut self.thaw) {
            return Ok(());
        }
        // From here on nothing waits, so a caller who goes away cannot leave flag and processes disagreeing.
        let _ice = self.instance.ice.lock().await;
        self.fleet.shared.thaw(&self.fleet, &self.instance).await
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(call) = self.entered {
            self.instance.ledger.leave(call);
        }
        self.fleet.release(&self.instance, self.spoiled, self.granted);
    }
}
