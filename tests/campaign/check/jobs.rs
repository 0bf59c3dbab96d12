//! The queue's promises: nothing accepted is lost, each ends once and as it was asked, in order where order was asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::{Promise, Verdict, runs_by_id};
use crate::history::{ALWAYS, History, Job, Moment, Read, Work};

type Runs<'h> = BTreeMap<&'h str, Vec<usize>>;

pub(super) fn judge(history: &History, verdict: &mut Verdict) {
    let runs = runs_by_id(history);
    let instants: BTreeSet<&str> = history
        .runs
        .iter()
        .filter(|r| matches!(r.work, Work::Instant { .. }))
        .map(|r| r.id.as_str())
        .collect();
    for id in &history.listed_twice {
        verdict.breaks(Promise::EndsOnce, format!("{id} stood twice in a list"));
    }
    for (id, reads) in &history.reads {
        ends_once(id, reads, verdict);
        attempts_and_late_starts(id, reads, &runs, history, verdict);
        // Also those that no client was told of: whatever is in the queue was committed, so it must end.
        if !instants.contains(id.as_str()) && last(history, id).is_none_or(|read| !read.ended()) {
            verdict.breaks(Promise::Ends, format!("{id}: {:?}", reads.last()));
        }
    }
    let mut under: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for run in &history.runs {
        if let Work::Job(n) = run.work {
            under.entry(n).or_default().insert(&run.id);
        }
    }
    for job in &history.jobs {
        let mut ids = under.remove(&job.n).unwrap_or_default();
        ids.extend(job.ids.iter().map(String::as_str));
        if ids.len() > 1 {
            verdict.breaks(Promise::OneForOneName, format!("job {}: {ids:?}", job.n));
        }
        for id in &job.ids {
            if !history.reads.contains_key(id) {
                verdict.breaks(Promise::Ends, format!("{id}: accepted, and the API never knew it"));
            }
            ended_as_asked(job, id, history, &runs, verdict);
        }
    }
    order(history, &runs, verdict);
}

fn last<'h>(history: &'h History, id: &str) -> Option<&'h Read> {
    history.reads.get(id)?.last()
}

fn ends_once(id: &str, reads: &[Read], verdict: &mut Verdict) {
    let ended = || reads.iter().filter(|read| read.ended());
    let ends: BTreeSet<_> = ended().map(|r| (&r.state, r.attempt, &r.ended_at)).collect();
    let results: BTreeSet<_> = ended().filter_map(|r| r.result.as_ref()).collect();
    let reopened = reads.iter().skip_while(|read| !read.ended()).any(|read| !read.ended());
    if ends.len() > 1 || results.len() > 1 || reopened {
        verdict.breaks(Promise::EndsOnce, format!("{id}: {reads:?}"));
    }
}

fn attempts_and_late_starts(id: &str, reads: &[Read], runs: &Runs, history: &History, verdict: &mut Verdict) {
    let Some(runs) = runs.get(id) else { return };
    let attempts = reads.iter().map(|read| read.attempt).max().unwrap_or(0);
    if runs.len() as u64 > attempts {
        verdict.breaks(Promise::RunsAreAttempts, format!("{id}: {} runs, {attempts} attempts", runs.len()));
    }
    let Some(seen) = reads.iter().find(|read| read.ended()) else { return };
    for run in runs.iter().map(|run| &history.runs[*run]) {
        if run.start > seen.when {
            let late = run.start.at - seen.when.at;
            verdict.breaks(Promise::NothingAfterTheEnd, format!("{id}: {late} ms after {seen:?}"));
        }
    }
}

fn ended_as_asked(job: &Job, id: &str, history: &History, runs: &Runs, verdict: &mut Verdict) {
    let first = runs.get(id).and_then(|runs| runs.first()).map(|run| history.runs[*run].start);
    if let Some(first) = first
        && first.at < job.sent.at + job.delay
    {
        let early = job.sent.at + job.delay - first.at;
        verdict.breaks(Promise::NotBeforeItsTime, format!("{id}: {early} ms early"));
    }
    let Some(read) = last(history, id).filter(|read| read.ended()) else { return };
    let fits = match read.state.as_str() {
        "succeeded" => job.fails < ALWAYS,
        "dead" => job.fails == ALWAYS,
        _ => job.cancel,
    };
    if !fits {
        verdict.breaks(Promise::EndsAsAsked, format!("{id}: {read:?} of {job:?}"));
    }
    if read.state == "succeeded" && winner(id, job.n, history).is_none() {
        verdict.breaks(Promise::ResultOfItsRun, format!("{id}: {read:?} of job {}", job.n));
    }
}

/// When the run ended whose result is the recorded one, if it is one of this job. Lists do not tell results.
fn winner(id: &str, n: u64, history: &History) -> Option<Moment> {
    let read = history.reads.get(id)?.iter().rev().find_map(|read| read.result.as_ref())?;
    let result: serde_json::Value = serde_json::from_str(read).ok()?;
    let run = history.runs.get(usize::try_from(result["run"].as_u64()?).ok()?)?;
    (run.id == id && run.work == Work::Job(n) && run.done == Some(true)).then_some(run.end).flatten()
}

/// None may start before those of its key that were accepted earlier have had the run that counts. Those of which no
/// client knows whether, and so when, they were accepted have no place in the order; neither have cancelled ones.
fn order(history: &History, runs: &Runs, verdict: &mut Verdict) {
    let mut keys: BTreeMap<u64, Vec<&Job>> = BTreeMap::new();
    for job in &history.jobs {
        if let (Some(key), [_]) = (job.key, job.ids.as_slice()) {
            keys.entry(key).or_default().push(job);
        }
    }
    for (key, mut jobs) in keys {
        jobs.sort_by_key(|job| job.n);
        let mut before: Option<(Moment, u64)> = None;
        for job in jobs {
            let id = &job.ids[0];
            let first =
                runs.get(id.as_str()).and_then(|runs| runs.first()).map(|run| history.runs[*run].start);
            if let (Some((end, n)), Some(first)) = (before, first)
                && first < end
            {
                let what =
                    format!("key {key}: job {} began {} ms before the end of {n}", job.n, end.at - first.at);
                verdict.breaks(Promise::InOrder, what);
            }
            let end = winner(id, job.n, history);
            before = before.max(end.map(|end| (end, job.n)));
        }
    }
}
