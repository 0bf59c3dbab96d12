//! The clock's promises: each whole minute of a schedule is on record once, fired or missed as its policy says, never early.

use std::collections::{BTreeMap, BTreeSet};

use super::{Promise, Verdict};
use crate::history::{Fire, History, Ms, Schedule, Work};

pub(crate) const MINUTE: Ms = 60_000;
/// An instant that `skip` still fires may be recorded as late as this: the minute that counts as punctual, and what may
/// lie between a gateway's decision and its commit while the gateway is frozen or Postgres is away.
const LATEST: Ms = 2 * MINUTE;

pub(super) fn judge(history: &History, verdict: &mut Verdict) {
    let mut under: BTreeMap<(&str, Ms), BTreeSet<&str>> = BTreeMap::new();
    for run in &history.runs {
        if let Work::Instant { schedule, due } = &run.work {
            under.entry((schedule, *due)).or_default().insert(&run.id);
            if run.start.at < *due {
                let early = due - run.start.at;
                verdict
                    .breaks(Promise::InstantNotEarly, format!("{schedule}: a run {early} ms before {due}"));
            }
        }
    }
    for ((schedule, due), ids) in under {
        if ids.len() > 1 {
            verdict.breaks(Promise::InstantOnce, format!("{schedule}: {due} ran as {ids:?}"));
        }
    }
    for schedule in &history.schedules {
        let due: BTreeSet<Ms> = schedule.fires.iter().map(|fire| fire.due).collect();
        for instant in expected(schedule, history.until) {
            if !due.contains(&instant) {
                verdict.breaks(Promise::EveryInstant, format!("{}: {instant}", schedule.name));
            }
        }
        if due.len() < schedule.fires.len() {
            verdict.breaks(Promise::InstantOnce, format!("{}: an instant has two rows", schedule.name));
        }
        for fire in schedule.fires.iter().filter(|fire| fire.due <= history.until) {
            one(schedule, fire, history, verdict);
        }
    }
}

/// The whole minutes from the schedule's creation on. One that fell between request and answer may be there or not.
pub(crate) fn expected(schedule: &Schedule, until: Ms) -> impl Iterator<Item = Ms> {
    let first = (schedule.made / MINUTE + 1) * MINUTE;
    (first..=until).step_by(MINUTE as usize)
}

fn one(schedule: &Schedule, fire: &Fire, history: &History, verdict: &mut Verdict) {
    let (name, late) = (&schedule.name, fire.recorded - fire.due);
    if fire.due % MINUTE != 0 || fire.due <= schedule.asked {
        verdict.breaks(Promise::InstantOnce, format!("{name}: {fire:?} was never due"));
    }
    if late < 0 {
        verdict.breaks(Promise::InstantNotEarly, format!("{name}: {fire:?} is {} ms early", -late));
        return;
    }
    let Some(invocation) = &fire.invocation else {
        // Of the instants that have passed when somebody looks, `run_once` fires the latest; so does `skip` when it is
        // at most a minute old. Either way one that is missed has a later one that had passed when it was recorded.
        let covered = schedule.skip
            || schedule.fires.iter().any(|other| {
                other.invocation.is_some() && other.due > fire.due && other.due <= fire.recorded
            });
        if late < MINUTE || !covered {
            verdict.breaks(Promise::MissedByPolicy, format!("{name}: {fire:?} was not to be missed"));
        }
        return;
    };
    if schedule.skip && late > LATEST {
        verdict.breaks(Promise::MissedByPolicy, format!("{name}: {fire:?} was to be missed"));
    }
    let ended = history.reads.get(invocation).and_then(|reads| reads.last());
    if ended.is_none_or(|read| read.state != "succeeded") {
        verdict.breaks(Promise::FireEnds, format!("{name}: {fire:?}: {ended:?}"));
    }
}
