//! A checker that cannot fail proves nothing: a good history passes, and each way to break a promise is found.

use super::{Promise, Verdict, figures, judge};
use crate::history::{ALWAYS, Fault, Fire, History, Job, Moment, Ms, Read, Run, Schedule, Work};

const NOON: Ms = 1_800_000_000_000 / 60_000 * 60_000;

/// Moments are made from one number: a second each.
fn at(seq: u64) -> Moment {
    Moment { seq, at: NOON + seq as Ms * 1_000 }
}

fn job(n: u64, sent: u64) -> Job {
    Job {
        n,
        priority: "normal",
        sent: at(sent),
        answered: Some(at(sent + 1)),
        ids: vec![format!("id-{n}")],
        ..Job::default()
    }
}

fn run(id: &str, work: Work, start: u64, end: u64) -> Run {
    Run { id: id.into(), work, start: at(start), end: Some(at(end)), done: Some(true) }
}

fn read(seq: u64, state: &str, attempt: u64, run: usize) -> Read {
    let result = (state == "succeeded").then(|| format!("{{\"run\": {run}}}"));
    let ended_at = (state != "queued" && state != "running").then(|| "then".to_owned());
    Read { when: at(seq), state: state.into(), attempt, ended_at, result }
}

/// Two jobs of one key, of which the first was repeated after a kill; one that fails for ever; one that was put off and
/// cancelled; and two schedules, of which one instant was missed while everything was down.
fn good() -> History {
    let mut history = History { until: NOON + 240_000, ..History::default() };
    let [mut first, mut second, mut failing, mut waiting] = [job(1, 10), job(2, 12), job(3, 14), job(4, 16)];
    (first.key, second.key, first.named) = (Some(7), Some(7), true);
    (failing.fails, waiting.delay, waiting.cancel) = (ALWAYS, 600_000, true);
    history.jobs = vec![first, second, failing, waiting];
    let cut = Run { end: None, done: None, ..run("id-1", Work::Job(1), 20, 0) };
    let failed = Run { done: Some(false), ..run("id-3", Work::Job(3), 22, 23) };
    let minute = |n: u64| Work::Instant { schedule: "s0".into(), due: NOON + 60_000 * n as Ms };
    history.runs = vec![
        cut,
        run("id-1", Work::Job(1), 60, 61),
        run("id-2", Work::Job(2), 62, 63),
        failed,
        run("fire-1", minute(1), 61, 61),
        run("fire-3", minute(3), 200, 200),
        run("fire-4", minute(4), 241, 241),
    ];
    history.faults.push(Fault { kind: "gateway killed", from: at(21).at, until: at(25).at });
    for (id, reads) in [
        ("id-1", vec![read(59, "running", 2, 0), read(300, "succeeded", 2, 1), read(400, "succeeded", 2, 1)]),
        ("id-2", vec![read(300, "succeeded", 1, 2), Read { result: None, ..read(301, "succeeded", 1, 2) }]),
        ("id-3", vec![read(300, "dead", 3, 0)]),
        ("id-4", vec![read(300, "cancelled", 0, 0)]),
        ("fire-1", vec![read(300, "succeeded", 1, 4)]),
        ("fire-3", vec![read(300, "succeeded", 1, 5)]),
        ("fire-4", vec![read(300, "succeeded", 1, 6)]),
    ] {
        history.reads.insert(id.into(), reads);
    }
    let fires = |skip: bool| {
        let fire = |n: Ms, late: Ms, id: Option<&str>| Fire {
            due: NOON + n * 60_000,
            recorded: NOON + n * 60_000 + late,
            invocation: id.map(str::to_owned),
        };
        let third = if skip { fire(3, 61_000, None) } else { fire(3, 20_000, Some("fire-3")) };
        vec![fire(1, 1_000, Some("fire-1")), fire(2, 80_000, None), third, fire(4, 1_000, Some("fire-4"))]
    };
    let schedule = |name: &str, skip| Schedule {
        name: name.into(),
        skip,
        asked: NOON + 100,
        made: NOON + 200,
        fires: fires(skip),
    };
    history.schedules = vec![schedule("s0", false), schedule("s1", true)];
    history
}

#[track_caller]
fn breaks(promise: Promise, change: impl FnOnce(&mut History)) {
    let mut history = good();
    change(&mut history);
    let Verdict(found) = judge(&history);
    assert!(found.contains_key(&promise), "{promise:?} was not found broken, but {found:?}");
}

fn reads<'h>(history: &'h mut History, id: &str) -> &'h mut Vec<Read> {
    history.reads.get_mut(id).unwrap()
}

