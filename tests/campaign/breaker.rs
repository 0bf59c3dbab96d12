//! Breaks things as planned and mends them when their time has come. Stands in for what supervises processes, too: one
//! that ended by itself is started again.

use std::time::{Duration, Instant};

use davit_e2e::Who;

use crate::history::Fault;
use crate::plan::{Kind, Planned, Size};
use crate::recorder::now;
use crate::world::{World, move_clock};

/// How often the processes are looked after.
const LOOK: Duration = Duration::from_millis(250);

/// How long after its end a process that ended by itself is started again.
const RESTART: Duration = Duration::from_secs(1);

/// What there is to mend.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Dead(Who),
    Frozen(usize),
    Clock(usize),
    Postgres,
    Engine,
}

/// Breaks and mends.
pub(crate) struct Breaker<'w> {
    world: &'w mut World,
    size: Size,
    /// From when progress is counted.
    start: Instant,
    /// Until when, what, and as which fault.
    broken: Vec<(Instant, Broken, Option<usize>)>,
    /// What was broken; the end of what still is lies in the future.
    pub(crate) faults: Vec<Fault>,
    /// Processes that ended without having been killed, and how.
    pub(crate) fell: Vec<String>,
}

impl<'w> Breaker<'w> {
    pub(crate) fn new(world: &'w mut World, size: Size, start: Instant) -> Self {
        Self { world, size, start, broken: Vec::new(), faults: Vec::new(), fell: Vec::new() }
    }

    /// Carries the plan out; returns when everything runs again.
    pub(crate) async fn run(&mut self, plan: &[Planned]) {
        for planned in plan {
            // What is broken already cannot be broken; something is mended sooner or later.
            while !self.break_one(planned) {
                let next = self.broken.iter().map(|(at, ..)| *at).min();
                self.wait(next.unwrap_or_else(Instant::now).max(Instant::now() + LOOK)).await;
            }
            self.wait(Instant::now() + planned.pause).await;
        }
        while let Some(latest) = self.broken.iter().map(|(at, ..)| *at).max() {
            self.wait(latest).await;
        }
    }

    /// Mends what has to be mended until then.
    pub(crate) async fn wait(&mut self, until: Instant) {
        loop {
            self.mend().await;
            self.look_after();
            let now = Instant::now();
            if now >= until {
                return;
            }
            tokio::time::sleep(LOOK.min(until - now)).await;
        }
    }

    fn is_broken(&self, what: Broken) -> bool {
        self.broken.iter().any(|(_, broken, _)| *broken == what)
    }

    fn runs(&self, who: Who) -> bool {
        let frozen = matches!(who, Who::Gateway(number) if self.is_broken(Broken::Frozen(number)));
        !frozen && !self.is_broken(Broken::Dead(who))
    }

    /// The first from the planned one on that runs.
    fn choose(&self, planned: &Planned) -> Option<Who> {
        let (count, make): (usize, fn(usize) -> Who) = match planned.kind {
            Kind::Controller => (2, Who::Controller),
            _ => (self.size.gateways, Who::Gateway),
        };
        (0..count).map(|n| make((planned.target + n) % count)).find(|who| self.runs(*who))
    }

    fn break_one(&mut self, planned: &Planned) -> bool {
        let Some(broken) = self.harm(planned) else { return false };
        eprintln!(
            "{:>6} s: {}: {broken:?} for {:.1?}",
            self.start.elapsed().as_secs(),
            planned.kind.name(),
            planned.lasts
        );
        let until = now() + planned.lasts.as_millis() as i64;
        self.faults.push(Fault { kind: planned.kind.name(), from: now(), until });
        let (until, fault) = (Instant::now() + planned.lasts, self.faults.len() - 1);
        self.broken.extend(broken.into_iter().map(|one| (until, one, Some(fault))));
        true
    }

    /// Does the harm and says what there is to mend. `None`: there was nothing to harm.
    fn harm(&mut self, planned: &Planned) -> Option<Vec<Broken>> {
        match planned.kind {
            Kind::Gateway | Kind::Controller => {
                let who = self.choose(planned)?;
                Some(vec![self.crash(who)])
            }
            Kind::AllGateways => {
                let all: Vec<Who> = (0..self.size.gateways).map(Who::Gateway).collect();
                self.forget(&all);
                Some(all.into_iter().map(|who| self.crash(who)).collect())
            }
            Kind::ShortFreeze | Kind::LongFreeze => {
                let who = self.choose(planned)?;
                let Who::Gateway(number) = who else { return None };
                self.world.roles.started(who).then(|| self.world.roles.freeze(who, true))?;
                Some(vec![Broken::Frozen(number)])
            }
            Kind::ClockAhead | Kind::ClockBehind => {
                let number = planned.target % self.size.gateways;
                (!self.is_broken(Broken::Clock(number))).then_some(())?;
                move_clock(self.world.roles.state(), number, planned.shift);
                Some(vec![Broken::Clock(number)])
            }
            Kind::Postgres => {
                self.world.roles.postgres.runs().then(|| self.world.roles.postgres.kill())?;
                Some(vec![Broken::Postgres])
            }
            Kind::Sessions => {
                self.world.roles.postgres.runs().then(|| self.world.roles.postgres.cut_sessions())?;
                Some(Vec::new())
            }
            Kind::Engine | Kind::EngineAndContainers => {
                (!self.is_broken(Broken::Engine)).then(|| self.world.engine.kill())?;
                if planned.kind == Kind::EngineAndContainers {
                    self.world.engine.kill_containers();
                }
                Some(vec![Broken::Engine])
            }
        }
    }

    /// What was wrong with these is over, because something worse comes: nobody starts them before that is mended.
    fn forget(&mut self, all: &[Who]) {
        for (_, _, fault) in self.broken.extract_if(.., |(_, broken, _)| match broken {
            Broken::Dead(who) => all.contains(who),
            Broken::Frozen(number) => all.contains(&Who::Gateway(*number)),
            _ => false,
        }) {
            if let Some(fault) = fault {
                self.faults[fault].until = now();
            }
        }
    }

    fn crash(&mut self, who: Who) -> Broken {
        if self.world.roles.started(who) {
            self.world.roles.crash(who);
        }
        Broken::Dead(who)
    }

    async fn mend(&mut self) {
        while let Some(place) = self.broken.iter().position(|(at, ..)| *at <= Instant::now()) {
            let (_, broken, fault) = self.broken[place];
            match broken {
                Broken::Dead(who) => self.world.roles.launch(who),
                Broken::Frozen(number) => self.world.roles.freeze(Who::Gateway(number), false),
                Broken::Clock(number) => move_clock(self.world.roles.state(), number, 0),
                Broken::Postgres => self.world.roles.postgres.start().await,
                Broken::Engine => self.world.engine.start().await,
            }
            self.broken.remove(place);
            if let Some(fault) = fault {
                self.faults[fault].until = now();
            }
        }
    }

    fn look_after(&mut self) {
        for who in World::everybody(self.size) {
            if let Some(status) = self.world.roles.ended(who) {
                eprintln!("{:>6} s: {who:?} ended by itself: {status}", self.start.elapsed().as_secs());
                self.fell.push(format!("{who:?}: {status}"));
                self.broken.push((Instant::now() + RESTART, Broken::Dead(who), None));
            }
        }
    }

    /// Kills every process of davit at once and starts them again.
    pub(crate) fn restart_everybody(&mut self) {
        for who in World::everybody(self.size) {
            if self.world.roles.started(who) {
                self.world.roles.crash(who);
            }
            self.world.roles.launch(who);
        }
    }
}
