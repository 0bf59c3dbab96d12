//! A client that calls and calls while something breaks, and remembers every answer that was not a good one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::eventually;

/// A steady caller. Ends with [`Steady::stop`].
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicU64>,
    task: JoinHandle<Tally>,
}

/// What a steady caller saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Calls that were answered with 200.
    pub good: u64,
    /// Every other outcome: the status (0 without an answer) and the text, each with its time since the start.
    pub bad: Vec<(Duration, u16, String)>,
    /// The longest time that one call took.
    pub slowest: Duration,
}

impl Steady {
    /// Posts `body` to `url`, one call after the other with `pause` between them.
    pub fn calling(http: &reqwest::Client, url: String, body: String, pause: Duration) -> Self {
        let (stop, ended, http) =
            (Arc::new(AtomicBool::new(false)), Arc::<AtomicU64>::default(), http.clone());
        let (stopped, count) = (stop.clone(), ended.clone());
        let task = tokio::spawn(async move {
            let (began, mut tally) = (Instant::now(), Tally::default());
            while !stopped.load(Ordering::Relaxed) {
                let sent = Instant::now();
                let answer = http.post(&url).body(body.clone()).timeout(Duration::from_secs(90)).send().await;
                let (status, text) = match answer {
                    Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
                    Err(error) => (0, format!("{error:?}")),
                };
                tally.slowest = tally.slowest.max(sent.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
                match status {
                    200 => tally.good += 1,
                    _ => tally.bad.push((began.elapsed(), status, text)),
                }
                tokio::time::sleep(pause).await;
            }
            tally
        });
        Self { stop, ended, task }
    }

    /// How many calls have ended.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Waits until so many more have.
    pub async fn more(&self, calls: u64) {
        let goal = self.ended() + calls;
        eventually("more calls to end", async || {
            let now = self.ended();
            if now >= goal { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// Lets the last call end and gives what was seen.
    pub async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the caller's task ends")
    }
}

impl Tally {
    /// Fails unless there were calls and all of them were answered well.
    pub fn all_good(&self, what: &str) {
        assert!(self.bad.is_empty(), "{what}: {} good, and {:?}", self.good, self.bad);
        assert!(self.good > 0, "{what}: nothing was called");
    }
}
