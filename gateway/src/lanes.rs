//! The threads that carry public connections: one a core, each with a runtime of its own.
//!
//! A proxied call touches two sockets, the client's and the function's. When one thread watches both, it carries the
//! answer on as soon as it sees it arrive. On a runtime whose threads share their work the answer often wakes another
//! thread first, which costs more than passing the bytes on.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Well below the time budgets of calls, and seldom enough to cost nothing.
const NEAREST_TIMER: Duration = Duration::from_millis(500);

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The lane that the calling thread is, counted from 1; 0 on any other thread.
pub fn current() -> usize {
    CURRENT.get()
}

/// All lanes. They end when this is dropped, and with them whatever still runs there.
pub struct Lanes {
    lanes: Vec<Lane>,
    stop: CancellationToken,
}

struct Lane {
    runtime: Handle,
    /// Connections it carries.
    open: Arc<AtomicUsize>,
}

impl Lanes {
    /// Starts this many threads, at least one.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut all = Self { lanes: Vec::new(), stop: CancellationToken::new() };
        for number in 1..=count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            all.lanes.push(Lane { runtime: runtime.handle().clone(), open: Arc::default() });
            let stop = all.stop.clone();
            std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
                CURRENT.set(number);
                runtime.block_on(idle(stop));
            })?;
        }
        Ok(all)
    }

    /// Runs `work` on the lane with the fewest connections.
    pub fn carry(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Some(lane) = self.lanes.iter().min_by_key(|lane| lane.open.load(Ordering::Relaxed)) else {
            return;
        };
        let place = Place::take(&lane.open);
        lane.runtime.spawn(async move {
            let _place = place;
            work.await;
        });
    }
}

/// What a lane does besides carrying. A timer that becomes the runtime's next one makes it write to its own wake-up
/// descriptor, and each request sets a timer; with one that is always nearer, none of these is the next.
async fn idle(stop: CancellationToken) {
    let mut tick = tokio::time::interval(NEAREST_TIMER);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One connection's share in a lane's count.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{mpsc, oneshot};

    #[tokio::test]
    async fn work_is_spread_evenly_over_the_lanes() {
        let lanes = Lanes::start(3).unwrap();
        let (say, mut said) = mpsc::unbounded_channel();
        let mut keep = Vec::new();
        for _ in 0..9 {
            let (open, hold) = oneshot::channel::<()>();
            keep.push(open);
            let say = say.clone();
            lanes.carry(async move {
                let _ = say.send(current());
                let _ = hold.await;
            });
        }
        let mut count = [0; 4];
        for _ in 0..9 {
            count[said.recv().await.unwrap()] += 1;
        }
        assert_eq!((count, current()), ([0, 3, 3, 3], 0));
    }

    #[tokio::test]
    async fn what_still_runs_ends_with_the_lanes() {
        let lanes = Lanes::start(1).unwrap();
        let (alive, ended) = oneshot::channel::<()>();
        lanes.carry(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(lanes);
        assert!(ended.await.is_err());
    }
}
