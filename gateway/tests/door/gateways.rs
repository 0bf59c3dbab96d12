//! Several gateways: whose instances serve a call, wherever it comes in, and how many there are in all.

use std::sync::atomic::Ordering::SeqCst;

use davit_api::{GatewayId, VersionId};
use davit_gateway::passing::{Inner, Relay, serve as serve_peers};
use davit_gateway::peers::Known;
use davit_registry::{GatewayPeer, GatewayWord};
use futures_util::future::join_all;

use super::*;

const KEY: [u8; 32] = [9; 32];

/// Gateways that know of each other; the order is the function's.
struct Several {
    gateways: Vec<One>,
    rows: Vec<GatewayPeer>,
}

struct One {
    id: GatewayId,
    known: Known,
    door: Door,
    leaving: CancellationToken,
    hard: CancellationToken,
}

impl Several {
    /// So many, ordered as `first` orders them.
    async fn new(count: usize, first: &LiveVersion, versions: &[Arc<LiveVersion>]) -> Self {
        let registry = no_registry().await;
        let mut several = Self { gateways: Vec::new(), rows: Vec::new() };
        let ids: Vec<u128> = (0..count).map(|_| GatewayId::new().0.as_u128()).collect();
        let order = davit_scaling::shares::order(first.function_id.0.as_u128(), ids);
        for (number, id) in order.into_iter().enumerate() {
            let id = GatewayId(uuid::Uuid::from_u128(id));
            let mut world = World::new(|_| {});
            let (leaving, hard) = (CancellationToken::new(), CancellationToken::new());
            let routes = Routes::empty();
            routes.store(Table::build(versions.to_vec(), HashMap::new()));
            let pins = Pins::new(routes.clone(), registry.clone(), Arc::new(MasterKey::from_bytes([7; 32])));
            let passing = Arc::new(Relay::new(id, world.instances.clone(), KEY, hard.clone()));
            tokio::spawn(passing.clone().tidy(hard.clone()));
            world.corridor = world.corridor.clone().with_passing(passing);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let inner = Inner::new(id, KEY, routes.clone(), pins, world.corridor.clone(), leaving.clone());
            let lanes = Arc::new(Lanes::start(1).unwrap());
            tokio::spawn(serve_peers(listener, inner, lanes, leaving.clone(), hard.clone()));
            let door = open(registry.clone(), world, routes, |_| {}, None).await;
            let joined = number as i64 + 1;
            let word = GatewayWord { address: Some(address), ..Default::default() };
            several.rows.push(GatewayPeer { id, joined, alive: true, word });
            several.gateways.push(One { id, known: Known::joining(id, joined), door, leaving, hard });
        }
        several.meet();
        several
    }

    /// Each reads what the others say, until all have read what all say.
    fn meet(&mut self) {
        for _ in 0..2 {
            for (at, gateway) in self.gateways.iter_mut().enumerate() {
                gateway.known = gateway.known.read(gateway.id, &self.rows);
                self.rows[at].word.adopted = gateway.known.view.adopted().to_vec();
            }
        }
        for gateway in &mut self.gateways {
            gateway.known = gateway.known.read(gateway.id, &self.rows);
            assert!(gateway.known.view.is_active());
            gateway.door.world.instances.adopt(gateway.known.clone());
        }
    }

    fn world(&self, at: usize) -> &World {
        &self.gateways[at].door.world
    }

    fn claims(&self) -> Vec<u64> {
        self.gateways.iter().map(|one| one.door.world.metrics.claims.get()).collect()
    }

    fn there(&self, version: &Arc<LiveVersion>) -> usize {
        let counts = self.gateways.iter().map(|one| one.door.world.instances.fleet(version).counts());
        counts.map(|counts| counts.active + counts.frozen + counts.starting).sum()
    }
}

#[tokio::test]
async fn calls_gather_at_one_gateway_wherever_they_come_in() {
    let v = version(|s| s.max_instances = 6);
    let several = Several::new(3, &v, std::slice::from_ref(&v)).await;
    for at in 0..3 {
        several.world(at).container(&v).await;
    }
    for n in 0..12_usize {
        let answer = several.world(n % 3).call(&v, json!({"n": n, "log": "a line"})).await.unwrap();
        assert_eq!(answer["event"]["n"], n);
    }
    assert_eq!(several.claims(), [1, 0, 0], "one cold start, not three");
    let passed: Vec<u64> = (0..3).map(|at| several.world(at).metrics.passed_on.get()).collect();
    assert_eq!(passed, [0, 4, 4]);
    // What the function says about its failure comes back as it would from here.
    let failed = several.world(2).call(&v, json!({"fail": true})).await.unwrap_err();
    let near = several.world(0).call(&v, json!({"fail": true})).await.unwrap_err();
    assert_eq!(failed, near);
    assert!(failed.started);
}

