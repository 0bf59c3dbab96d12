//! The davit under measurement: `davit up` in a state directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use davit_e2e::{Cluster, Room};
use serde_json::Value;

use crate::sql::Sql;

/// What is particular about a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Setup {
    /// Cores it may use, as `taskset` names them; none means all.
    pub(crate) cores: Option<&'static str>,
    /// Warm containers kept for each runtime; none means the default.
    pub(crate) pool_base: Option<u32>,
    /// Its instances are pods of the cluster that was chosen, not containers.
    pub(crate) on_cluster: bool,
}

/// Memory of an instance whose owner set nothing, as the status page shows it.
const USUAL_MB: u64 = 256;
/// Three pools of eight at a third of this; nothing is allocated before a function uses it.
const POOL_MEMORY_MB: &str = "20000";
/// How long the platform may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long nothing must happen before the platform counts as at rest.
const REST: Duration = Duration::from_millis(700);

/// A running davit; stopped when dropped.
pub(crate) struct Platform {
    pub(crate) setup: Setup,
    /// Its registry.
    pub(crate) sql: Sql,
    binary: PathBuf,
    state: tempfile::TempDir,
    child: Child,
    endpoint: Value,
    /// Its place in the cluster.
    pub(crate) room: Option<Room>,
}

impl Platform {
    /// Starts it and waits for its endpoints.
    pub(crate) async fn up(binary: &Path, setup: Setup) -> crate::Result<Self> {
        let binary = std::fs::canonicalize(binary).map_err(|e| format!("{}: {e}", binary.display()))?;
        let state = tempfile::Builder::new().prefix("davit-bench-").tempdir_in("/tmp")?;
        let cluster = setup.on_cluster.then(Cluster::chosen).flatten();
        let room = cluster.map(|cluster| cluster.room(state.path()));
        let child = spawn(&binary, state.path(), setup, room.as_ref())?;
        let sql = Sql::of(state.path());
        let mut platform = Self { setup, sql, binary, state, child, endpoint: Value::Null, room };
        platform.started().await?;
        Ok(platform)
    }

    /// Ends it and starts it again: the same functions in a process that has done nothing yet. Milliseconds from its
    /// start until it says that it is ready.
    pub(crate) async fn restart(&mut self) -> crate::Result<f64> {
        self.end();
        std::fs::remove_file(self.state.path().join("endpoint.json")).or_else(|error| {
            match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }
        })?;
        let start = Instant::now();
        self.child = spawn(&self.binary, self.state.path(), self.setup, self.room.as_ref())?;
        self.started().await?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }

    async fn started(&mut self) -> crate::Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(120) {
            if let Ok(text) = std::fs::read_to_string(self.state.path().join("endpoint.json")) {
                self.endpoint = serde_json::from_str(&text)?;
                if self.admin("/readyz").await.is_ok() {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let log = std::fs::read_to_string(self.state.path().join("up.log"))?;
        Err(format!("davit did not start:\n{log}").into())
    }

    fn end(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The gateway's public port.
    pub(crate) fn gateway(&self) -> crate::Result<u16> {
        let url = self.endpoint["gateway_url"].as_str().ok_or("no gateway_url")?;
        Ok(url.trim_end_matches('/').rsplit(':').next().ok_or("no port")?.parse()?)
    }

    /// The first administrator's token.
    pub(crate) fn token(&self) -> crate::Result<String> {
        Ok(std::fs::read_to_string(self.state.path().join("token"))?.trim().to_owned())
    }

    /// Makes the other of a function's two versions live through the management API. Milliseconds from the request
    /// until the gateway serves it.
    pub(crate) async fn roll(&self, function: &str, to: u32) -> crate::Result<f64> {
        let of = |field: &str| {
            let base = self.endpoint[field].as_str().ok_or("no such endpoint")?.trim_end_matches('/');
            crate::Result::Ok(format!("{base}/v1/namespaces/default/functions/{function}"))
        };
        let (http, token) = (reqwest::Client::new(), self.token()?);
        let start = Instant::now();
        let change = http.post(format!("{}/rollback", of("management_url")?)).bearer_auth(&token);
        let change = change.header("content-type", "application/json").body(format!("{{\"to\":{to}}}"));
        change.send().await?.error_for_status()?;
        while start.elapsed() < Duration::from_secs(60) {
            let live = http.get(format!("{}/live", of("gateway_url")?)).bearer_auth(&token).send().await?;
            let live: Value = serde_json::from_str(&live.error_for_status()?.text().await?)?;
            if live["version"] == to {
                return Ok(start.elapsed().as_secs_f64() * 1e3);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(format!("the gateway did not come to serve version {to} of {function}").into())
    }

    /// Deploys a folder as a function.
    pub(crate) fn deploy_folder(&self, folder: &Path) -> crate::Result<()> {
        let output = Command::new(&self.binary)
            .arg("deploy")
            .current_dir(folder)
            .env("DAVIT_STATE_DIR", self.state.path())
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("deploy: {}", String::from_utf8_lossy(&output.stderr)).into())
        }
    }

    /// Deploys the files as a function.
    pub(crate) fn deploy(&self, files: &[(&str, &str)]) -> crate::Result<()> {
        let folder = tempfile::tempdir()?;
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text)?;
        }
        self.deploy_folder(folder.path())
    }

    /// Registers copies of a deployed function and waits until the gateway knows them.
    pub(crate) async fn copy(&self, name: &str, count: usize) -> crate::Result<()> {
        self.copy_as(name, count, "v.spec").await
    }

    /// The same, each with another size of memory, so that no two share a pool.
    pub(crate) async fn copy_apart(&self, name: &str, count: usize) -> crate::Result<()> {
        self.copy_as(name, count, "jsonb_set(v.spec, '{memory_mb}', to_jsonb(128 + n))").await
    }

    async fn copy_as(&self, name: &str, count: usize, spec: &str) -> crate::Result<()> {
        self.sql.copy_function(name, count, spec)?;
        let routed: u64 = self.sql.run("select count(*) from aliases where name = 'live'")?.parse()?;
        self.routed(routed).await
    }

    /// Waits until the gateway knows exactly that many functions.
    pub(crate) async fn routed(&self, functions: u64) -> crate::Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if self.status().await?["gateway"]["functions"].as_u64() == Some(functions) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("the gateway did not come to know {functions} functions").into())
    }

    /// Takes every function away; their instances end.
    pub(crate) async fn clear(&self) -> crate::Result<()> {
        self.sql.run("delete from aliases")?;
        self.routed(0).await
    }

    /// What the admin listener shows.
    pub(crate) async fn status(&self) -> crate::Result<Value> {
        Ok(serde_json::from_str(&self.admin("/status").await?)?)
    }

    /// One counter of the admin listener.
    pub(crate) async fn counter(&self, name: &str) -> crate::Result<f64> {
        let text = self.admin("/metrics").await?;
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.ok_or_else(|| format!("no counter {name}"))?.trim().parse()?)
    }

    async fn admin(&self, path: &str) -> crate::Result<String> {
        let admin = self.endpoint["admin_url"].as_str().ok_or("no admin_url")?.trim_end_matches('/');
        Ok(reqwest::get(format!("{admin}{path}")).await?.error_for_status()?.text().await?)
    }

    /// Waits until so many warm containers are kept for the next deploy.
    pub(crate) async fn spares(&self, wanted: u64) -> crate::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.status().await?["build"]["spares"].as_u64() >= Some(wanted) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("{wanted} containers are not kept for the next deploy").into())
    }

    /// Waits until `wanted` instances of a runtime wait in the pool and nothing has been started or removed for
    /// a moment, so that a cold start is a pooled one and nothing of the one before disturbs it.
    pub(crate) async fn rested(&self, runtime: &str, wanted: u64) -> crate::Result<()> {
        self.rested_with(&format!("davit/runtime-{runtime}@"), wanted).await
    }

    /// The same for an image by what its name in the pools begins with.
    pub(crate) async fn rested_with(&self, image: &str, wanted: u64) -> crate::Result<()> {
        let start = Instant::now();
        let mut since: Option<(Instant, String)> = None;
        while start.elapsed() < PATIENCE {
            let ready = ready(&self.status().await?, image);
            let moving = "state not in ('pooled', 'removed')";
            let rows = self
                .sql
                .run(&format!("select count(*) filter (where {moving}) || ' ' || count(*) from instances"))?;
            if ready >= wanted && rows.starts_with("0 ") {
                match &since {
                    Some((at, same)) if *same == rows => {
                        if at.elapsed() >= REST {
                            return Ok(());
                        }
                    }
                    _ => since = Some((Instant::now(), rows)),
                }
            } else {
                since = None;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("the platform did not come to rest with {wanted} pooled instances of {image}").into())
    }
}

