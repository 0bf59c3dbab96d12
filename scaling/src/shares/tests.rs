use proptest::prelude::*;

use super::*;

const FUNCTION: Id = 77;
const VERSION: Id = 78;

/// Gateways over one table of rows, which they read and write when the test says so.
struct Model {
    limit: u32,
    rows: BTreeMap<Id, Member>,
    gateways: BTreeMap<Id, Gateway>,
    joins: i64,
}

struct Gateway {
    view: View,
    /// What it has read and not yet acted upon.
    answer: Option<Vec<Member>>,
    held: u32,
    /// Its process is gone; its instances are not yet.
    dead: bool,
}

impl Model {
    fn new(limit: u32) -> Self {
        Self { limit, rows: BTreeMap::new(), gateways: BTreeMap::new(), joins: 0 }
    }

    fn join(&mut self, id: Id) {
        if self.rows.contains_key(&id) {
            return;
        }
        self.joins += 1;
        let join = self.joins;
        self.rows.insert(id, Member { id, join, adopted: Vec::new(), over: BTreeMap::new() });
        let view = View::joining(id, join);
        self.gateways.insert(id, Gateway { view, answer: None, held: 0, dead: false });
    }

    /// Its word goes into the table, and all rows come back; when they arrive is another matter.
    fn beat(&mut self, id: Id) {
        let Some(gateway) = self.gateways.get_mut(&id).filter(|g| !g.dead && g.answer.is_none()) else {
            return;
        };
        let own = self.rows.get_mut(&id).unwrap();
        own.adopted = gateway.view.adopted().to_vec();
        let over = gateway.held.saturating_sub(gateway.view.share(FUNCTION, self.limit));
        own.over = BTreeMap::from([(VERSION, over)]);
        gateway.answer = Some(self.rows.values().cloned().collect());
    }

    fn take_answer(&mut self, id: Id) {
        let Some(gateway) = self.gateways.get_mut(&id).filter(|g| !g.dead) else { return };
        if let Some(rows) = gateway.answer.take() {
            gateway.view = gateway.view.read(&rows);
        }
    }

    fn start(&mut self, id: Id) {
        let Some(gateway) = self.gateways.get_mut(&id).filter(|g| !g.dead) else { return };
        if gateway.held < gateway.view.most(FUNCTION, VERSION, self.limit) {
            gateway.held += 1;
        }
    }

    fn end(&mut self, id: Id) {
        if let Some(gateway) = self.gateways.get_mut(&id) {
            gateway.held = gateway.held.saturating_sub(1);
        }
    }

    /// The controller has removed its instances, and then the row.
    fn give_up(&mut self, id: Id) {
        if self.gateways.get(&id).is_some_and(|gateway| gateway.dead) {
            self.gateways.remove(&id);
            self.rows.remove(&id);
        }
    }

    fn step(&mut self, what: u8, id: Id) {
        match what {
            0 => self.join(id),
            1 | 2 => self.beat(id),
            3 | 4 => self.take_answer(id),
            5..=7 => self.start(id),
            8 => self.end(id),
            9 => {
                if let Some(gateway) = self.gateways.get_mut(&id) {
                    gateway.dead = true;
                }
            }
            _ => self.give_up(id),
        }
    }

    fn held(&self) -> u32 {
        self.gateways.values().map(|gateway| gateway.held).sum()
    }

