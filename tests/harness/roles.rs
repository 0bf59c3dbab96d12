//! davit as operators run it in parts: `davit controller` and any number of `davit gateway` as processes of
//! their own, over one Postgres, on one machine with one state directory.

use std::net::TcpListener;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, Room};
use crate::process::{Process, binary, http_client, state_dir};
use crate::{Api, Cli, Postgres, docker, eventually, pooled_python};

/// Ports below the range that the system hands out by itself, so that no outgoing connection takes one between
/// its choice and its use.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

pub(crate) fn free_port() -> u16 {
    loop {
        let start = 20_000 + (std::process::id() % 10_000) as u16;
        let port = start + NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Which process of [`Roles`]. Controller 1 is the standby; a story that uses [`Roles::lose_controller`] finds the two
/// exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A gateway.
    Gateway(usize),
    /// A controller.
    Controller(usize),
}

/// A process of one role, with the addresses it was given.
#[derive(Debug)]
struct Part {
    process: Process,
    public: u16,
    admin: u16,
}

/// A controller and its gateways.
#[derive(Debug)]
pub struct Roles {
    // Dropped in this order: gateways, controller, database, directory.
    gateways: Vec<Part>,
    controller: Part,
    /// A second controller, started by the stories that need one.
    standby: Part,
    /// The registry's Postgres.
    pub postgres: Postgres,
    state: tempfile::TempDir,
    /// Their place in the cluster, where one was chosen.
    room: Option<Room>,
    /// A client for HTTP calls that a test makes itself.
    pub http: reqwest::Client,
}

impl Roles {
    /// Starts a controller and so many gateways, and waits until all are ready.
    pub async fn start(gateways: usize) -> Self {
        Self::start_with(gateways, |_, _| Vec::new()).await
    }

    /// The same with more settings of each process; they are given the state directory.
    pub async fn start_with(gateways: usize, settings: impl Fn(Who, &Path) -> Vec<(String, String)>) -> Self {
        let (postgres, state) = (Postgres::start_new().await, state_dir());
        let room = Cluster::chosen().map(|cluster| cluster.room(state.path()));
        let make = |who: Who, gateway: u16| {
            let mut part = part(who, gateway, &postgres, state.path());
            part.process.settings.extend(room.iter().flat_map(|room| room.settings.clone()));
            part.process.settings.extend(settings(who, state.path()));
            part
        };
        let gateways: Vec<Part> = (0..gateways).map(|number| make(Who::Gateway(number), 0)).collect();
        let controller = make(Who::Controller(0), gateways[0].public);
        let standby = make(Who::Controller(1), gateways[0].public);
        let mut roles = Self { gateways, controller, standby, postgres, state, room, http: http_client() };
        roles.start_controller().await;
        for number in 0..roles.gateways.len() {
            roles.start_gateway(number).await;
        }
        roles
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// The client, pointed at the controller and the first gateway.
    pub fn cli(&self) -> Cli {
        let api = self.api(0);
        Cli {
            binary: binary(),
            state: self.state().to_owned(),
            token: None,
            settings: vec![
                ("DAVIT_URL".to_owned(), api.management),
                ("DAVIT_GATEWAY_URL".to_owned(), api.gateway),
            ],
        }
    }

    /// The HTTP APIs of the controller and of one gateway.
    pub fn api(&self, gateway: usize) -> Api {
        let token = std::fs::read_to_string(self.state().join("token")).expect("the token file");
        Api {
            http: self.http.clone(),
            management: format!("http://127.0.0.1:{}", self.controller.public),
            gateway: format!("http://127.0.0.1:{}", self.gateways[gateway].public),
            token: token.trim().to_owned(),
        }
    }

    /// What a gateway's admin listener shows about it.
    pub async fn status(&self, gateway: usize) -> Value {
        self.find_status(gateway).await.expect("the admin listener answers")
    }

    /// The same, if the gateway is there to answer.
    pub async fn find_status(&self, gateway: usize) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}/status", self.gateways[gateway].admin);
        let text = self.http.get(url).send().await.ok()?.text().await;
        Some(serde_json::from_str(&text.expect("a whole answer")).expect("the status is JSON"))
    }

    /// Waits until a gateway holds so many instances for the next cold starts.
    pub async fn pooled(&self, gateway: usize, at_least: u64) {
        eventually("a filled pool", async || {
            let status = self.status(gateway).await;
            if pooled_python(&status) >= at_least { Ok(()) } else { Err(status) }
        })
        .await;
    }

    /// The installation's id, by which the engine knows what belongs to it.
    pub fn installation(&self) -> String {
        self.postgres.ask("select id from installation").concat()
    }

    /// Starts the controller and waits until it is ready.
    pub async fn start_controller(&mut self) {
        ready(&self.http, &mut self.controller).await;
    }

    /// Starts the second controller beside the first and waits until it is ready.
    pub async fn start_standby(&mut self) {
        ready(&self.http, &mut self.standby).await;
    }

    /// Ends the first controller at once, as a crash would; from here on the second is the one that is spoken to.
    pub fn lose_controller(&mut self) {
        self.controller.process.kill();
        std::mem::swap(&mut self.controller, &mut self.standby);
    }

    /// Whether the controller that is spoken to is the one that acts.
    pub async fn acts(&self) -> bool {
        let url = format!("http://127.0.0.1:{}/status", self.controller.admin);
        let text = self.http.get(url).send().await.expect("the admin listener answers").text().await;
        let status: Value = serde_json::from_str(&text.expect("a whole answer")).expect("the status is JSON");
        status["reconcile"]["acting"] == true
    }

    /// Starts a gateway and waits until it is ready.
    pub async fn start_gateway(&mut self, number: usize) {
        ready(&self.http, &mut self.gateways[number]).await;
    }

    /// Ends the controller in an orderly way.
    pub fn stop_controller(&mut self) {
        self.controller.process.stop();
    }

    /// Ends a gateway at once, as a crash would.
    pub fn kill_gateway(&mut self, number: usize) {
        self.gateways[number].process.kill();
    }

    fn part(&mut self, who: Who) -> &mut Process {
        match who {
            Who::Gateway(number) => &mut self.gateways[number].process,
            Who::Controller(0) => &mut self.controller.process,
            Who::Controller(_) => &mut self.standby.process,
        }
    }

    /// Starts a process and waits for nothing: what it needs may be away.
    pub fn launch(&mut self, who: Who) {
        self.part(who).start();
    }

    /// Ends a process at once, as a crash would.
    pub fn crash(&mut self, who: Who) {
        self.part(who).kill();
    }

    /// Asks a process to end, and waits for nothing.
    pub fn ask_to_end(&mut self, who: Who) {
        self.part(who).signal(Signal::TERM);
    }

    /// Whether a process was started, and neither crashed nor was found ended since.
    pub fn started(&mut self, who: Who) -> bool {
        self.part(who).started()
    }

    /// How a process ended, if it has by itself; it may be launched again.
    pub fn ended(&mut self, who: Who) -> Option<ExitStatus> {
        self.part(who).ended()
    }

    /// Stops a process where it is, or lets it go on.
    pub fn freeze(&mut self, who: Who, frozen: bool) {
        self.part(who).signal(if frozen { Signal::STOP } else { Signal::CONT });
    }

    /// Where a process is spoken to: its public or management address.
    pub fn address(&self, who: Who) -> String {
        let part = match who {
            Who::Gateway(number) => &self.gateways[number],
            Who::Controller(0) => &self.controller,
            Who::Controller(_) => &self.standby,
        };
        format!("http://127.0.0.1:{}", part.public)
    }

    /// Everything that all processes have printed.
    pub fn log(&self) -> String {
        let parts = self.gateways.iter().chain([&self.controller, &self.standby]);
        parts.map(|p| format!("--- {:?} ---\n{}", p.process.log, p.process.log())).collect()
    }
}

