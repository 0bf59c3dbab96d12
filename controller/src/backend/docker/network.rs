//! The installation's own bridge network: out to the world, but neither to another container nor to anything
//! that listens on this host. Docker does the first half by itself; for the second a firewall rule is needed,
//! since a host's service bound to every address answers on a bridge's own address too.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use bollard::Docker;
use bollard::models::NetworkCreateRequest;
use davit_api::InstallationId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{ANSWER, BackendError, Failed, LABEL_INSTALLATION, short, within};

/// Cloud providers hand out credentials here to whoever asks from the machine.
const METADATA: &str = "169.254.169.254/32";
/// How long it is believed to be as it should: others reload firewalls and prune networks.
const BELIEVED: Duration = Duration::from_secs(60);

pub(super) struct Network {
    docker: Docker,
    installation: InstallationId,
    /// Network and bridge have the same name: 14 characters, and an interface may have 15.
    name: String,
    checked: Mutex<Option<Instant>>,
    /// Said once, not every minute.
    told: Mutex<Option<bool>>,
    making: tokio::sync::Mutex<()>,
}

impl Network {
    pub(super) fn new(docker: Docker, installation: InstallationId) -> Self {
        let name = format!("davit-{}", short(installation));
        Self {
            docker,
            installation,
            name,
            checked: Mutex::new(None),
            told: Mutex::new(None),
            making: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Look again before the next use.
    pub(super) fn forget(&self) {
        *self.checked.lock() = None;
    }

    fn good(&self) -> bool {
        self.checked.lock().is_some_and(|at| at.elapsed() < BELIEVED)
    }

    /// Makes network and firewall rules unless they are there.
    pub(super) async fn ensure(&self) -> Result<(), BackendError> {
        if self.good() {
            return Ok(());
        }
        let _one = self.making.lock().await;
        if self.good() {
            return Ok(());
        }
        match within(ANSWER, "looking at the network", self.docker.inspect_network(&self.name, None)).await {
            Ok(_) => {}
            Err(Failed::Gone(_)) => self.make().await?,
            Err(failed) => return Err(failed.into()),
        }
        self.guard().await;
        *self.checked.lock() = Some(Instant::now());
        Ok(())
    }

    async fn make(&self) -> Result<(), BackendError> {
        let options = [
            ("com.docker.network.bridge.name", self.name.as_str()),
            ("com.docker.network.bridge.enable_icc", "false"),
        ];
        let request = NetworkCreateRequest {
            name: self.name.clone(),
            driver: Some("bridge".into()),
            options: Some(options.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            labels: Some(HashMap::from([(LABEL_INSTALLATION.to_owned(), self.installation.to_string())])),
            ..Default::default()
        };
        match within(ANSWER, "creating the network", self.docker.create_network(request)).await {
            Ok(_) | Err(Failed::Conflict(_)) => Ok(()),
            Err(failed) => Err(failed.into()),
        }
    }

    /// Best effort: without the rights to it davit still works, and says what is missing.
    async fn guard(&self) {
        let mut missing = Vec::new();
        for rule in self.rules() {
            let there = iptables("-C", &rule).await.is_ok();
            if !there && let Err(error) = iptables("-I", &rule).await {
                missing.push(error);
            }
        }
        if self.told.lock().replace(missing.is_empty()) == Some(missing.is_empty()) {
            return;
        }
        match missing.first() {
            None => {
                tracing::info!(bridge = %self.name, "firewall: functions reach nothing on this host (INPUT drop)")
            }
            Some(error) => tracing::warn!(bridge = %self.name, %error,
                "no firewall rule for functions: a service of this host that listens on all addresses can be reached \
                 from a function; run davit as root with iptables, or bind such services to loopback"),
        }
    }

    fn rules(&self) -> [Vec<&str>; 2] {
        [
            vec!["INPUT", "-i", &self.name, "-j", "DROP"],
            vec!["DOCKER-USER", "-i", &self.name, "-d", METADATA, "-j", "DROP"],
        ]
    }

    pub(super) async fn remove(&self) -> Result<(), BackendError> {
        self.forget();
        for rule in self.rules() {
            let _ = iptables("-D", &rule).await;
        }
        match within(ANSWER, "removing the network", self.docker.remove_network(&self.name)).await {
            Ok(()) | Err(Failed::Gone(_)) => Ok(()),
            Err(failed) => Err(failed.into()),
        }
    }
}

/// Runs one iptables command on one rule, without a shell.
async fn iptables(verb: &str, rule: &[&str]) -> Result<(), String> {
    let mut command = tokio::process::Command::new("iptables");
    command.args(["-w", "5", verb]).args(rule);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(std::time::Duration::from_secs(10), command.output()).await;
    match output {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Ok(Err(error)) => Err(format!("iptables: {error}")),
        Err(_) => Err("iptables took too long".into()),
    }
}
