//! Carries out plans: hundreds of schedules at a time in one transaction, which records instants, accepts their
//! invocations and moves the schedules on.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use davit_api::{Filling, FunctionId, ScheduleId, SkipReason, limits};
use davit_cron::Timing;
use davit_registry::{Due, Fire, Passed, Registry, RegistryError, Rung, ScheduleRow, SchedulesDue};

use super::next::{Instants, Plan, Ring, Stored, plan};

/// Schedules of one transaction.
const MOST: usize = 250;
/// Bytes of events of one transaction, unless a single schedule has more.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// What a look at all schedules led to.
#[derive(Debug, Default)]
pub struct Looked {
    /// When functions are called next, by the database's clock.
    pub next: Vec<(FunctionId, DateTime<Utc>)>,
    /// Instants that fired.
    pub fired: usize,
    /// Whether something that is due was left: another gateway works on it, or it failed.
    pub left: bool,
}

/// The database's time, as of a read and counted on from there: this host's own clock may be wrong, or jump.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    read: DateTime<Utc>,
    at: Instant,
}

impl Clock {
    /// A clock that showed `read` just now.
    pub fn new(read: DateTime<Utc>) -> Self {
        Self { read, at: Instant::now() }
    }
    /// What it shows now.
    pub fn now(&self) -> DateTime<Utc> {
        self.read + TimeDelta::from_std(self.at.elapsed()).unwrap_or_default()
    }
}

struct Known<'a> {
    timing: Timing,
    row: &'a ScheduleRow,
}

impl Instants for Known<'_> {
    fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.timing.next_after(after)
    }
    fn rings_at(&self, due: DateTime<Utc>) -> DateTime<Utc> {
        self.timing.rings_at(self.row.id.0.as_u128(), due)
    }
}

/// A schedule that has something to carry out.
struct Act<'a> {
    known: Known<'a>,
    ring: Ring,
}

impl Act<'_> {
    /// About how many bytes its events take.
    fn bytes(&self) -> usize {
        self.ring.fire.len() * (self.known.row.payload_bytes as usize + 512)
    }
}

/// Timings that were read before: reading a cron line costs more than all else that a look does with it.
#[derive(Default)]
pub struct Timings {
    known: HashMap<ScheduleId, (i64, Timing)>,
}

impl Timings {
    /// The timing of a schedule as it was read, or none when it is not understood.
    fn of(&mut self, row: &ScheduleRow) -> Option<Timing> {
        if let Some((_, timing)) = self.known.get(&row.id).filter(|(revision, _)| *revision == row.revision) {
            return Some(timing.clone());
        }
        match Timing::of(&row.spec, row.created_at) {
            Ok(timing) => {
                self.known.insert(row.id, (row.revision, timing.clone()));
                Some(timing)
            }
            Err(error) => {
                // The API refuses such settings; those that a newer davit wrote are left alone.
                tracing::warn!(schedule = %row.name, function = %row.function, %error, "schedule not understood");
                None
            }
        }
    }

    /// Forgets all but these.
    pub fn keep(&mut self, rows: &[ScheduleRow]) {
        let there: HashSet<ScheduleId> = rows.iter().map(|row| row.id).collect();
        self.known.retain(|id, _| there.contains(id));
    }
}

/// Does what the schedules need that were read. The first are rung while the last are not looked at yet.
pub async fn look(registry: &Registry, due: &SchedulesDue, timings: &mut Timings) -> Looked {
    let clock = Clock::new(due.now);
    let mut looked = Looked::default();
    let mut acted = false;
    for rows in due.rows.chunks(MOST) {
        let mut acts = Vec::new();
        for row in rows {
            let Some(timing) = timings.of(row) else { continue };
            let known = Known { timing, row };
            let stored = Stored { next: row.next_due_at, from: row.due_from };
            let ring = match plan(stored, &row.spec, due.now, &known) {
                Plan::Wait(at) => {
                    looked.next.push((row.function_id, at));
                    continue;
                }
                Plan::Set(next) => Ring { fire: Vec::new(), passed: Vec::new(), next },
                Plan::Ring(ring) => ring,
            };
            acts.push(Act { known, ring });
        }
        for chunk in chunks(&acts) {
            acted = true;
            carry_out(registry, chunk, &clock, &mut looked).await;
        }
    }
    looked.left |= due.more && acted;
    looked
}

/// Cuts the work into transactions.
fn chunks<'a, 'r>(acts: &'a [Act<'r>]) -> Vec<&'a [Act<'r>]> {
    let mut chunks = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (index, act) in acts.iter().enumerate() {
        if index > from && (index - from == MOST || bytes + act.bytes() > MOST_BYTES) {
            chunks.push(&acts[from..index]);
            (from, bytes) = (index, 0);
        }
        bytes += act.bytes();
    }
    if from < acts.len() {
        chunks.push(&acts[from..]);
    }
    chunks
}

