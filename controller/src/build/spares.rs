//! Warm containers kept for the next deploy: who deploys once most often deploys again within minutes, and a
//! container that is warm already saves most of the time. A few, for a while, within the memory of the instances;
//! calls that wait for room come first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use davit_daemon::Tasks;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Failed;
use super::warm::{Class, Warm};
use crate::acting::Acting;
use crate::reconcile::Status;
use crate::world::World;

/// Spares at a time.
const MOST: usize = 4;
/// Of the memory for instances, the spares together take at most one part in so many.
const MEMORY_PART: u64 = 8;
/// After a build: the new version's first calls need the processors more.
const QUIET: Duration = Duration::from_secs(2);
/// Between two looks at images and at spares that ended.
const LOOK: Duration = Duration::from_secs(5);
/// After a spare that could not be started.
const RETRY: Duration = Duration::from_secs(30);

/// The spares of this process.
#[derive(Default)]
pub(crate) struct Spares {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    waiting: Vec<(Class, Warm)>,
    wanted: HashMap<Class, Wanted>,
    starting: Option<Class>,
    /// Builds that run, and when the last one ended.
    builds: usize,
    ended: Option<Instant>,
    /// When one could not be started.
    failed: Option<Instant>,
    closed: bool,
}

/// How many of a class the last deploy used, and until when they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    count: usize,
    until: Instant,
}

impl Spares {
    /// A warm container: one that waits, or else a new one.
    pub(super) async fn take(&self, world: &World, class: &Class) -> Result<Warm, Failed> {
        let spare = {
            let mut state = self.state.lock();
            let found = state.waiting.iter().position(|(c, warm)| c == class && warm.waits());
            found.map(|at| state.waiting.swap_remove(at).1)
        };
        match spare {
            Some(warm) => Ok(warm),
            None => Warm::start(world, class).await,
        }
    }

    /// Keeps `count` of a class from now on for `keep`.
    pub(super) fn want(&self, class: &Class, count: usize, keep: Duration) {
        let until = Instant::now() + keep;
        if !keep.is_zero() {
            self.state.lock().wanted.insert(class.clone(), Wanted { count, until });
        }
    }

    /// A build runs until the answer is dropped.
    pub(super) fn build(self: &Arc<Self>) -> Building {
        self.state.lock().builds += 1;
        Building(self.clone())
    }

    /// Whether a build runs in this process.
    pub(crate) fn building(&self) -> bool {
        self.state.lock().builds > 0
    }

    /// Memory that the spares take or are about to, in MiB.
    pub(crate) fn memory_mb(&self) -> u64 {
        let state = self.state.lock();
        let classes = state.waiting.iter().map(|(class, _)| class).chain(&state.starting);
        classes.map(|(_, key)| u64::from(key.memory_mb)).sum()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Removes them all and keeps none any more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.wanted.clear();
        state.waiting.clear();
        drop(state);
        self.wake.notify_one();
    }

    /// Removes them all.
    fn clear(&self) {
        self.state.lock().waiting.clear();
    }

    /// The next class to start one of, after removing what is not wanted any more.
    fn tidy(&self, memory_mb: u64) -> Option<Class> {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.wanted.retain(|_, wanted| wanted.until > now);
        let state = &mut *state;
        let wanted = &state.wanted;
        state.waiting.retain(|(class, warm)| warm.waits() && wanted.contains_key(class));
        let rested = |since: Option<Instant>, time| since.is_none_or(|at| at.elapsed() >= time);
        let quiet = state.builds == 0 && rested(state.ended, QUIET) && rested(state.failed, RETRY);
        let waiting: Vec<&Class> = state.waiting.iter().map(|(class, _)| class).collect();
        let next = if quiet && !state.closed { next(wanted, &waiting, memory_mb) } else { None };
        state.starting.clone_from(&next);
        next
    }

    /// Puts a new one to the others, unless it is not wanted any more.
    fn put(&self, class: Class, warm: Option<Warm>) {
        let mut state = self.state.lock();
        state.starting = None;
        state.failed = warm.is_none().then(Instant::now);
        if let Some(warm) = warm
            && !state.closed
        {
            state.waiting.push((class, warm));
        }
    }

    fn classes(&self) -> Vec<Class> {
        self.state.lock().wanted.keys().cloned().collect()
    }

