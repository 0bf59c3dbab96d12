//! What a campaign saw, from outside of davit: what clients asked for and were answered, what functions recorded while
//! they ran, and what davit's public API said. Written by the other parts of a campaign, read by `check`.

use std::collections::BTreeMap;

/// Milliseconds since 1970 by this machine's clock, which no fault touches.
pub(crate) type Ms = i64;

/// A place in the order of everything that was seen, and its time. Of two moments the order is certain, whatever the
/// clock's grain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    pub(crate) seq: u64,
    pub(crate) at: Ms,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) jobs: Vec<Job>,
    /// By run number, which a completed run gives back as its result.
    pub(crate) runs: Vec<Run>,
    /// What the API said about an invocation, in the order of asking. Also of ids that no client was told.
    pub(crate) reads: BTreeMap<String, Vec<Read>>,
    /// Ids that stood twice in one list.
    pub(crate) listed_twice: Vec<String>,
    pub(crate) schedules: Vec<Schedule>,
    /// The last whole minute that is judged; by then every schedule had been looked at.
    pub(crate) until: Ms,
    pub(crate) faults: Vec<Fault>,
}

/// What one job is to do and how it was handed over.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Job {
    pub(crate) n: u64,
    /// Its ordering key, which one client uses, one request after the other.
    pub(crate) key: Option<u64>,
    /// It has an idempotency key, and was sent until it was accepted, and sometimes again.
    pub(crate) named: bool,
    /// `low`, `normal` or `high`.
    pub(crate) priority: &'static str,
    /// Milliseconds that it was put off.
    pub(crate) delay: Ms,
    /// Failures that it asks for before it succeeds; [`ALWAYS`] never does.
    pub(crate) fails: u64,
    /// Milliseconds that a run takes.
    pub(crate) work: u64,
    /// When it was first sent.
    pub(crate) sent: Moment,
    /// When it was first answered with 202; never, when nobody knows whether it was accepted.
    pub(crate) answered: Option<Moment>,
    /// The different ids it was accepted under.
    pub(crate) ids: Vec<String>,
    /// Its end was asked for.
    pub(crate) cancel: bool,
}

/// More failures than any policy allows.
pub(crate) const ALWAYS: u64 = 1_000_000;

/// One execution, as the function itself recorded it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The request id that it saw.
    pub(crate) id: String,
    pub(crate) work: Work,
    pub(crate) start: Moment,
    pub(crate) end: Option<Moment>,
    /// How it ended; `None` when it was cut short.
    pub(crate) done: Option<bool>,
}

/// What an execution was about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    Job(u64),
    Instant { schedule: String, due: Ms },
}

/// One answer of the API about an invocation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Read {
    pub(crate) when: Moment,
    pub(crate) state: String,
    pub(crate) attempt: u64,
    pub(crate) ended_at: Option<String>,
    /// As text; lists do not carry it.
    pub(crate) result: Option<String>,
}

impl Read {
    pub(crate) fn ended(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "dead" | "cancelled")
    }
}

/// A schedule `* * * * *` with its record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    pub(crate) name: String,
    /// `missed = "skip"`; otherwise `run_once`.
    pub(crate) skip: bool,
    /// When its creation was asked for, and when it was answered.
    pub(crate) asked: Ms,
    pub(crate) made: Ms,
    pub(crate) fires: Vec<Fire>,
}

/// One recorded instant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fire {
    pub(crate) due: Ms,
    pub(crate) recorded: Ms,
    /// The invocation; none of a missed one.
    pub(crate) invocation: Option<String>,
}

/// Something that was broken on purpose.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Its kind, such as `gateway killed`.
    pub(crate) kind: &'static str,
    pub(crate) from: Ms,
    /// When it was undone.
    pub(crate) until: Ms,
}
