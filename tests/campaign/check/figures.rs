//! What is counted and measured without being promised: how much there was, what ran more than once and why, how late
//! instants were, how long it took to go on after a fault.

use std::collections::{BTreeMap, BTreeSet};

use super::runs_by_id;
use crate::history::{Fault, History, Ms, Work};

/// A fault may show for so long after it was undone: a lease of 30 seconds, and the look that finds it lapsed.
const SHOWS: Ms = 45_000;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// What there was, in the order of the summary.
    pub(crate) counts: Vec<(&'static str, u64)>,
    /// Starts beyond the first that no recorded failure explains, by the fault that was nearest.
    pub(crate) repeated: BTreeMap<&'static str, u64>,
    /// Milliseconds: name, and the sorted values.
    pub(crate) times: Vec<(String, Vec<Ms>)>,
}

/// Counts and measures.
pub(crate) fn figures(history: &History) -> Figures {
    let mut figures = Figures { counts: counts(history), ..Figures::default() };
    repeated(history, &mut figures);
    lateness(history, &mut figures);
    waits(history, &mut figures);
    recovery(history, &mut figures);
    figures.times.iter_mut().for_each(|(_, values)| values.sort_unstable());
    figures
}

/// The value that so many of a hundred do not exceed.
pub(crate) fn percentile(sorted: &[Ms], share: usize) -> Ms {
    let place = (sorted.len() * share).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(0)
}

fn counts(history: &History) -> Vec<(&'static str, u64)> {
    let accepted = || history.jobs.iter().filter(|job| !job.ids.is_empty());
    let ended = |state: &str| {
        let last = |id: &String| history.reads.get(id).and_then(|reads| reads.last());
        let all = accepted().filter(|job| job.ids.iter().filter_map(last).any(|read| read.state == state));
        all.count() as u64
    };
    let ran: BTreeSet<&Work> = history.runs.iter().map(|run| &run.work).collect();
    let unknown: Vec<u64> = history.jobs.iter().filter(|job| job.ids.is_empty()).map(|job| job.n).collect();
    let fires = || history.schedules.iter().flat_map(|schedule| &schedule.fires);
    vec![
        ("accepted", accepted().count() as u64),
        ("completed", ended("succeeded")),
        ("dead, as asked", ended("dead")),
        ("cancelled", ended("cancelled")),
        ("not answered", unknown.len() as u64),
        (
            "of those, ran all the same",
            unknown.into_iter().filter(|n| ran.contains(&Work::Job(*n))).count() as u64,
        ),
        ("with an ordering key", accepted().filter(|job| job.key.is_some()).count() as u64),
        ("with an idempotency key", accepted().filter(|job| job.named).count() as u64),
        ("put off", accepted().filter(|job| job.delay > 0).count() as u64),
        ("failing at first", accepted().filter(|job| job.fails > 0).count() as u64),
        ("asked to cancel", accepted().filter(|job| job.cancel).count() as u64),
        ("runs recorded", history.runs.len() as u64),
        ("schedules", history.schedules.len() as u64),
        ("instants fired", fires().filter(|fire| fire.invocation.is_some()).count() as u64),
        ("instants recorded as missed", fires().filter(|fire| fire.invocation.is_none()).count() as u64),
        ("faults", history.faults.len() as u64),
        ("of those, kills", history.faults.iter().filter(|f| f.kind.ends_with("killed")).count() as u64),
    ]
}

fn repeated(history: &History, figures: &mut Figures) {
    for runs in runs_by_id(history).values() {
        for pair in runs.windows(2) {
            let (earlier, later) = (&history.runs[pair[0]], &history.runs[pair[1]]);
            if earlier.done == Some(false) {
                continue;
            }
            let near =
                |fault: &&Fault| fault.from <= later.start.at && fault.until + SHOWS >= earlier.start.at;
            let kind = history.faults.iter().rev().find(near).map_or("no fault near", |fault| fault.kind);
            *figures.repeated.entry(kind).or_default() += 1;
        }
    }
}

fn lateness(history: &History, figures: &mut Figures) {
    let fires = history.schedules.iter().flat_map(|schedule| &schedule.fires);
    let fired = fires.filter(|fire| fire.invocation.is_some());
    figures.times.push(("instant to its record".into(), fired.map(|f| f.recorded - f.due).collect()));
    let mut first: BTreeMap<&str, Ms> = BTreeMap::new();
    for run in &history.runs {
        if let Work::Instant { due, .. } = run.work {
            first.entry(&run.id).or_insert(run.start.at - due);
        }
    }
    figures.times.push(("instant to its first start".into(), first.into_values().collect()));
}

fn waits(history: &History, figures: &mut Figures) {
    let runs = runs_by_id(history);
    for priority in ["high", "normal", "low"] {
        let jobs =
            history.jobs.iter().filter(|job| job.priority == priority && job.delay == 0 && job.key.is_none());
        let wait = |job: &crate::history::Job| {
            let first = runs.get(job.ids.first()?.as_str())?.first()?;
            // A function may have begun before its client has read the answer.
            Some((history.runs[*first].start.at - job.answered?.at).max(0))
        };
        figures.times.push((format!("acceptance to start, {priority}"), jobs.filter_map(wait).collect()));
    }
}

/// Until a run that began after the fault had ended: after the fault began, and after it was undone.
fn recovery(history: &History, figures: &mut Figures) {
    let done = history.runs.iter().filter(|run| run.done == Some(true));
    let mut ends: Vec<(Ms, Ms)> = done.filter_map(|run| Some((run.start.at, run.end?.at))).collect();
    ends.sort_unstable();
    let next = |from: Ms| {
        let later = ends.partition_point(|(start, _)| *start < from);
        ends[later..].iter().take(200).map(|(_, end)| end - from).min()
    };
    let mut kinds: BTreeMap<&str, (Vec<Ms>, Vec<Ms>)> = BTreeMap::new();
    for fault in &history.faults {
        let (begun, undone) = kinds.entry(fault.kind).or_default();
        begun.extend(next(fault.from));
        undone.extend(next(fault.until));
    }
    for (kind, (begun, undone)) in kinds {
        figures.times.push((format!("{kind}: to the next completion"), begun));
        figures.times.push((format!("{kind}: undone to the next completion"), undone));
    }
}