#[tokio::test]
async fn a_limit_holds_over_all_gateways_and_all_of_it_can_be_used_from_each() {
    let v = version(|s| s.max_instances = 4);
    let several = Several::new(2, &v, std::slice::from_ref(&v)).await;
    for at in [0, 1] {
        for _ in 0..5 {
            several.world(at).container(&v).await;
        }
    }
    // Twelve long calls, all at one gateway.
    let most = std::sync::atomic::AtomicUsize::new(0);
    let calls = join_all((0..12).map(|_| several.world(1).call(&v, json!({"sleep": 300}))));
    let looks = async {
        loop {
            most.fetch_max(several.there(&v), SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let answers = tokio::select! {
        answers = calls => answers,
        () = looks => unreachable!(),
    };
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(most.load(SeqCst), 4);
    assert_eq!(several.claims(), [2, 2]);
}

#[tokio::test]
async fn who_has_no_share_of_a_function_still_answers_for_it() {
    let v = version(|s| s.max_instances = 1);
    let several = Several::new(3, &v, std::slice::from_ref(&v)).await;
    for at in 0..3 {
        several.world(at).container(&v).await;
    }
    // More than there is a place for: they wait where the one instance is.
    let calls = (0..9).map(|n| several.world(n % 3).call(&v, json!({"sleep": 20})));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(several.claims(), [1, 0, 0]);
}

#[tokio::test]
async fn a_gateway_that_is_away_or_leaves_costs_no_call() {
    let v = version(|_| {});
    let several = Several::new(2, &v, std::slice::from_ref(&v)).await;
    for at in [0, 1] {
        several.world(at).container(&v).await;
    }
    several.world(1).call(&v, json!({})).await.unwrap();
    assert_eq!(several.claims(), [1, 0]);
    // A call that the leaving one has is carried out to its end …
    let under_way = several.world(1).call(&v, json!({"sleep": 400}));
    let after = async {
        until("it runs there", || several.world(0).instances.fleet(&v).counts().in_use == 1).await;
        several.gateways[0].leaving.cancel();
        // … and the next ones find no door there, and are carried out here.
        for _ in 0..5 {
            several.world(1).call(&v, json!({})).await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(under_way, after);
    answer.unwrap();
    assert_eq!(several.claims(), [1, 1]);

    // One that died at once: nobody listens, and what lies idle is closed.
    let w = version(|s| s.handler = "other".into());
    let several = Several::new(2, &w, std::slice::from_ref(&w)).await;
    several.world(0).container(&w).await;
    several.world(1).container(&w).await;
    several.world(1).call(&w, json!({})).await.unwrap();
    several.gateways[0].hard.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..5 {
        several.world(1).call(&w, json!({})).await.unwrap();
    }
    assert_eq!(several.claims(), [1, 1]);
}

#[tokio::test]
async fn requests_to_servers_pass_through_both_ways_and_a_stranger_gets_nothing() {
    let v = public(|s| (s.kind, s.concurrency, s.max_instances) = (FunctionKind::Server, 8, 1));
    let several = Several::new(2, &v, std::slice::from_ref(&v)).await;
    several.world(0).container_with(&v, Some(server().await)).await;
    let door = &several.gateways[1].door;
    let answer =
        door.raw(b"POST /shop/orders/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("hello"), "{answer}");
    assert!(!answer.to_lowercase().contains("x-davit-note"), "{answer}");
    // A body too long to be held.
    let long = "x".repeat(200_000);
    let head =
        format!("POST /shop/orders/echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", long.len());
    let answer = door.raw(format!("{head}{long}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&long), "{}", &answer[..200]);
    let dripped = door.raw(b"GET /shop/orders/drip HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(dripped.contains("one") && dripped.contains("two"), "{dripped}");
    let upgrade = b"GET /shop/orders/ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nping";
    let joined = door.raw(upgrade).await;
    assert!(joined.starts_with("HTTP/1.1 101") && joined.ends_with("ping"), "{joined}");
    assert_eq!(several.world(0).metrics.claims.get(), 1);
    assert_eq!(several.world(1).metrics.claims.get(), 0);

    let peers: SocketAddr = several.rows[0].word.address.as_ref().unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(peers).await.unwrap();
    stream.write_all(b"POST /event HTTP/1.1\r\nHost: h\r\nX-Davit-Ticket: {}\r\nX-Davit-Proof: 00\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 403") && told.ends_with("\r\n\r\n"), "{told}");
}

#[tokio::test]
async fn who_joins_starts_nothing_before_the_others_know_and_what_they_hold_has_ended() {
    let v = version(|s| s.max_instances = 2);
    let mut several = Several::new(1, &v, std::slice::from_ref(&v)).await;
    for _ in 0..2 {
        several.world(0).container(&v).await;
    }
    let calls = join_all((0..2).map(|_| several.world(0).call(&v, json!({"sleep": 500}))));
    let joins = async {
        until("both run", || several.world(0).instances.fleet(&v).counts().in_use == 2).await;
        let me = several.gateways[0].known.clone();
        let (newcomer, join) = (GatewayId::new(), 99);
        let row = GatewayPeer { id: newcomer, joined: join, alive: true, word: GatewayWord::default() };
        let rows = [several.rows[0].clone(), row];
        several.world(0).instances.adopt(me.read(several.gateways[0].id, &rows));
        let over = several.world(0).instances.over();
        assert_eq!(
            over,
            std::collections::BTreeMap::from([(v.version_id, 1_u32)])
                as std::collections::BTreeMap<VersionId, u32>
        );
    };
    let (answers, ()) = tokio::join!(calls, joins);
    assert!(answers.iter().all(Result::is_ok), "calls that run are never cut for it");
    until("one goes when its call has ended", || several.there(&v) == 1).await;
    assert!(several.world(0).instances.over().is_empty());
    several.rows.clear();
}
