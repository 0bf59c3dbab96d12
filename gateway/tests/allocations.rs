//! How often a warm call asks the allocator for memory, on each way through the gateway. It does not depend on how
//! fast the machine is, and it grows with every copy, box and string that is added to the way of a call.
//!
//! The allocator counts for the whole process, so the container is played by another process: this binary once more.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code; one process speaks to the other by its output"
)]

mod support;

use std::alloc::System;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use davit_api::{Access, FunctionKind, InstanceId};
use davit_gateway::config::HttpLimits;
use davit_gateway::dispatch::Acceptor;
use davit_gateway::http::{Door, Parts, Public, serve};
use davit_gateway::lanes::Lanes;
use davit_gateway::routes::{Pins, Routes, Table, gather};
use davit_gateway::version::LiveVersion;
use davit_registry::testing::TestDatabase;
use davit_registry::{MasterKey, RoutedAlias};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::{World, agent, take_in, version};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Tells the other process where to listen.
const SOCKET: &str = "DAVIT_TEST_AGENT_SOCKET";
/// Enough that what happens once a second does not show in a call's share.
const CALLS: usize = 2_000;

/// One way through the gateway: what is sent, and the most that a call may allocate on it.
struct Way {
    name: &'static str,
    kind: FunctionKind,
    request: &'static str,
    most: f64,
}

/// The bounds are a little above what was measured when they were set, which stands beside them.
const WAYS: [Way; 3] = [
    Way {
        name: "express, to a server",
        kind: FunctionKind::Server,
        request: "GET /shop/orders/x?a=b HTTP/1.1\r\nhost: a.example.com\r\naccept: */*\r\n\r\n",
        // Measured: 3.
        most: 3.5,
    },
    Way {
        name: "usual, to a server",
        kind: FunctionKind::Server,
        request: "GET /shop/orders/x?a=b HTTP/1.1\r\nhost: a.example.com\r\naccept: */*\r\nte: trailers\r\n\r\n",
        // Measured: 14.
        most: 15.5,
    },
    Way {
        name: "to a handler",
        kind: FunctionKind::Handler,
        request: "GET /shop/orders/x?a=b HTTP/1.1\r\nhost: a.example.com\r\naccept: */*\r\n\r\n",
        // Measured: 139.
        most: 150.0,
    },
];

#[tokio::test]
async fn a_warm_call_allocates_no_more_than_it_did() {
    if std::env::var_os(SOCKET).is_some() {
        return;
    }
    for way in &WAYS {
        // Choosing between versions by a header, and counting for a canary, takes no memory.
        for split in [false, true] {
            let took = allocations(way, split).await;
            let name = way.name;
            assert!(took <= way.most, "{name}, {split}: {took:.2} allocations a call, at most {}", way.most);
        }
    }
}

/// Allocations and reallocations of one call.
async fn allocations(way: &'static Way, split: bool) -> f64 {
    let world = World::new(|_| {});
    let v = version(|s| {
        (s.access, s.kind, s.max_instances) = (Access::Public, way.kind, 1);
    });
    let lanes = Arc::new(Lanes::start(1).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let other = OtherSide::start(&dir.path().join("agent.sock"));
    // On the lane, as the gateway's own instances.
    let (say, said) = tokio::sync::oneshot::channel();
    let (instances, key, socket) = (world.instances.clone(), (*v.pool_key).clone(), other.socket.clone());
    lanes.carry(async move {
        take_in(instances, InstanceId::new(), key, socket).await;
        say.send(()).unwrap();
    });
    said.await.unwrap();
    let address = door(&world, &v, lanes, split).await;
    let (warm, took) = tokio::task::spawn_blocking(move || {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_nodelay(true).unwrap();
        let warm = call(&mut client, way.request, CALLS / 4);
        let region = Region::new(ALLOCATOR);
        call(&mut client, way.request, CALLS);
        let seen = region.change();
        (warm, seen.allocations + seen.reallocations)
    })
    .await
    .unwrap();
    assert_eq!(warm, CALLS / 4, "the calls before it are answered");
    world.stop.cancel();
    took as f64 / CALLS as f64
}

/// So many calls, one after the other, with 200 each; takes no memory itself.
fn call(client: &mut TcpStream, request: &str, calls: usize) -> usize {
    let mut answer = [0; 4096];
    for _ in 0..calls {
        client.write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        while !answer[..length].windows(4).any(|end| end == b"\r\n\r\n") || !whole(&answer[..length]) {
            let n = client.read(&mut answer[length..]).unwrap();
            assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&answer[..length]));
            length += n;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..length]));
    }
    calls
}

/// Whether a head and as many bytes as it names are there.
fn whole(answer: &[u8]) -> bool {
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let name = b"content-length: ";
    let at = answer[..head].windows(name.len()).position(|w| w.eq_ignore_ascii_case(name)).unwrap();
    let digits = answer[at + name.len()..].iter().take_while(|b| b.is_ascii_digit());
    answer.len() - head == digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
}

async fn door(world: &World, v: &Arc<LiveVersion>, lanes: Arc<Lanes>, split: bool) -> SocketAddr {
    let routes = Routes::empty();
    let canary = (davit_api::CanaryId::new(), 0);
    let alias = RoutedAlias {
        function_id: v.function_id,
        name: "live".parse().unwrap(),
        shares: vec![(v.version_id, 100)],
        sticky: Some("header:accept".parse().unwrap()),
        public: false,
        canary: Some(canary),
    };
    let aliases = if split { vec![alias] } else { Vec::new() };
    let live = vec![v.clone()];
    let aliases = gather(&live, Vec::new(), aliases);
    routes.store(Table::build(live, HashMap::new()).with_aliases(aliases));
    if split {
        let measures = world.instances.shared().recorder.measures();
        measures.watch(HashMap::from([(v.version_id, canary)]));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let registry = TestDatabase::new().await.registry().clone();
    registry.close().await;
    let public = Arc::new(Public::new(Parts {
        pins: Pins::new(routes.clone(), registry.clone(), Arc::new(MasterKey::from_bytes([7; 32]))),
        routes,
        corridor: world.corridor.clone(),
        acceptor: Acceptor::spawn(registry.clone(), Arc::default()),
        registry,
        metrics: world.metrics.clone(),
        parked_bytes: 1 << 30,
        port: address.port(),
    }));
    let (stop, hard) = (world.stop.clone(), CancellationToken::new());
    let door = Door { public, limits: HttpLimits::default(), tls: None, stop, hard };
    tokio::spawn(serve(listener, door, lanes));
    address
}

/// The process that plays the container.
struct OtherSide {
    process: Child,
    socket: PathBuf,
}

impl OtherSide {
    fn start(socket: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_other_side", "--nocapture"])
            .env(SOCKET, socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("it listens") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "the other side ended");
        }
        Self { process, socket: socket.to_owned() }
    }
}

impl Drop for OtherSide {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not a test in itself: the container of the one above, when that has started it.
#[tokio::test]
async fn the_other_side() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let server = server();
    let listener = UnixListener::bind(socket).unwrap();
    println!("it listens");
    // Ends when the gateway lets go.
    agent(listener, Arc::default(), Some(server)).await;
}

/// A server that says the same to every request.
fn server() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                // A request this small comes in one piece.
                while stream.read(&mut head).is_ok_and(|n| n > 0) {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}