/// A process that is not started yet.
fn part(who: Who, gateway: u16, postgres: &Postgres, state: &Path) -> Part {
    let (role, number) = match who {
        Who::Gateway(number) => ("gateway", number),
        Who::Controller(number) => ("controller", number),
    };
    let (public, admin) = (free_port(), free_port());
    let mut settings = vec![
        ("DAVIT_STATE_DIR".to_owned(), state.display().to_string()),
        ("DATABASE_URL".to_owned(), postgres.url()),
        ("DAVIT_ADMIN".to_owned(), format!("127.0.0.1:{admin}")),
    ];
    settings.extend(match role {
        "controller" => [
            ("DAVIT_MANAGEMENT".to_owned(), format!("127.0.0.1:{public}")),
            ("DAVIT_GATEWAY_URL".to_owned(), format!("http://127.0.0.1:{gateway}")),
        ]
        .to_vec(),
        _ => vec![("DAVIT_PUBLIC".to_owned(), format!("127.0.0.1:{public}"))],
    });
    let line = vec![binary().display().to_string(), role.to_owned()];
    let log = state.join(format!("{role}-{number}.log"));
    Part { process: Process::new(line, settings, log), public, admin }
}

async fn ready(http: &reqwest::Client, part: &mut Part) {
    part.process.start();
    eventually("the role to be ready", async || {
        part.process.must_run();
        match http.get(format!("http://127.0.0.1:{}/readyz", part.admin)).send().await {
            Ok(answer) if answer.status() == 200 => Ok(()),
            other => Err(format!("{other:?}\n{}", part.process.log())),
        }
    })
    .await;
}

impl Drop for Roles {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        // A failed story may hold a Postgres that is down; then the engine is asked by nobody's name.
        let installation = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.installation()));
        for gateway in &mut self.gateways {
            gateway.process.stop();
        }
        self.standby.process.stop();
        self.controller.process.stop();
        // A controller leaves the containers of living gateways alone, and what it did not get to is its next
        // start's work; here there is none.
        if let (Ok(installation), None) = (installation, &self.room) {
            docker::remove_all(&installation);
        }
        docker::unmount_below(self.state.path());
    }
}