async fn carry_out(registry: &Registry, chunk: &[Act<'_>], clock: &Clock, looked: &mut Looked) {
    let rung = match ring(registry, chunk, clock).await {
        Ok(rung) => rung,
        // One that cannot be carried out must not keep the others from ringing.
        Err(error) if chunk.len() > 1 && !matches!(error, RegistryError::Unavailable(_)) => {
            for act in chunk.chunks(1) {
                Box::pin(carry_out(registry, act, clock, looked)).await;
            }
            return;
        }
        Err(error) => {
            // The next full look tries again, not the next moment.
            let row = chunk[0].known.row;
            return tracing::warn!(%error, schedules = chunk.len(), schedule = %row.name, function = %row.function, "could not be rung; tried again later");
        }
    };
    let done: HashMap<ScheduleId, Rung> = rung.into_iter().map(|rung| (rung.schedule, rung)).collect();
    for act in chunk {
        let Some(rung) = done.get(&act.known.row.id) else {
            looked.left = true;
            continue;
        };
        looked.fired += rung.fired.len();
        report(act, rung);
        if let Some(next) = act.ring.next {
            looked.next.push((act.known.row.function_id, act.known.rings_at(next)));
        }
    }
}

fn report(act: &Act<'_>, rung: &Rung) {
    let row = act.known.row;
    for (due_at, invocation) in &rung.fired {
        tracing::info!(schedule = %row.name, function = %row.function, due_at = %due_at, %invocation, "fired");
    }
    let missed = act.ring.passed.iter().filter(|passed| passed.skipped.is_none()).count();
    if missed > 0 {
        tracing::warn!(schedule = %row.name, function = %row.function, missed, "instants were missed");
    }
}

/// One transaction.
async fn ring(registry: &Registry, chunk: &[Act<'_>], clock: &Clock) -> Result<Vec<Rung>, RegistryError> {
    let with_payload = |act: &&Act<'_>| act.known.row.payload_bytes > 0 && !act.ring.fire.is_empty();
    let ids: Vec<ScheduleId> = chunk.iter().filter(with_payload).map(|act| act.known.row.id).collect();
    // Read before, and good all the same: an edit in between counts the revision up.
    let mut payloads = registry.schedule_payloads(&ids).await?;
    let fired_at = clock.now();
    let dues = chunk.iter().map(|act| due(act, payloads.remove(&act.known.row.id), fired_at)).collect();
    registry.ring(dues).await
}

/// A plan with its events.
fn due(act: &Act<'_>, payload: Option<serde_json::Value>, fired_at: DateTime<Utc>) -> Due {
    let Act { known, ring } = act;
    let row = known.row;
    let spec = davit_api::ScheduleSpec { payload, ..row.spec.clone() };
    let (mut passed, mut next, mut bytes) = (ring.passed.clone(), ring.next, 0);
    let mut fires = Vec::new();
    for due_at in &ring.fire {
        if bytes > MOST_BYTES {
            // The rest of many large events comes with the next full look.
            next = Some(*due_at);
            break;
        }
        let filling = Filling {
            namespace: &row.namespace,
            function: &row.function,
            schedule: &row.name,
            due_at: *due_at,
            fired_at,
        };
        let payload = spec.event(filling);
        if payload.len() > limits::ASYNC_PAYLOAD_BYTES {
            passed.push(Passed { due_at: *due_at, skipped: Some(SkipReason::TooLarge) });
            continue;
        }
        bytes += payload.len();
        fires.push(Fire { due_at: *due_at, planned_at: known.rings_at(*due_at), payload });
    }
    Due {
        schedule: row.id,
        revision: row.revision,
        stored: row.next_due_at,
        overlap: row.spec.overlap,
        fires,
        passed,
        next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_api::ScheduleSpec;

    #[test]
    fn transactions_are_bounded_by_schedules_and_by_bytes() {
        let now: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().unwrap();
        let row = |payload_bytes| ScheduleRow {
            id: ScheduleId::new(),
            function_id: FunctionId::new(),
            namespace: "shop".parse().unwrap(),
            function: "f".parse().unwrap(),
            name: "s".parse().unwrap(),
            spec: ScheduleSpec::of_cron("@daily"),
            payload_bytes,
            revision: 0,
            next_due_at: Some(now),
            due_from: None,
            created_at: now,
        };
        let sizes = |payload_bytes, count| {
            fn act(row: &ScheduleRow) -> Act<'_> {
                let now = row.created_at;
                let timing = Timing::of(&row.spec, now).unwrap();
                Act {
                    known: Known { timing, row },
                    ring: Ring { fire: vec![now], passed: vec![], next: None },
                }
            }
            let rows: Vec<_> = (0..count).map(|_| row(payload_bytes)).collect();
            let acts: Vec<_> = rows.iter().map(act).collect();
            chunks(&acts).iter().map(|chunk| chunk.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(0, 0), [0usize; 0]);
        assert_eq!(sizes(10, 1_000), [250; 4]);
        assert_eq!(sizes(10, 251), [250, 1]);
        assert_eq!(sizes(3 * 1024 * 1024, 5), [2, 2, 1]);
        assert_eq!(sizes(9 * 1024 * 1024, 2), [1, 1], "one that is larger goes alone");
    }
}
