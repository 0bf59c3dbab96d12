//! Sources whose events are fetched: what such a source is, and the steps that every one of them takes.
//!
//! Begin → acknowledge what was delivered before → poll → deliver → acknowledge → poll …
//!
//! A delivery accepts the events and notes their positions in one transaction ([`Ledger`]). So wherever this is cut off,
//! whoever begins next finds either no trace of a batch, and polls it again, or its positions, and acknowledges them
//! before polling anything. Each event is accepted exactly once, without asking how long ago the first try was. A new kind
//! of source implements [`Source`] and gets the rest.

use std::time::Duration;

use davit_api::{ApiError, SourceState};
use davit_daemon::Backoff;
use tokio::time::Instant;

/// Between two looks at a source that cannot wake us, or does not: the first after something came, and the longest.
const IDLE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// After an error: the first time, and the longest.
const TROUBLE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Between two looks at a function's backlog.
const HELD_BACK: Duration = Duration::from_secs(1);
/// After deliveries it is noted this late that nothing is left.
const CAUGHT_UP: Duration = Duration::from_secs(2);
/// An error that stays is noted again this often.
const SAID_AGAIN: Duration = Duration::from_secs(30);

/// An event as it was fetched.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fetched {
    /// Where it is in its source: stays the same however often it is polled, and is never another event's. Short.
    pub(crate) position: String,
    /// What the function gets; at most 1 MiB.
    pub(crate) payload: Vec<u8>,
    /// Which calls it waits for.
    pub(crate) ordering_key: Option<String>,
    /// How long ago it happened.
    pub(crate) age: Duration,
}

/// Where events come from. It connects when it is first used, and again after an error. Every step has a bound in time;
/// each may be dropped half-way.
pub(crate) trait Source: Send {
    /// Up to `most` events in the order of the source, those that have not been acknowledged; none when there are none.
    /// Polling again finds them again. `most` also bounds the memory: stop earlier when they are large.
    fn poll(&mut self, most: u32) -> impl Future<Output = Result<Vec<Fetched>, String>> + Send;

    /// When this has returned, none of these is ever polled again, by nobody. They may have been polled by another
    /// process, and acknowledged before; both are no errors.
    fn acknowledge(&mut self, positions: &[String]) -> impl Future<Output = Result<(), String>> + Send;

    /// Waits until there may be something to poll, at most so long. Being wrong costs time, or a poll.
    fn wait(&mut self, at_most: Duration) -> impl Future<Output = Result<(), String>> + Send {
        async move {
            tokio::time::sleep(at_most).await;
            Ok(())
        }
    }
}

/// The proof, and the positions of the last delivery; none when another one holds the source.
pub(crate) type Begun<H> = Option<(H, Vec<String>)>;

/// Where events go, and where is noted how far they are.
pub(crate) trait Ledger: Send + Sync {
    /// Proof that nobody else has begun since.
    type Holding: Copy + Send + Sync;
    /// Begins: what was begun before can deliver nothing from now on. Answers the positions of the last delivery. None:
    /// another one holds the source now.
    fn begin(&self) -> impl Future<Output = Result<Begun<Self::Holding>, ApiError>> + Send;
    /// Accepts the events and notes their positions, or neither; `false`: another one has begun, and neither happened.
    fn deliver(
        &self,
        holding: Self::Holding,
        events: Vec<Fetched>,
    ) -> impl Future<Output = Result<bool, ApiError>> + Send;
    /// How many calls the function has that have not ended; not counted beyond `most`.
    fn open(&self, most: u32) -> impl Future<Output = Result<u32, ApiError>> + Send;
    /// Notes how it is getting on, for people. Failing to is no reason to stop.
    fn report(
        &self,
        holding: Self::Holding,
        state: SourceState,
        lag: Option<Duration>,
        error: Option<&str>,
    ) -> impl Future<Output = ()> + Send;
}

/// How a source is fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Events at a time.
    pub(crate) batch: u32,
    /// How long a batch that is not full waits for more.
    pub(crate) batch_wait: Duration,
    /// Open calls of the function at which nothing more is fetched.
    pub(crate) backlog: u32,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It has begun, or acknowledged; there is more to do.
    Done,
    /// Events were accepted.
    Delivered,
    /// There was nothing.
    Idle,
    /// The function has enough to do.
    HeldBack,
    /// Another one holds the source.
    Lost,
}

/// What was last reported, and when.
#[derive(Default)]
struct Said {
    state: Option<SourceState>,
    error: Option<String>,
    at: Option<Instant>,
    /// A delivery has said something else since.
    delivered: bool,
}

