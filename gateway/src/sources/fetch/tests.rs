//! A source and a ledger in memory that fail wherever a real one can: before they did it, after they did it, and after
//! the answer was given up. Whatever happens, each event is accepted exactly once, in order.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

/// What the next call of a part comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Well,
    /// Nothing was done.
    Before,
    /// It was done, and the answer was lost.
    After,
    /// Nothing was done yet: it is done later, when nobody waits for it any more.
    Late,
}

#[derive(Default)]
struct World {
    /// Events that there are, and those of them that are gone.
    events: u32,
    acknowledged: BTreeSet<u32>,
    /// Who holds the source, and the number of the holding.
    holder: usize,
    fence: u64,
    pending: Vec<String>,
    accepted: Vec<u32>,
    /// Deliveries whose callers have given up.
    late: Vec<(u64, Vec<u32>)>,
    fates: Vec<Fate>,
}

impl World {
    fn fate(&mut self) -> Fate {
        self.fates.pop().unwrap_or(Fate::Well)
    }

    fn accept(&mut self, fence: u64, positions: Vec<u32>) -> bool {
        if fence != self.fence {
            return false;
        }
        self.pending = positions.iter().map(u32::to_string).collect();
        self.accepted.extend(positions);
        true
    }
}

type Shared = Arc<Mutex<World>>;

struct Memory(Shared);

impl Source for Memory {
    async fn poll(&mut self, most: u32) -> Result<Vec<Fetched>, String> {
        let mut world = self.0.lock();
        if world.fate() != Fate::Well {
            return Err("not polled".into());
        }
        let left = (0..world.events).filter(|n| !world.acknowledged.contains(n)).take(most as usize);
        Ok(left
            .map(|n| Fetched {
                position: n.to_string(),
                payload: Vec::new(),
                ordering_key: None,
                age: Duration::ZERO,
            })
            .collect())
    }

    async fn acknowledge(&mut self, positions: &[String]) -> Result<(), String> {
        let mut world = self.0.lock();
        let fate = world.fate();
        if fate != Fate::Before {
            world.acknowledged.extend(positions.iter().map(|p| p.parse::<u32>().unwrap()));
        }
        if fate == Fate::Well { Ok(()) } else { Err("not acknowledged".into()) }
    }
}

struct Book {
    world: Shared,
    me: usize,
}

impl Ledger for Book {
    type Holding = u64;

    async fn begin(&self) -> Result<Option<(u64, Vec<String>)>, ApiError> {
        let mut world = self.world.lock();
        let fate = world.fate();
        if world.holder != self.me {
            return Ok(None);
        }
        if fate != Fate::Before {
            world.fence += 1;
        }
        if fate == Fate::Well { Ok(Some((world.fence, world.pending.clone()))) } else { Err(lost()) }
    }

    async fn deliver(&self, holding: u64, events: Vec<Fetched>) -> Result<bool, ApiError> {
        let mut world = self.world.lock();
        let positions: Vec<u32> = events.iter().map(|e| e.position.parse().unwrap()).collect();
        match world.fate() {
            Fate::Well => Ok(world.accept(holding, positions)),
            Fate::Before => Err(lost()),
            Fate::After => {
                world.accept(holding, positions);
                Err(lost())
            }
            Fate::Late => {
                world.late.push((holding, positions));
                Err(lost())
            }
        }
    }

    async fn open(&self, _: u32) -> Result<u32, ApiError> {
        Ok(0)
    }

    async fn report(&self, _: u64, _: SourceState, _: Option<Duration>, _: Option<&str>) {}
}

fn lost() -> ApiError {
    ApiError::new(davit_api::ErrorCode::Unavailable, "no answer")
}

fn fetch(world: &Shared, me: usize) -> Fetch<Memory, Book> {
    let pace = Pace { batch: 3, batch_wait: Duration::ZERO, backlog: 1_000_000 };
    Fetch::new(Memory(world.clone()), Book { world: world.clone(), me }, pace)
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Move {
    /// Events come.
    Come(u32),
    /// One of the gateways makes a step, whether it still holds the source or not.
    Step(usize),
    /// One dies and comes back knowing nothing.
    Die(usize),
    /// Another one takes over.
    Take(usize),
    /// A delivery that somebody gave up is carried out.
    Late,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        2 => (1..5_u32).prop_map(Move::Come),
        12 => (0..3_usize).prop_map(Move::Step),
        1 => (0..3_usize).prop_map(Move::Die),
        1 => (0..3_usize).prop_map(Move::Take),
        2 => Just(Move::Late),
    ];
    prop::collection::vec(one, 0..120)
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let one = prop_oneof![4 => Just(Fate::Well), 1 => Just(Fate::Before), 1 => Just(Fate::After), 1 => Just(Fate::Late)];
    prop::collection::vec(one, 0..120)
}

