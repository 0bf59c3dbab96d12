//! What runs containers: the Docker engine of this machine, or a Kubernetes cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use davit_controller::backend::Backend;
use davit_controller::backend::docker::{DockerBackend, DockerSettings};
use davit_controller::backend::kubernetes::config::Config;
use davit_controller::backend::kubernetes::{KubernetesBackend, KubernetesSettings};
use davit_controller::registry_login::Logins;
use davit_controller::world::WorldSettings;

use super::parts::Store;
use crate::failure::{Failure, Result};

/// Starts at a time in a cluster: nodes share the work, and most of a start is waiting for them.
const CLUSTER_STARTS: usize = 16;

/// Which backend, as settings say it.
#[derive(Args, Clone)]
pub(crate) struct BackendArgs {
    /// What runs functions
    #[arg(long, env = "DAVIT_BACKEND", value_enum, default_value = "docker", value_name = "NAME")]
    backend: Kind,
    /// What the operator says about the cluster, a JSON file
    #[arg(long, env = "DAVIT_KUBERNETES_CONFIG", value_name = "FILE")]
    kubernetes_config: Option<PathBuf>,
    /// What opens the registries of davit's own images: a Docker config, as in a secret that nodes fetch with
    #[arg(long, env = "DAVIT_KUBERNETES_LOGINS", value_name = "FILE")]
    kubernetes_logins: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Docker,
    Kubernetes,
}

/// Which backend, with its settings.
pub(crate) enum Which {
    /// The engine of this machine.
    Docker,
    /// A cluster.
    Kubernetes(Box<Config>, Logins),
}

impl BackendArgs {
    /// Reads the files.
    pub(crate) fn which(&self) -> Result<Which> {
        if self.backend == Kind::Docker {
            return Ok(Which::Docker);
        }
        let path = self.kubernetes_config.as_deref().ok_or_else(|| {
            Failure::Usage(
                "DAVIT_KUBERNETES_CONFIG: say where the cluster's settings are; the chart writes them".into(),
            )
        })?;
        let wrong = |path: &Path, why: String| Failure::Usage(format!("{}: {why}", path.display()));
        let config = Config::read(path).map_err(|why| wrong(path, why))?;
        let logins = match &self.kubernetes_logins {
            None => Logins::None,
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| wrong(path, e.to_string()))?;
                Logins::parse(&text).map_err(|why| wrong(path, why.into()))?
            }
        };
        Ok(Which::Kubernetes(Box::new(config), logins))
    }
}

/// A connected backend.
pub(super) enum Engine {
    Docker(Arc<DockerBackend>),
    Kubernetes(Arc<KubernetesBackend>, Box<Config>),
}

impl Engine {
    pub(super) async fn connect(
        which: &Which,
        state_dir: &Path,
        store: &Store,
        share_code: bool,
    ) -> Result<Self> {
        let installation = store.registry.installation().await;
        let installation = installation.map_err(|e| Failure::while_doing("registry", e))?;
        match which {
            Which::Docker => {
                let settings = DockerSettings { state_dir: state_dir.to_owned(), installation, share_code };
                let docker = DockerBackend::connect(settings).await;
                let docker = docker.map_err(|e| Failure::while_doing("container engine", e))?;
                Ok(Self::Docker(Arc::new(docker)))
            }
            Which::Kubernetes(config, logins) => {
                let settings = KubernetesSettings {
                    config: (**config).clone(),
                    installation,
                    master_key: store.key.clone(),
                    logins: logins.clone(),
                };
                let cluster = KubernetesBackend::connect(settings).await;
                let cluster = cluster.map_err(|e| Failure::while_doing("Kubernetes", e))?;
                Ok(Self::Kubernetes(Arc::new(cluster), config.clone()))
            }
        }
    }

    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Self::Docker(docker) => docker.clone(),
            Self::Kubernetes(cluster, _) => cluster.clone(),
        }
    }

    /// A cluster has other bounds than this machine.
    pub(super) fn bound(&self, settings: &mut WorldSettings) {
        let Self::Kubernetes(_, config) = self else { return };
        settings.bounds.memory_mb = config.memory_mb;
        settings.bounds.instances = config.instances;
        settings.bounds.starts = CLUSTER_STARTS;
        settings.pool.memory_mb = config.memory_mb / 3;
    }

    /// Removes all that is left of this installation.
    pub(super) async fn uninstall(&self) -> std::result::Result<(), davit_controller::backend::BackendError> {
        match self {
            Self::Docker(docker) => docker.uninstall().await,
            Self::Kubernetes(cluster, _) => cluster.uninstall().await,
        }
    }
}
