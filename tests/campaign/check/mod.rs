//! Which promises a history breaks. Pure: it sees nothing but what was recorded, and `tests.rs` shows that it finds
//! each kind of break.

mod figures;
pub(crate) mod instants;
mod jobs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::history::History;

pub(crate) use figures::{Figures, figures, percentile};

/// What is promised; the name is what the summary prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    Ends,
    EndsOnce,
    EndsAsAsked,
    ResultOfItsRun,
    RunsAreAttempts,
    NothingAfterTheEnd,
    OneForOneName,
    InOrder,
    NotBeforeItsTime,
    EveryInstant,
    InstantOnce,
    InstantNotEarly,
    MissedByPolicy,
    FireEnds,
}

impl Promise {
    pub(crate) const ALL: [Self; 14] = [
        Self::Ends,
        Self::EndsOnce,
        Self::EndsAsAsked,
        Self::ResultOfItsRun,
        Self::RunsAreAttempts,
        Self::NothingAfterTheEnd,
        Self::OneForOneName,
        Self::InOrder,
        Self::NotBeforeItsTime,
        Self::EveryInstant,
        Self::InstantOnce,
        Self::InstantNotEarly,
        Self::MissedByPolicy,
        Self::FireEnds,
    ];

    /// What a break of it is called.
    pub(crate) fn broken(self) -> &'static str {
        match self {
            Self::Ends => "accepted and lost",
            Self::EndsOnce => "ended twice, or changed after the end",
            Self::EndsAsAsked => "ended otherwise than asked",
            Self::ResultOfItsRun => "result of no completed run",
            Self::RunsAreAttempts => "more runs than attempts",
            Self::NothingAfterTheEnd => "started after its end was seen",
            Self::OneForOneName => "one request became two",
            Self::InOrder => "overtook within its key",
            Self::NotBeforeItsTime => "ran before its delay was over",
            Self::EveryInstant => "instants without a record",
            Self::InstantOnce => "instants twice, or never due",
            Self::InstantNotEarly => "instants before their time",
            Self::MissedByPolicy => "missed or late against the policy",
            Self::FireEnds => "fired and lost",
        }
    }
}

/// Breaks, each with what was seen.
#[derive(Debug, Default)]
pub(crate) struct Verdict(pub(crate) BTreeMap<Promise, Vec<String>>);

impl Verdict {
    fn breaks(&mut self, promise: Promise, what: String) {
        self.0.entry(promise).or_default().push(what);
    }

    pub(crate) fn count(&self, promise: Promise) -> usize {
        self.0.get(&promise).map_or(0, Vec::len)
    }
}

/// Judges all of it.
pub(crate) fn judge(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    jobs::judge(history, &mut verdict);
    instants::judge(history, &mut verdict);
    verdict
}

/// The runs of each id, in the order of their starts.
fn runs_by_id(history: &History) -> BTreeMap<&str, Vec<usize>> {
    let mut runs: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, run) in history.runs.iter().enumerate() {
        runs.entry(&run.id).or_default().push(number);
    }
    runs
}