proptest! {
    #[test]
    fn every_event_is_accepted_once_and_in_order_whatever_fails_and_whoever_dies(moves in moves(), fates in fates()) {
        let world = Shared::default();
        world.lock().fates = fates;
        let mut gateways: Vec<_> = (0..3).map(|me| fetch(&world, me)).collect();
        for one in moves {
            match one {
                Move::Come(n) => world.lock().events += n,
                Move::Step(me) => {
                    let step = gateways[me].step().now_or_never().unwrap();
                    if step == Ok(Step::Lost) {
                        gateways[me] = fetch(&world, me);
                    }
                }
                Move::Die(me) => gateways[me] = fetch(&world, me),
                Move::Take(me) => {
                    let mut world = world.lock();
                    world.holder = me;
                    world.fence += 1;
                }
                Move::Late => {
                    let mut world = world.lock();
                    if let Some((fence, positions)) = world.late.pop() {
                        world.accept(fence, positions);
                    }
                }
            }
        }
        // Everything goes well from here on.
        world.lock().fates.clear();
        let holder = world.lock().holder;
        for _ in 0..2_000 {
            if gateways[holder].step().now_or_never().unwrap() == Ok(Step::Idle) {
                break;
            }
        }
        let world = world.lock();
        prop_assert_eq!(&world.accepted, &(0..world.events).collect::<Vec<_>>());
        prop_assert_eq!(world.acknowledged.len(), world.events as usize, "and everything is acknowledged");
    }
}

#[tokio::test(start_paused = true)]
async fn a_function_that_has_enough_to_do_is_left_alone_and_an_error_is_tried_again_ever_later() {
    struct Full(Mutex<(u32, Vec<SourceState>)>);
    impl Ledger for Arc<Full> {
        type Holding = ();
        async fn begin(&self) -> Result<Option<((), Vec<String>)>, ApiError> {
            Ok(Some(((), Vec::new())))
        }
        async fn deliver(&self, _: (), _: Vec<Fetched>) -> Result<bool, ApiError> {
            Ok(true)
        }
        async fn open(&self, most: u32) -> Result<u32, ApiError> {
            let mut full = self.0.lock();
            full.0 += 1;
            Ok(if full.0 < 5 { most } else { 0 })
        }
        async fn report(&self, (): (), state: SourceState, _: Option<Duration>, _: Option<&str>) {
            self.0.lock().1.push(state);
        }
    }
    struct Down(Arc<Mutex<Vec<Instant>>>);
    impl Source for Down {
        async fn poll(&mut self, _: u32) -> Result<Vec<Fetched>, String> {
            self.0.lock().push(Instant::now());
            Err("down".into())
        }
        async fn acknowledge(&mut self, _: &[String]) -> Result<(), String> {
            Ok(())
        }
    }
    let (full, polls) = (Arc::new(Full(Mutex::default())), Arc::new(Mutex::default()));
    let pace = Pace { batch: 10, batch_wait: Duration::ZERO, backlog: 10 };
    let began = Instant::now();
    let fetch = Fetch::new(Down(polls.clone()), full.clone(), pace);
    let run = fetch.run(|_| {});
    let _ = tokio::time::timeout(Duration::from_secs(600), run).await;
    let polls = polls.lock();
    assert!(polls[0] - began >= HELD_BACK * 4, "nothing is polled while it is held back");
    assert!((20..60).contains(&polls.len()), "bounded, and not given up: {}", polls.len());
    let gaps: Vec<Duration> = polls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap <= TROUBLE.1 + Duration::from_millis(10)), "{gaps:?}");
    let said = &full.0.lock().1;
    assert_eq!(said[..2], [SourceState::HeldBack, SourceState::Failing]);
    assert!(said.len() < 30, "an error that stays is not said each time: {}", said.len());
}