    fn forget(&self, class: &Class) {
        self.state.lock().wanted.remove(class);
    }
}

/// Counts a build that runs.
pub(super) struct Building(Arc<Spares>);

impl Drop for Building {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.builds = state.builds.saturating_sub(1);
        state.ended = Some(Instant::now());
        drop(state);
        self.0.wake.notify_one();
    }
}

/// Pure: the class that lacks one and was deployed last, if there is room for another.
fn next(wanted: &HashMap<Class, Wanted>, waiting: &[&Class], memory_mb: u64) -> Option<Class> {
    let used: u64 = waiting.iter().map(|(_, key)| u64::from(key.memory_mb)).sum();
    let fits = |class: &Class| used + u64::from(class.1.memory_mb) <= memory_mb / MEMORY_PART;
    let lacks = |class: &Class, count: usize| waiting.iter().filter(|c| **c == class).count() < count;
    let lacking = wanted.iter().filter(|(class, w)| fits(class) && lacks(class, w.count));
    let latest = lacking.max_by_key(|(_, w)| w.until)?;
    (waiting.len() < MOST).then(|| latest.0.clone())
}

/// Starts the loop that keeps them.
pub(crate) fn spawn(world: Arc<World>, acting: Acting, status: watch::Receiver<Status>, tasks: &Tasks) {
    let stopping = tasks.stopping();
    tasks.spawn_loop("spares", async move {
        loop {
            let pause = tokio::select! {
                () = stopping.cancelled() => return world.spares.clear(),
                pause = keep(&world, &acting, &status) => pause,
            };
            tokio::select! {
                () = stopping.cancelled() => return world.spares.clear(),
                () = world.spares.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

/// One look; the answer is how long nothing more is to be done.
async fn keep(world: &World, acting: &Acting, status: &watch::Receiver<Status>) -> Duration {
    let spares = &world.spares;
    let (waits, memory_mb) = (status.borrow().unmet > 0, world.settings.bounds.memory_mb);
    if !acting.now() || waits {
        spares.clear();
        return LOOK;
    }
    for class in spares.classes() {
        let now = world.backend.resolve(&class.1.image).await;
        if now.is_ok_and(|image| image != class.0) {
            spares.forget(&class);
        }
    }
    let Some(class) = spares.tidy(memory_mb) else { return QUIET };
    match Warm::start(world, &class).await {
        Ok(warm) => {
            spares.put(class, Some(warm));
            Duration::ZERO
        }
        Err(error) => {
            tracing::warn!(?error, "cannot start a container ahead of the next deploy");
            spares.put(class, None);
            QUIET
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ImageId;
    use davit_api::{NetworkClass, PoolKey};

    fn class(image: &str, memory_mb: u32) -> Class {
        let key = PoolKey {
            image: image.into(),
            memory_mb,
            cpu_millis: 1_000,
            ephemeral_mb: 64,
            network: NetworkClass::Egress,
        };
        (ImageId(image.into()), key)
    }

    fn wanted(list: &[(&Class, usize, u64)]) -> HashMap<Class, Wanted> {
        let now = Instant::now();
        let wanted = |count, s| Wanted { count, until: now + Duration::from_secs(s) };
        list.iter().map(|(class, count, s)| ((*class).clone(), wanted(*count, *s))).collect()
    }

    #[tokio::test]
    async fn the_class_deployed_last_comes_first() {
        let (a, b) = (class("a", 128), class("b", 128));
        let both = wanted(&[(&a, 1, 10), (&b, 2, 20)]);
        assert_eq!(next(&both, &[], 8_192), Some(b.clone()));
        assert_eq!(next(&both, &[&b], 8_192), Some(b.clone()));
        assert_eq!(next(&both, &[&b, &b], 8_192), Some(a.clone()));
        assert_eq!(next(&both, &[&b, &b, &a], 8_192), None);
    }

    #[tokio::test]
    async fn number_and_memory_are_bounded() {
        let a = class("a", 256);
        let many = wanted(&[(&a, 100, 10)]);
        assert_eq!(next(&many, &[&a; MOST - 1], 1 << 20), Some(a.clone()));
        assert_eq!(next(&many, &[&a; MOST], 1 << 20), None);
        assert_eq!(next(&many, &[&a], 512 * MEMORY_PART), Some(a.clone()));
        assert_eq!(next(&many, &[&a], 511 * MEMORY_PART), None);
    }
}
