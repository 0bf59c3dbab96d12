//! What every command needs to know first: where davit is, who is asking, which namespace. Each is looked
//! for in the same order: the command line, the environment, the state directory of a davit on this machine.

use std::path::{Path, PathBuf};

use clap::Args;
use davit_api::NamespaceName;
use serde::{Deserialize, Serialize};

use crate::api::Api;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output::Format;

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for every command")]
pub(crate) struct Globals {
    /// Address of the management API, such as http://127.0.0.1:7481
    #[arg(long, global = true, env = "DAVIT_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Address of a gateway, such as http://127.0.0.1:7480
    #[arg(long, global = true, env = "DAVIT_GATEWAY_URL", value_name = "URL")]
    pub(crate) gateway_url: Option<String>,
    /// API token
    #[arg(long, global = true, env = "DAVIT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// State directory of a davit on this machine: /var/lib/davit for root, else ~/.local/share/davit
    #[arg(long, global = true, env = "DAVIT_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Namespace
    #[arg(short, long, global = true, env = "DAVIT_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<NamespaceName>,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// Where a davit on this machine listens: `endpoint.json` in its state directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// The installation's id.
    pub(crate) installation: String,
    /// Management API.
    pub(crate) management_url: String,
    /// Gateway.
    pub(crate) gateway_url: String,
    /// Health, metrics and status.
    pub(crate) admin_url: String,
    /// The process that serves it.
    pub(crate) pid: u32,
}

impl Endpoint {
    /// The file's name in the state directory.
    pub(crate) const FILE: &str = "endpoint.json";
}

impl Globals {
    /// The state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(default_state_dir)
    }

    /// Whether data is printed as JSON.
    pub(crate) fn json(&self) -> bool {
        self.output == Format::Json
    }

    /// The namespace: the one given, else `default`.
    pub(crate) fn namespace(&self) -> Result<NamespaceName> {
        match &self.namespace {
            Some(name) => Ok(name.clone()),
            None => "default".parse().map_err(|e| Failure::Failed(format!("{e}"))),
        }
    }

    /// The API of the namespace.
    pub(crate) fn api(&self) -> Result<Api> {
        self.api_in(self.namespace()?)
    }

    /// The API of a namespace that a file may name, unless the command line does.
    pub(crate) fn api_in(&self, namespace: NamespaceName) -> Result<Api> {
        let state_dir = self.state_dir();
        let endpoint = read_endpoint(&state_dir);
        let local = |field: fn(&Endpoint) -> &String| endpoint.as_ref().map(|e| field(e).clone());
        let Some(url) = self.url.clone().or_else(|| local(|e| &e.management_url)) else {
            return Err(Failure::Unreachable(format!(
                "no davit is known: there is no {} in {}, and neither --url nor DAVIT_URL is given",
                Endpoint::FILE,
                state_dir.display()
            )));
        };
        // The local gateway belongs to the local davit, not to a remote one that --url names.
        let gateway = self
            .gateway_url
            .clone()
            .or_else(|| if self.url.is_none() { local(|e| &e.gateway_url) } else { None });
        let token = match &self.token {
            Some(token) => Some(token.clone()),
            None => read_token(&state_dir)?,
        };
        Ok(Api::new(
            Client::new(&url, token.clone())?,
            gateway.map(|g| Client::new(&g, token)).transpose()?,
            namespace,
        ))
    }
}

fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/davit".into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").filter(|d| Path::new(d).is_absolute()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| ".".into())).join(".local/share");
    data.unwrap_or_else(home).join("davit")
}

/// The local endpoint, if there is one.
pub(crate) fn read_endpoint(state_dir: &Path) -> Option<Endpoint> {
    let text = std::fs::read_to_string(state_dir.join(Endpoint::FILE)).ok()?;
    serde_json::from_str(&text).ok()
}

fn read_token(state_dir: &Path) -> Result<Option<String>> {
    let path = state_dir.join("token");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Failure::Failed(format!(
            "{} belongs to another user; give --token or set DAVIT_TOKEN",
            path.display()
        ))),
        Err(_) => Ok(None),
    }
}
