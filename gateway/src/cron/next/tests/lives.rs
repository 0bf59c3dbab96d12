//! Lives of one schedule, made up of chance. The store is a model of the registry's rules: a row an instant, and nothing
//! is carried out for a schedule that is not as it was read.

use std::collections::BTreeMap;

use davit_cron::{Timing, Tz};

use super::*;

const ZONES: [Tz; 10] = [
    Tz::Europe__Berlin,
    Tz::America__New_York,
    Tz::Australia__Lord_Howe,
    Tz::America__Santiago,
    Tz::Africa__Casablanca,
    Tz::Asia__Tehran,
    Tz::Pacific__Apia,
    Tz::Asia__Kolkata,
    Tz::Pacific__Chatham,
    Tz::America__St_Johns,
];
const SETTINGS: [(&str, &str); 7] = [
    ("cron", "*/10 * * * *"),
    ("cron", "30 2 * * *"),
    ("cron", "0 0 * * *"),
    ("cron", "15 1-4 * * *"),
    ("cron", "@hourly"),
    ("every", "25m"),
    ("every", "7h"),
];
/// Starts of stretches of time that hold a change of the clocks of one of the zones.
const AROUND: [&str; 10] = [
    "2026-03-28T20:00:00Z",
    "2026-10-24T20:00:00Z",
    "2026-03-07T20:00:00Z",
    "2026-10-31T20:00:00Z",
    "2026-04-04T08:00:00Z",
    "2026-10-03T08:00:00Z",
    "2026-09-05T22:00:00Z",
    "2026-02-14T22:00:00Z",
    "2011-12-29T22:00:00Z",
    "2018-09-21T16:00:00Z",
];

#[derive(Debug, Clone)]
enum Step {
    /// The clock goes on, or jumps, by so many seconds.
    Clock(i64),
    /// A gateway reads.
    Read(usize),
    /// A gateway carries out what it decided when it last read, however long ago.
    Act(usize),
    /// Somebody edits the schedule.
    Edit(usize, usize, bool),
    /// Somebody pauses it or lets it ring again.
    Switch(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1i64..3_000).prop_map(Step::Clock),
        1 => (3_000i64..40_000).prop_map(Step::Clock),
        1 => (-8_000i64..0).prop_map(Step::Clock),
        6 => (0usize..3).prop_map(Step::Read),
        6 => (0usize..3).prop_map(Step::Act),
        1 => (0..SETTINGS.len(), 0..ZONES.len(), any::<bool>()).prop_map(|(s, z, j)| Step::Edit(s, z, j)),
        1 => any::<bool>().prop_map(Step::Switch),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Became {
    Fired,
    Missed,
    Skipped,
}

#[derive(Debug, Clone)]
struct Row {
    spec: ScheduleSpec,
    revision: u32,
    stored: Stored,
    ended: bool,
}

struct Of(Timing);
impl Instants for Of {
    fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.0.next_after(after)
    }
    fn rings_at(&self, due: DateTime<Utc>) -> DateTime<Utc> {
        self.0.rings_at(77, due)
    }
}

/// A stretch of time in which the schedule was as it was.
struct Stretch {
    spec: ScheduleSpec,
    from: DateTime<Utc>,
}

struct Life {
    now: DateTime<Utc>,
    /// The latest that the clock ever showed.
    latest: DateTime<Utc>,
    created: DateTime<Utc>,
    row: Row,
    fires: BTreeMap<DateTime<Utc>, Became>,
    order: Vec<(u32, DateTime<Utc>)>,
    decided: [Option<(Row, Plan)>; 3],
    stretch: Option<Stretch>,
}

fn settings(setting: usize, zone: usize, jitter: bool, missed: MissedPolicy) -> ScheduleSpec {
    let (field, text) = SETTINGS[setting];
    let mut spec = ScheduleSpec {
        timezone: ZONES[zone].name().into(),
        jitter: jitter.then(|| "4m".into()),
        missed,
        missed_limit: None,
        ..ScheduleSpec::default()
    };
    match field {
        "cron" => spec.cron = Some(text.into()),
        _ => spec.every = Some(text.into()),
    }
    spec
}

impl Life {
    fn new(now: DateTime<Utc>, spec: ScheduleSpec) -> Self {
        let row = Row {
            spec: spec.clone(),
            revision: 0,
            stored: Stored { next: None, from: Some(now) },
            ended: false,
        };
        Self {
            now,
            latest: now,
            created: now,
            row,
            fires: BTreeMap::new(),
            order: Vec::new(),
            decided: [const { None }; 3],
            stretch: Some(Stretch { spec, from: now }),
        }
    }

