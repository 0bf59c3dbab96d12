//! Long polls: an answer as soon as there is something, or when the wait is over.

use std::future::Future;
use std::time::Duration;

use davit_registry::Topic;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ApiState;
use super::error::{Answer, Failure};

/// Longest wait a client may ask for.
const MAX_WAIT: u32 = 30;
/// How often an open poll looks without being woken. Lines of functions have no wake-up call: one a line would cost more.
const EVERY: Duration = Duration::from_millis(250);

/// Looks until `look` says that it has something, the wait is over, or davit stops. The last look counts. `news`
/// is the topic, if there is one, that what is waited for is announced on.
pub(super) async fn until<T, F, Fut>(
    state: &ApiState,
    news: Option<Topic>,
    wait: Option<u32>,
    mut look: F,
) -> Answer<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Answer<(T, bool)>>,
{
    let wait = wait.unwrap_or(0);
    if wait > MAX_WAIT {
        return Err(Failure::invalid(format!("wait: must be 0 to {MAX_WAIT} seconds")));
    }
    let end = Instant::now() + Duration::from_secs(wait.into());
    let permit = state.polls.clone().try_acquire_owned();
    // Subscribed before the first look, so that no change falls in between.
    let mut news = news.map(|topic| state.changes.subscribe(topic));
    loop {
        if let Some(news) = &mut news {
            news.mark_unchanged();
        }
        let (found, enough) = look().await?;
        if enough || permit.is_err() || Instant::now() >= end || state.stopping.is_cancelled() {
            return Ok(found);
        }
        tokio::select! {
            () = tokio::time::sleep_until(end.min(Instant::now() + EVERY)) => {}
            Some(Ok(())) = changed(&mut news) => {}
            () = state.stopping.cancelled() => {}
        }
    }
}

async fn changed(news: &mut Option<watch::Receiver<u64>>) -> Option<Result<(), watch::error::RecvError>> {
    match news {
        Some(news) => Some(news.changed().await),
        None => None,
    }
}
