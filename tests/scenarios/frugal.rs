//! What a call costs besides time: statements, calls of the engine, system calls. A clock says little about these on
//! a busy machine; counted, they are the same everywhere, and one more for each call fails a story.

use std::time::Duration;

use davit_e2e::{
    ANSWERING_SERVER, Davit, Gate, Postgres, SystemCalls, eventually, eventually_within, is_root,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SERVER_TOML: &str = "name = \"server\"\nruntime = \"python3.13\"\nkind = \"server\"\ncommand = [\"python3\", \"server.py\"]\naccess = \"public\"\nmax_instances = 1\n";
const HANDLER: &str = "
def handler(event, context):
    print('one line a call')
    return 'fine'
";
const HANDLER_TOML: &str = "access = \"public\"\npayload = \"body\"\nmax_instances = 1";

/// Calls a function so many times over one connection; each must be answered with 200.
async fn call(davit: &Davit, function: &str, calls: usize) {
    let mut stream = TcpStream::connect(davit.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!("GET /default/{function} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut answer = Vec::new();
    for _ in 0..calls {
        stream.write_all(request.as_bytes()).await.unwrap();
        answer.clear();
        while !whole(&answer) {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
}

/// Whether a head and as many bytes as it names are there.
fn whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| body.len() >= length.parse().unwrap())
}

/// A davit whose Postgres and engine are behind gates.
struct Gated {
    davit: Davit,
    statements: Gate,
    engine: Gate,
    postgres: Postgres,
}

/// What was asked of Postgres and of the engine.
#[derive(Debug, Clone, Copy)]
struct Asked {
    statements: u64,
    engine: u64,
}

impl Asked {
    fn at_most(self, statements: u64, engine: u64, when: &str) {
        assert!(
            self.statements <= statements && self.engine <= engine,
            "{when}: {self:?}, at most {statements} and {engine}"
        );
    }
}

const POOL: u64 = 4;
/// What loops ask by themselves before they stand at a shut gate; however long it stays shut, they ask no more.
const BY_THE_CLOCK: u64 = 20;

impl Gated {
    async fn up() -> Self {
        let postgres = Postgres::start_new().await;
        let (statements, engine) = (Gate::of_postgres(&postgres), Gate::of_engine());
        let settings = [
            ("DATABASE_URL", &*statements.database_url()),
            ("DOCKER_HOST", &*engine.docker_host()),
            ("DAVIT_POOL_BASE", &*POOL.to_string()),
            // A container that waits for the next deploy would come and go in between.
            ("DAVIT_BUILD_KEEP_WARM", "0s"),
        ];
        let davit = Davit::up_with(&settings).await;
        Self { davit, statements, engine, postgres }
    }

    /// Does `work` behind shut gates, then opens them and waits until `recorded`. What was asked while they were shut,
    /// and in all.
    async fn counted(&self, work: impl Future<Output = ()>, recorded: impl AsyncFn()) -> [Asked; 2] {
        let before = self.asked();
        self.statements.shut();
        self.engine.shut();
        work.await;
        let during = self.asked();
        self.statements.open();
        self.engine.open();
        recorded().await;
        let after = self.asked();
        [during, after].map(|now| Asked {
            statements: now.statements - before.statements,
            engine: now.engine - before.engine,
        })
    }

    fn asked(&self) -> Asked {
        Asked { statements: self.statements.asked(), engine: self.engine.asked() }
    }

    /// Waits until the registry knows of so many calls of a function in all.
    async fn knows(&self, function: &str, calls: usize) {
        let question = format!(
            "select coalesce(sum(u.calls), 0) from usage u join functions f on f.id = u.function_id where f.name = '{function}'"
        );
        eventually("the calls to be recorded", async || {
            let known = self.postgres.ask(&question);
            if known == [calls.to_string()] { Ok(()) } else { Err(known) }
        })
        .await;
    }

    async fn pool_is_full(&self) {
        // A busy machine starts containers one after the other.
        eventually_within(Duration::from_secs(150), "a full pool", async || {
            let status = self.davit.status().await;
            let ready = davit_e2e::pooled_python(&status);
            if ready >= POOL { Ok(()) } else { Err(status) }
        })
        .await;
    }
}

#[tokio::test]
async fn calls_ask_nothing_of_postgres_or_the_engine_and_are_recorded_in_batches() {
    let gated = Gated::up().await;
    let (davit, cli) = (&gated.davit, gated.davit.cli());
    cli.deploy_files(&[("davit.toml", SERVER_TOML), ("server.py", ANSWERING_SERVER)]).await;
    cli.deploy_python("handler", HANDLER_TOML, HANDLER).await;
    for function in ["server", "handler"] {
        call(davit, function, 1).await;
    }
    let mut made = 1;
    for calls in [100, 1_000] {
        gated.pool_is_full().await;
        made += calls;
        let work = async {
            call(davit, "server", calls).await;
            call(davit, "handler", calls).await;
        };
        let recorded = async || {
            gated.knows("server", made).await;
            gated.knows("handler", made).await;
        };
        let [during, all] = gated.counted(work, recorded).await;
        during.at_most(BY_THE_CLOCK, BY_THE_CLOCK, "while calls were answered");
        // The same for ten times as many. Measured: 13 and 20 statements, 1 and 5 calls of the engine, all of them of
        // what happens twice a second or less; the allowance is for a machine on which that takes a while.
        all.at_most(200, 200, "until the calls were recorded");
    }
}

#[tokio::test]
async fn a_pooled_cold_start_asks_nothing_before_it_answers_and_little_afterwards() {
    let gated = Gated::up().await;
    let (davit, cli) = (&gated.davit, gated.davit.cli());
    for n in 0..POOL {
        cli.deploy_python(&format!("cold-{n}"), HANDLER_TOML, HANDLER).await;
    }
    for starts in [0..1, 1..POOL] {
        gated.pool_is_full().await;
        let work = async {
            for n in starts.clone() {
                call(davit, &format!("cold-{n}"), 1).await;
            }
        };
        let recorded = async || {
            for n in starts.clone() {
                gated.knows(&format!("cold-{n}"), 1).await;
            }
            gated.pool_is_full().await;
        };
        let [during, all] = gated.counted(work, recorded).await;
        during.at_most(BY_THE_CLOCK, BY_THE_CLOCK, "while cold starts were answered");
        // Recording each start, and a new instance for the pool in its place. Measured: 19 statements and 2 calls of the
        // engine for one start, 50 and 12 for three.
        let starts = starts.end - starts.start;
        all.at_most(150 + 20 * starts, 50 + 8 * starts, "until the pool was full again");
    }
}

#[tokio::test]
async fn a_warm_call_of_a_server_costs_the_gateway_four_system_calls_and_its_waits() {
    if !is_root() {
        eprintln!("skipped: only root may watch another process's system calls");
        return;
    }
    const CALLS: usize = 1_000;
    let davit = Davit::up_with(&[("DAVIT_GATEWAY_THREADS", "1")]).await;
    davit.cli().deploy_files(&[("davit.toml", SERVER_TOML), ("server.py", ANSWERING_SERVER)]).await;
    call(&davit, "server", 100).await;
    let watched = SystemCalls::watch(davit.pid(), "lane-").await;
    call(&davit, "server", CALLS).await;
    let seen = watched.stop();
    let of = |names: &[&str]| -> usize {
        seen.iter().filter(|(name, _)| names.iter().any(|n| name.starts_with(n))).map(|(_, n)| n).sum()
    };
    let (transfers, waits) = (of(&["recvfrom", "sendto"]), of(&["epoll_"]));
    let others = seen.values().sum::<usize>() - transfers - waits;
    // Measured for each call: 4.00, 2.00 and 0.03. Where the machine pauses between two calls the instance is frozen and
    // thawed, which costs waits and others; neither allowance has room for one more in every call.
    assert!((4 * CALLS..=4 * CALLS + CALLS / 5).contains(&transfers), "{CALLS} calls: {seen:?}");
    assert!(waits < 3 * CALLS && others < CALLS, "{CALLS} calls: {seen:?}");
}