    fn instants(&self, spec: &ScheduleSpec) -> Of {
        Of(Timing::of(spec, self.created).unwrap())
    }

    fn read(&mut self, gateway: usize) {
        let row = self.row.clone();
        if row.spec.enabled && !row.ended {
            let plan = plan(row.stored, &row.spec, self.now, &self.instants(&row.spec));
            self.decided[gateway] = Some((row, plan));
        }
    }

    /// What `Registry::ring` does.
    fn act(&mut self, gateway: usize) {
        let Some((read, plan)) = self.decided[gateway].take() else { return };
        let same = read.revision == self.row.revision && read.stored.next == self.row.stored.next;
        if !same || !self.row.spec.enabled || self.row.ended {
            return;
        }
        let next = match plan {
            Plan::Wait(_) => return,
            Plan::Set(next) => next,
            Plan::Ring(ring) => {
                let instants = self.instants(&self.row.spec);
                let fired = ring.fire.iter().map(|at| (*at, Became::Fired));
                let passed = ring.passed.iter().map(|p| (p.due_at, Became::Missed));
                for (due, became) in passed.chain(fired) {
                    assert!(instants.rings_at(due) <= self.latest, "{due} is early");
                    if let std::collections::btree_map::Entry::Vacant(place) = self.fires.entry(due) {
                        place.insert(became);
                        if became == Became::Fired {
                            self.order.push((self.row.revision, due));
                        }
                    }
                }
                ring.next
            }
        };
        (self.row.stored, self.row.ended) = (Stored { next, from: None }, next.is_none());
    }

    /// What an edit does in the registry: what had come is on record, and the next instant is computed anew.
    fn change(&mut self, spec: ScheduleSpec) {
        self.close_stretch();
        if self.row.spec.enabled
            && let Some(due) = self.row.stored.next.filter(|due| *due <= self.now)
        {
            self.fires.entry(due).or_insert(Became::Skipped);
        }
        let stretch = Stretch { spec: spec.clone(), from: self.now };
        self.stretch = spec.enabled.then_some(stretch);
        self.row.spec = spec;
        self.row.revision += 1;
        (self.row.stored, self.row.ended) = (Stored { next: None, from: Some(self.now) }, false);
    }

    /// Every instant of the stretch up to what has been seen to is on record.
    fn close_stretch(&mut self) {
        let Some(stretch) = self.stretch.take() else { return };
        let timing = self.instants(&stretch.spec).0;
        let Some(upto) = self.row.stored.next else { return };
        let mut left_out = 0;
        for (number, due) in timing.iter_after(stretch.from).take_while(|due| *due < upto).enumerate() {
            if !self.fires.contains_key(&due) {
                // Only what lies in the middle of a long outage may be left out.
                assert!(number >= FIRST, "{due} is not on record: {:?}", stretch.spec);
                left_out += 1;
            }
        }
        assert!(left_out == 0 || self.latest - stretch.from > REMEMBERED);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn whatever_happens_each_instant_is_on_record_once_and_none_is_early(
        steps in steps(), around in 0..AROUND.len(), setting in 0..SETTINGS.len(), zone in 0..ZONES.len(),
        jitter: bool, policy in 0usize..3,
    ) {
        let policy = [MissedPolicy::RunOnce, MissedPolicy::Skip, MissedPolicy::RunAll][policy];
        let mut life = Life::new(AROUND[around].parse().unwrap(), settings(setting, zone, jitter, policy));
        for step in steps {
            match step {
                Step::Clock(by) => {
                    life.now += TimeDelta::seconds(by);
                    life.latest = life.latest.max(life.now);
                }
                Step::Read(gateway) => life.read(gateway),
                Step::Act(gateway) => life.act(gateway),
                Step::Edit(setting, zone, jitter) => {
                    let spec = settings(setting, zone, jitter, policy);
                    life.change(ScheduleSpec { enabled: life.row.spec.enabled, ..spec });
                }
                Step::Switch(enabled) if enabled != life.row.spec.enabled => {
                    life.change(ScheduleSpec { enabled, ..life.row.spec.clone() });
                }
                Step::Switch(_) => {}
            }
        }
        // At last a gateway that works sees to whatever is there.
        life.now = life.latest + TimeDelta::hours(1);
        life.latest = life.now;
        life.read(0);
        life.act(0);
        if life.row.spec.enabled {
            let instants = life.instants(&life.row.spec);
            prop_assert!(life.row.stored.next.is_some_and(|next| instants.rings_at(next) > life.now));
        }
        life.close_stretch();
        for pair in life.order.windows(2) {
            let ((earlier, first), (later, second)) = (pair[0], pair[1]);
            prop_assert!(earlier != later || first < second, "{first} and {second} fired out of order");
        }
    }
}
