//! What a campaign runs on: an engine of its own, Postgres, two controllers, gateways whose clocks can be moved.

use std::path::{Path, PathBuf};

use davit_e2e::{Api, Engine, Roles, Who};
use serde_json::json;

use crate::plan::Size;
use crate::recorder::PORT;

/// Debian's libfaketime; the variant for threads.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Everything that runs. Dropped in this order.
pub(crate) struct World {
    pub(crate) roles: Roles,
    pub(crate) engine: Engine,
    everybody: Vec<Who>,
}

impl Drop for World {
    /// What davit would tidy up in an orderly end goes with the engine.
    fn drop(&mut self) {
        for who in std::mem::take(&mut self.everybody) {
            if self.roles.started(who) {
                self.roles.crash(who);
            }
        }
    }
}

/// The functions: what is asked of them is in their events.
pub(crate) const WORK: &str = "work";
pub(crate) const MORTAL: &str = "mortal";
/// By policy: `run_once`, `skip`.
pub(crate) const TICKS: [&str; 2] = ["tick-once", "tick-skip"];

/// A kill costs an attempt, so those that are to succeed have more attempts than there are kills in their time.
const PATIENT: &str = "[retry]\nmax_attempts = 100\nbase_delay_seconds = 0\nmax_delay_seconds = 5";

impl World {
    /// Starts all of it; `None` without the rights for an engine of its own.
    pub(crate) async fn start(size: Size) -> Option<Self> {
        let engine = Engine::start_with(&["davit/runtime-python3.13:latest"]).await?;
        let host = engine.host();
        let roles = Roles::start_with(size.gateways, |who, state| settings(&host, who, state)).await;
        Some(Self { roles, engine, everybody: Self::everybody(size) })
    }

    /// Deploys the functions and adds the schedules' functions.
    pub(crate) async fn deploy(&self) {
        let cli = self.roles.cli();
        let code = include_str!("worker.py").replace("PORT", &PORT.to_string());
        cli.deploy_python(WORK, &format!("max_instances = 6\n{PATIENT}"), &code).await;
        let mortal = "max_instances = 2\n[retry]\nmax_attempts = 3\nbase_delay_seconds = 0";
        cli.deploy_python(MORTAL, mortal, &code).await;
        for name in TICKS {
            cli.deploy_python(name, &format!("max_instances = 4\n{PATIENT}"), &code).await;
        }
    }

    /// All processes of davit.
    pub(crate) fn everybody(size: Size) -> Vec<Who> {
        let gateways = (0..size.gateways).map(Who::Gateway);
        gateways.chain([Who::Controller(0), Who::Controller(1)]).collect()
    }
}

fn settings(engine: &str, who: Who, state: &Path) -> Vec<(String, String)> {
    let mut all = vec![
        ("DOCKER_HOST".to_owned(), engine.to_owned()),
        // Without its way to iptables davit leaves the firewall of this machine alone: the engine's bridge lies in
        // another network namespace, where the recorder is to be reached.
        ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        ("DAVIT_POOL_BASE".to_owned(), "1".to_owned()),
        // Of a hundred; those of killed processes are there for a moment longer.
        ("DAVIT_DB_CONNECTIONS".to_owned(), "12".to_owned()),
    ];
    if let Who::Gateway(number) = who
        && clocks_can_be_moved()
    {
        move_clock(state, number, 0);
        for (name, value) in [
            ("LD_PRELOAD", FAKETIME.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", clock(state, number).display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ] {
            all.push((name.to_owned(), value));
        }
    }
    all
}

/// Whether gateways can be given another time.
pub(crate) fn clocks_can_be_moved() -> bool {
    Path::new(FAKETIME).exists()
}

fn clock(state: &Path, gateway: usize) -> PathBuf {
    state.join(format!("clock-{gateway}"))
}

/// Sets a gateway's clock so many seconds ahead of the true time. It sees that within a second.
pub(crate) fn move_clock(state: &Path, gateway: usize, seconds: i64) {
    let (path, new) = (clock(state, gateway), state.join(format!("clock-{gateway}.new")));
    // It must never read half of it.
    std::fs::write(&new, format!("{seconds:+}\n")).expect("the file is written");
    std::fs::rename(new, path).expect("the file is moved");
}

/// Addresses of everything, and the token; for tasks of their own.
#[derive(Clone)]
pub(crate) struct Doors {
    gateways: Vec<Api>,
    controllers: Vec<Api>,
}

impl Doors {
    pub(crate) fn of(world: &World, size: Size) -> Self {
        let api = world.roles.api(0);
        let management =
            |which| Api { management: world.roles.address(Who::Controller(which)), ..api.clone() };
        Self {
            gateways: (0..size.gateways).map(|number| world.roles.api(number)).collect(),
            controllers: (0..2).map(management).collect(),
        }
    }

    /// A gateway, counted round.
    pub(crate) fn gateway(&self, number: u64) -> &Api {
        &self.gateways[number as usize % self.gateways.len()]
    }

    /// The first controller that answers, if one does.
    pub(crate) async fn get(&self, path: &str) -> davit_e2e::Answer {
        let first = self.controllers[0].get(path).await;
        if first.status != 0 && first.status != 503 { first } else { self.controllers[1].get(path).await }
    }

    /// The same for an order without a body.
    pub(crate) async fn post(&self, path: &str) -> davit_e2e::Answer {
        let first = self.controllers[0].post(path, &json!({})).await;
        if first.status != 0 && first.status != 503 {
            first
        } else {
            self.controllers[1].post(path, &json!({})).await
        }
    }

    /// Adds a schedule; there must be a controller.
    pub(crate) async fn add_schedule(&self, function: &str, name: &str, missed: &str) {
        let body = json!({"name": name, "spec": {"cron": "* * * * *", "missed": missed}});
        let path = format!("/v1/namespaces/default/functions/{function}/schedules");
        let answer = self.controllers[0].post(&path, &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}