fn ready(status: &Value, image: &str) -> u64 {
    let pools = status["gateway"]["pools"].as_array();
    pools
        .into_iter()
        .flatten()
        .filter(|p| {
            p["image"].as_str().is_some_and(|name| name.starts_with(image)) && p["memory_mb"] == USUAL_MB
        })
        .filter_map(|p| p["ready"].as_u64())
        .sum()
}

/// Starts `davit up` on free ports.
fn spawn(binary: &Path, state: &Path, setup: Setup, room: Option<&Room>) -> crate::Result<Child> {
    let log = std::fs::File::create(state.join("up.log"))?;
    let mut command = match setup.cores {
        None => Command::new(binary),
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cores]).arg(binary);
            command
        }
    };
    command.args(["up", "--public", "127.0.0.1:0", "--management", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    if let Some(base) = setup.pool_base {
        // The budget in memory must not be what keeps the pools small; waiting instances take a part of it only.
        command.env("DAVIT_POOL_BASE", base.to_string()).env("DAVIT_MEMORY_MB", POOL_MEMORY_MB);
    }
    command.envs(room.iter().flat_map(|room| room.settings.clone()));
    command.env("DAVIT_STATE_DIR", state).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command.spawn()?)
}

impl Drop for Platform {
    fn drop(&mut self) {
        let installation = self.sql.run("select id from installation");
        self.end();
        // Nobody else would: its state goes with this, and the names that it gave to images would stay for ever.
        if let Ok(installation) = installation {
            forget_images(&installation);
        }
    }
}

/// Takes away the names under which an installation keeps the images that its versions run in.
fn forget_images(installation: &str) {
    let hex: String = installation.chars().filter(|c| *c != '-').collect();
    let Some(short) = hex.len().checked_sub(8).and_then(|at| hex.get(at..)) else { return };
    let names = format!("reference=davit/image:{short}-*");
    let listed = ["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", &names];
    let Ok(listed) = Command::new("docker").args(listed).output() else { return };
    for name in String::from_utf8_lossy(&listed.stdout).lines() {
        let _ = Command::new("docker").args(["image", "rm", name]).output();
    }
}