    /// Everybody reads and says so until nothing changes any more, and what is too much ends.
    fn settle(&mut self) {
        let ids: Vec<Id> = self.gateways.keys().copied().collect();
        ids.iter().for_each(|id| self.give_up(*id));
        for _ in 0..4 {
            for id in &ids {
                self.take_answer(*id);
                self.beat(*id);
                self.take_answer(*id);
                if let Some(gateway) = self.gateways.get_mut(id) {
                    gateway.held = gateway.held.min(gateway.view.share(FUNCTION, self.limit));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// In any order of joining, reading, pausing between reading and acting, starting, ending, dying and being given up.
    #[test]
    fn no_moment_sees_more_than_the_limit(
        limit in 1u32..12,
        steps in prop::collection::vec((0u8..11, 0u128..5), 0..200),
    ) {
        let mut model = Model::new(limit);
        for (what, id) in steps {
            model.step(what, id);
            prop_assert!(model.held() <= limit, "{} of {limit}", model.held());
        }
    }

    /// And nothing of it is lost: when all have read, the shares are the whole limit, and as even as can be.
    #[test]
    fn once_all_have_read_the_whole_limit_is_dealt_out(
        limit in 1u32..12,
        steps in prop::collection::vec((0u8..11, 0u128..5), 0..100),
    ) {
        let mut model = Model::new(limit);
        model.join(9);
        steps.into_iter().for_each(|(what, id)| model.step(what, id));
        model.settle();
        let most = |g: &Gateway| g.view.most(FUNCTION, VERSION, limit);
        let shares: Vec<u32> = model.gateways.values().map(most).collect();
        prop_assert_eq!(shares.iter().sum::<u32>(), limit);
        prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
    }

    /// What the safety rests on: knowing of one more gives nobody more.
    #[test]
    fn another_gateway_gives_nobody_more(
        function in any::<u128>(), limit in 0u32..2_000, members in prop::collection::btree_set(any::<u128>(), 2..12),
    ) {
        let members: Vec<Id> = members.into_iter().collect();
        let share = |members: &[Id], me: Id| View { members: members.to_vec(), ..View::alone(me) }.share(function, limit);
        for me in &members[1..] {
            prop_assert!(share(&members, *me) <= share(&members[1..], *me));
        }
        // A minimum is never more than the limit that it is below.
        let view = View { members: members.clone(), ..View::alone(members[0]) };
        prop_assert!(view.share(function, limit / 2) <= view.share(function, limit));
    }

    #[test]
    fn who_comes_or_goes_moves_nobody_else(
        function in any::<u128>(), members in prop::collection::btree_set(any::<u128>(), 1..12), gone in any::<prop::sample::Index>(),
    ) {
        let all = order(function, members.iter().copied());
        let gone = all[gone.index(all.len())];
        let without: Vec<Id> = all.iter().copied().filter(|id| *id != gone).collect();
        prop_assert_eq!(order(function, members.into_iter().filter(|id| *id != gone)), without);
    }
}

#[test]
fn functions_are_spread_evenly_over_their_first_gateways() {
    let members: Vec<Id> = (1..=5).collect();
    let mut first: BTreeMap<Id, u32> = BTreeMap::new();
    // Ids of version 7 have most of their bits in common.
    let base = 0x0193_8d5c_0000_7000_8000_0000_0000_0000_u128;
    for function in 0..10_000 {
        *first.entry(order(base + function, members.iter().copied())[0]).or_default() += 1;
    }
    assert!(first.values().all(|n| (1_850..=2_150).contains(n)), "{first:?}");
}

#[test]
fn every_gateway_has_a_seat_while_there_are_enough_and_else_the_first_ones() {
    let members: Vec<Id> = (1..=4).collect();
    let share = |limit, me| View { members: members.clone(), ..View::alone(me) }.share(FUNCTION, limit);
    let shares = |limit| {
        order(FUNCTION, members.iter().copied()).into_iter().map(|me| share(limit, me)).collect::<Vec<_>>()
    };
    assert_eq!(shares(10), [3, 3, 2, 2]);
    assert_eq!(shares(4), [1, 1, 1, 1]);
    assert_eq!(shares(2), [1, 1, 0, 0]);
}

#[test]
fn who_joins_waits_for_the_others_and_for_what_they_hold_too_much() {
    let mut model = Model::new(4);
    model.join(1);
    model.beat(1);
    model.take_answer(1);
    (0..4).for_each(|_| model.start(1));
    assert_eq!(model.held(), 4, "alone it has everything");
    model.join(2);
    model.beat(2);
    model.take_answer(2);
    let most = |model: &Model| model.gateways[&2].view.most(FUNCTION, VERSION, 4);
    assert_eq!(most(&model), 0, "the other one does not know of it");
    (0..2).for_each(|_| {
        model.beat(1);
        model.take_answer(1);
        model.beat(2);
        model.take_answer(2);
    });
    assert!(model.gateways[&2].view.is_active());
    assert_eq!(most(&model), 0, "all four are still in use");
    model.end(1);
    model.beat(1);
    model.beat(2);
    model.take_answer(2);
    assert_eq!(most(&model), 1);
}
