//! Waiting on conditions. A story never sleeps for a fixed time: it says what it waits for, and what was
//! seen last when that did not come.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Runs `look` until it answers `Ok`, for at most a minute.
pub async fn eventually<T, E: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    eventually_within(Duration::from_secs(60), what, look).await
}

/// Runs `look` until it answers `Ok`, for at most `bound`; panics with the last answer otherwise.
pub async fn eventually_within<T, E: Debug>(
    bound: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > bound => panic!("waited {bound:?} for {what}; saw {seen:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