#[test]
fn a_good_history_breaks_nothing_and_what_was_repeated_is_counted_with_its_cause() {
    let history = good();
    let Verdict(found) = judge(&history);
    assert!(found.is_empty(), "{found:?}");
    let figures = figures(&history);
    assert_eq!(figures.repeated.into_iter().collect::<Vec<_>>(), [("gateway killed", 1)]);
    assert!(figures.counts.contains(&("completed", 2)), "{:?}", figures.counts);
    assert!(figures.counts.contains(&("instants recorded as missed", 3)), "{:?}", figures.counts);
    let recovered = figures.times.iter().find(|(name, _)| name == "gateway killed: to the next completion");
    assert_eq!(recovered.unwrap().1, [40_000]);
}

#[test]
fn what_never_ends_is_lost_whoever_knows_of_it() {
    breaks(Promise::Ends, |h| *reads(h, "id-2") = vec![read(300, "queued", 1, 0)]);
    breaks(Promise::Ends, |h| drop(h.reads.remove("id-2")));
    breaks(Promise::Ends, |h| drop(h.reads.insert("nobody's".into(), vec![read(300, "running", 1, 0)])));
}

#[test]
fn an_end_that_is_there_twice_or_changes_is_found() {
    breaks(Promise::EndsOnce, |h| h.listed_twice.push("id-1".into()));
    breaks(Promise::EndsOnce, |h| reads(h, "id-1")[2].result = Some("{\"run\": 0}".into()));
    breaks(Promise::EndsOnce, |h| reads(h, "id-1")[2].ended_at = Some("later".into()));
    breaks(Promise::EndsOnce, |h| reads(h, "id-1").insert(2, read(350, "queued", 2, 0)));
    breaks(Promise::EndsOnce, |h| reads(h, "id-2").push(read(350, "dead", 1, 0)));
}

#[test]
fn each_end_is_the_one_that_was_asked_for() {
    breaks(Promise::EndsAsAsked, |h| *reads(h, "id-2") = vec![read(300, "dead", 1, 0)]);
    breaks(Promise::EndsAsAsked, |h| *reads(h, "id-3") = vec![read(300, "succeeded", 3, 3)]);
    breaks(Promise::EndsAsAsked, |h| h.jobs[3].cancel = false);
}

#[test]
fn a_result_is_that_of_a_completed_run_of_the_same_job() {
    breaks(Promise::ResultOfItsRun, |h| *reads(h, "id-2") = vec![read(300, "succeeded", 1, 1)]);
    breaks(Promise::ResultOfItsRun, |h| *reads(h, "id-1") = vec![read(300, "succeeded", 2, 0)]);
    breaks(Promise::ResultOfItsRun, |h| *reads(h, "id-2") = vec![read(300, "succeeded", 1, 99)]);
}

#[test]
fn runs_that_nobody_counted_or_that_come_after_the_end_are_found() {
    breaks(Promise::RunsAreAttempts, |h| h.runs.push(run("id-2", Work::Job(2), 100, 101)));
    breaks(Promise::NothingAfterTheEnd, |h| h.runs.push(run("id-4", Work::Job(4), 301, 302)));
}

#[test]
fn one_name_is_one_call() {
    breaks(Promise::OneForOneName, |h| h.jobs[0].ids.push("id-9".into()));
    breaks(Promise::OneForOneName, |h| h.runs.push(run("id-9", Work::Job(1), 100, 101)));
}

#[test]
fn order_and_delays_are_kept() {
    breaks(Promise::InOrder, |h| h.runs[2].start = at(60));
    breaks(Promise::NotBeforeItsTime, |h| h.runs.push(run("id-4", Work::Job(4), 100, 101)));
}

#[test]
fn every_instant_is_there_once() {
    breaks(Promise::EveryInstant, |h| drop(h.schedules[0].fires.remove(1)));
    breaks(Promise::EveryInstant, |h| h.until += 60_000);
    breaks(Promise::InstantOnce, |h| {
        let again = h.schedules[0].fires[0].clone();
        h.schedules[0].fires.push(again);
    });
    breaks(Promise::InstantOnce, |h| h.schedules[0].fires[0].due += 30_000);
    breaks(Promise::InstantOnce, |h| {
        let work = h.runs[4].work.clone();
        h.runs.push(run("fire-1b", work, 62, 63));
    });
}

#[test]
fn no_instant_is_early_and_none_is_missed_or_late_against_its_policy() {
    breaks(Promise::InstantNotEarly, |h| h.schedules[0].fires[0].recorded -= 1_001);
    breaks(Promise::InstantNotEarly, |h| h.runs[4].start = at(59));
    // It had passed only just now.
    breaks(Promise::MissedByPolicy, |h| h.schedules[0].fires[1].recorded = NOON + 121_000);
    breaks(Promise::MissedByPolicy, |h| h.schedules[1].fires[1].recorded = NOON + 121_000);
    // It was the latest, so `run_once` would have run it.
    breaks(Promise::MissedByPolicy, |h| h.schedules[0].fires[2].invocation = None);
    // `skip` does not run what is so late.
    breaks(Promise::MissedByPolicy, |h| h.schedules[1].fires[0].recorded += 120_000);
    breaks(Promise::FireEnds, |h| *reads(h, "fire-3") = vec![read(300, "dead", 1, 0)]);
}
