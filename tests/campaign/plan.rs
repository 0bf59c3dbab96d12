//! How large a campaign is, and what breaks when: all of it from the environment and one seed. Pure, so that the same
//! seed is the same campaign.

use std::time::Duration;

use davit_e2e::Chance;

/// How large a campaign is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) seed: u64,
    pub(crate) gateways: usize,
    /// Jobs that are to be accepted.
    pub(crate) jobs: u64,
    pub(crate) schedules: usize,
    /// Times that something is killed; the other faults come on top.
    pub(crate) kills: u64,
}

impl Size {
    /// `DAVIT_CAMPAIGN_JOBS`, `_SCHEDULES`, `_KILLS` and `_GATEWAYS`; without them the short one.
    pub(crate) fn from_environment() -> Self {
        let setting = |name: &str, default: u64| {
            let text = std::env::var(format!("DAVIT_CAMPAIGN_{name}")).ok();
            text.map_or(default, |text| {
                text.parse().unwrap_or_else(|_| panic!("DAVIT_CAMPAIGN_{name}: not a number"))
            })
        };
        Self {
            seed: Chance::seed(),
            gateways: setting("GATEWAYS", 2) as usize,
            jobs: setting("JOBS", 300),
            schedules: setting("SCHEDULES", 10) as usize,
            kills: setting("KILLS", 5),
        }
    }

    /// Whether there is time for this kind.
    fn allows(self, kind: Kind) -> bool {
        self.kills > 10 || !matches!(kind, Kind::LongFreeze | Kind::AllGateways)
    }
}

/// What can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Gateway,
    AllGateways,
    Controller,
    Postgres,
    Engine,
    EngineAndContainers,
    Sessions,
    ShortFreeze,
    LongFreeze,
    ClockAhead,
    ClockBehind,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway killed",
            Self::AllGateways => "all gateways killed",
            Self::Controller => "controller killed",
            Self::Postgres => "Postgres killed",
            Self::Engine => "engine killed",
            Self::EngineAndContainers => "engine and containers killed",
            Self::Sessions => "database sessions cut",
            Self::ShortFreeze => "gateway frozen within its lease",
            Self::LongFreeze => "gateway frozen beyond its lease",
            Self::ClockAhead => "gateway's clock ahead",
            Self::ClockBehind => "gateway's clock behind",
        }
    }

    fn kills(self) -> bool {
        matches!(
            self,
            Self::Gateway
                | Self::AllGateways
                | Self::Controller
                | Self::Postgres
                | Self::Engine
                | Self::EngineAndContainers
        )
    }

    /// So many of a hundred faults are of this kind.
    const SHARES: [(Self, u64); 11] = [
        (Self::Gateway, 34),
        (Self::AllGateways, 2),
        (Self::Controller, 14),
        (Self::Postgres, 9),
        (Self::Engine, 5),
        (Self::EngineAndContainers, 4),
        (Self::Sessions, 8),
        (Self::ShortFreeze, 8),
        (Self::LongFreeze, 5),
        (Self::ClockAhead, 6),
        (Self::ClockBehind, 5),
    ];
}

/// One fault to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) kind: Kind,
    /// Which gateway or controller, counted round.
    pub(crate) target: usize,
    /// How long it lasts.
    pub(crate) lasts: Duration,
    /// Seconds that a clock is moved.
    pub(crate) shift: i64,
    /// How long to wait before the next one: half of the times too short for anything to recover.
    pub(crate) pause: Duration,
}

/// All faults of a campaign, in order.
pub(crate) fn faults(size: Size, with_clocks: bool) -> Vec<Planned> {
    let mut chance = Chance::of(size.seed);
    let (mut all, mut kills) = (Vec::new(), 0);
    while kills < size.kills {
        let kind = kind(chance.below(100));
        let clock = matches!(kind, Kind::ClockAhead | Kind::ClockBehind);
        let planned = one(kind, &mut chance);
        // Drawn all the same, so that what follows does not depend on it.
        if (clock && !with_clocks) || !size.allows(kind) {
            continue;
        }
        kills += u64::from(kind.kills());
        all.push(planned);
    }
    all
}

fn kind(mut share: u64) -> Kind {
    for (kind, of_hundred) in Kind::SHARES {
        if share < of_hundred {
            return kind;
        }
        share -= of_hundred;
    }
    Kind::Gateway
}

fn one(kind: Kind, chance: &mut Chance) -> Planned {
    let (from, to) = match kind {
        Kind::Gateway if chance.percent(40) => (0, 500),
        Kind::Gateway => (1_000, 15_000),
        // Long enough that instants are missed.
        Kind::AllGateways => (60_000, 150_000),
        Kind::Controller => (0, 20_000),
        Kind::Postgres | Kind::Engine | Kind::EngineAndContainers => (0, 8_000),
        Kind::Sessions => (0, 0),
        Kind::ShortFreeze => (1_000, 20_000),
        Kind::LongFreeze => (31_000, 50_000),
        Kind::ClockAhead | Kind::ClockBehind => (5_000, 40_000),
    };
    let pause = if chance.percent(50) { chance.below(1_500) } else { 3_000 + chance.below(9_000) };
    let shift = 1 + chance.below(300) as i64;
    Planned {
        kind,
        target: chance.below(1_000) as usize,
        lasts: Duration::from_millis(from + chance.below(to - from + 1)),
        shift: if kind == Kind::ClockBehind { -shift } else { shift },
        pause: Duration::from_millis(pause),
    }
}

/// Jobs a second, so that they come for as long as things break.
pub(crate) fn rate(size: Size, faults: &[Planned]) -> f64 {
    let pauses: Duration = faults.iter().map(|fault| fault.pause).sum();
    // Killing and starting takes its own time; and for a good part of all the time nothing can be accepted.
    let took = pauses.as_secs_f64() + faults.len() as f64 * 0.7;
    (size.jobs as f64 / took * 1.3).clamp(5.0, 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_campaign_and_has_every_kind_of_fault_when_it_is_long() {
        let size = Size { seed: 7, gateways: 3, jobs: 100, schedules: 1, kills: 200 };
        let all = faults(size, true);
        assert_eq!(format!("{all:?}"), format!("{:?}", faults(size, true)));
        assert_eq!(all.iter().filter(|fault| fault.kind.kills()).count(), 200);
        for (kind, _) in Kind::SHARES {
            assert!(all.iter().any(|fault| fault.kind == kind), "{kind:?} is missing");
        }
        assert_eq!(Kind::SHARES.iter().map(|(_, share)| share).sum::<u64>(), 100);
        assert!(faults(size, false).iter().all(|fault| fault.kind != Kind::ClockAhead));
    }
}