/// One source at work.
pub(crate) struct Fetch<S, L: Ledger> {
    source: S,
    ledger: L,
    pace: Pace,
    /// None: it has to begin, for the first time or because it does not know what became of a delivery.
    holding: Option<L::Holding>,
    /// Delivered, and to be acknowledged before anything else.
    delivered: Vec<String>,
    /// Calls of the function that were open when last asked, and what was delivered since.
    open: Option<u32>,
    /// As whom it reports: the last holding, which is the newest for as long as nobody else begins.
    known_as: Option<L::Holding>,
    said: Said,
}

impl<S: Source, L: Ledger> Fetch<S, L> {
    /// One that has not begun.
    pub(crate) fn new(source: S, ledger: L, pace: Pace) -> Self {
        Self {
            source,
            ledger,
            pace,
            holding: None,
            delivered: Vec::new(),
            open: None,
            known_as: None,
            said: Said::default(),
        }
    }

    /// The next step. After an error, and when it is dropped half-way, the next one begins anew where that is needed.
    pub(crate) async fn step(&mut self) -> Result<Step, String> {
        let Some(holding) = self.holding else {
            let Some((holding, delivered)) = self.ledger.begin().await.map_err(said)? else {
                return Ok(Step::Lost);
            };
            (self.holding, self.delivered) = (Some(holding), delivered);
            self.known_as = self.holding;
            return Ok(Step::Done);
        };
        if !self.delivered.is_empty() {
            self.source.acknowledge(&self.delivered).await?;
            self.delivered.clear();
            return Ok(Step::Done);
        }
        let Pace { batch, batch_wait, backlog } = self.pace;
        let open = match self.open.filter(|open| *open < backlog) {
            Some(open) => open,
            None => self.ledger.open(backlog).await.map_err(said)?,
        };
        self.open = Some(open);
        let most = batch.min(backlog.saturating_sub(open));
        if most == 0 {
            return Ok(Step::HeldBack);
        }
        let mut events = self.source.poll(most).await?;
        if !batch_wait.is_zero() && !events.is_empty() && events.len() < most as usize {
            tokio::time::sleep(batch_wait).await;
            events = self.source.poll(most).await?;
        }
        if events.is_empty() {
            return Ok(Step::Idle);
        }
        let positions = events.iter().map(|event| event.position.clone()).collect();
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        // Until the answer is here nobody knows what became of it.
        self.holding = None;
        if !self.ledger.deliver(holding, events).await.map_err(said)? {
            return Ok(Step::Lost);
        }
        (self.holding, self.delivered) = (Some(holding), positions);
        self.open = Some(open.saturating_add(count));
        (self.said.state, self.said.delivered) = (Some(SourceState::Active), true);
        Ok(Step::Delivered)
    }

    /// Works until another one holds the source. May be dropped at any time: whoever begins next finds out how far it was.
    pub(crate) async fn run(mut self, trouble: impl Fn(&str) + Send) {
        let mut idle = Backoff::new(IDLE.0, IDLE.1);
        let mut failed = Backoff::new(TROUBLE.0, TROUBLE.1);
        loop {
            let step = match self.step().await {
                Ok(Step::Idle) => {
                    self.report(SourceState::Active, Some(Duration::ZERO), None).await;
                    self.source.wait(idle.next_delay()).await.map(|()| Step::Idle)
                }
                step => step,
            };
            match step {
                Ok(Step::Lost) => return,
                Ok(Step::Done) => {}
                Ok(Step::Delivered) => {
                    idle.reset();
                    failed.reset();
                }
                Ok(Step::Idle) => failed.reset(),
                Ok(Step::HeldBack) => {
                    failed.reset();
                    self.report(SourceState::HeldBack, None, None).await;
                    tokio::time::sleep(HELD_BACK).await;
                }
                Err(error) => {
                    trouble(&error);
                    self.report(SourceState::Failing, None, Some(&error)).await;
                    failed.wait().await;
                }
            }
        }
    }

    /// Says what has changed, a while after deliveries that there is nothing left, and now and then an error that stays.
    async fn report(&mut self, state: SourceState, lag: Option<Duration>, error: Option<&str>) {
        let since = |long: Duration| self.said.at.is_none_or(|at| at.elapsed() >= long);
        let news = self.said.state != Some(state)
            || error.is_some_and(|text| self.said.error.as_deref() != Some(text));
        let due = news || (self.said.delivered && since(CAUGHT_UP)) || (error.is_some() && since(SAID_AGAIN));
        if !due {
            return;
        }
        if let Some(holding) = self.known_as {
            self.ledger.report(holding, state, lag, error).await;
        }
        let error = error.map(str::to_owned);
        self.said = Said { state: Some(state), error, at: Some(Instant::now()), delivered: false };
    }
}

fn said(error: ApiError) -> String {
    error.message
}

#[cfg(test)]
mod tests;
