//! Kubernetes: instances are bare pods of one namespace, reached by TCP. What belongs to us is known by label, and owned
//! by one ConfigMap, so that it goes with the installation. Nothing here runs on the nodes but what the pods run.

mod build;
pub mod check;
pub mod config;
mod distribution;
mod errors;
mod images;
mod own;
mod pod;
mod pods;
mod quantity;
mod resize;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use davit_api::{InstallationId, InstanceId, PoolKey};
use davit_link::{InstanceSecret, Place};
use davit_registry::MasterKey;
use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, Client};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use self::config::Config;
use self::errors::{Asked, chain, failed};
use self::images::Images;
use self::own::OwnImages;
use self::pod::{Frame, Program};
use self::pods::Pods;
use super::image::{FetchRequest, HadImage, ImageBuildRequest, KeptImage};
use super::{
    Backend, BackendError, BuildOutcome, BuildRequest, ContainerId, ImageId, Life, Observed, Reply, Resized,
    RuntimeImage, StartRequest,
};
use crate::registry_login::Logins;

/// No single answer of the cluster is waited for longer.
const ANSWER: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// How long an agent's port is tried. A pod's address drops what comes before its network is up.
const TRY: Duration = Duration::from_millis(250);
const LAST_WORDS: i64 = 20;
/// How long a pod that is removed has to end; its calls are over.
const END_SECONDS: u32 = 1;
/// A pod that has not been made for so long has a reason that only its events tell.
const PATIENCE: Duration = Duration::from_secs(10);

/// What belongs to this installation, and where.
#[derive(Debug, Clone)]
pub struct KubernetesSettings {
    /// What the operator says.
    pub config: Config,
    /// Labels everything that is made.
    pub installation: InstallationId,
    /// Derives instances' secrets.
    pub master_key: Arc<MasterKey>,
    /// What opens the registries of davit's own images.
    pub logins: Logins,
}

/// A connected cluster.
pub struct KubernetesBackend {
    frame: Frame,
    api: Api<Pod>,
    events: Api<Event>,
    pods: Pods,
    images: Arc<Images>,
    /// Asks registries about the runtimes' images; ends with this.
    asking: tokio::task::JoinHandle<()>,
    own: OwnImages,
    master_key: Arc<MasterKey>,
    /// Until when no pod is resized, because the cluster did not do it.
    resizes_rest: resize::Rest,
}

/// Connects to the cluster that this process runs in, or that `KUBECONFIG` names.
pub async fn client() -> Result<Client, BackendError> {
    let unavailable = |why: String| BackendError::Unavailable(format!("the cluster's API: {why}"));
    let mut config = kube::Config::infer().await.map_err(|e| unavailable(chain(&e)))?;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|e| unavailable(chain(&e)))
}

impl KubernetesBackend {
    /// Connects, finds what owns the pods, and begins to watch them.
    pub async fn connect(settings: KubernetesSettings) -> Result<Self, BackendError> {
        Self::with_client(client().await?, settings).await
    }

    async fn with_client(client: Client, settings: KubernetesSettings) -> Result<Self, BackendError> {
        let KubernetesSettings { config, installation, master_key, logins } = settings;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &config.namespace);
        let owner = owner(&maps, &config).await?;
        let api: Api<Pod> = Api::namespaced(client.clone(), &config.namespace);
        let pods = Pods::open(api.clone(), config.namespace.clone(), installation).await?;
        let images = Arc::new(Images::new(config.clone(), logins));
        let asking = tokio::spawn(images.clone().keep_asking());
        Ok(Self {
            api,
            events: Api::namespaced(client, &config.namespace),
            pods,
            images,
            asking,
            own: OwnImages::new(maps, config.clone()),
            frame: Frame { installation, owner, config },
            master_key,
            resizes_rest: resize::Rest::default(),
        })
    }

    /// Removes every pod of this installation.
    pub async fn uninstall(&self) -> Result<(), BackendError> {
        let found = self.observe().await?;
        let removals = found.iter().map(|seen| self.stop_inner(&seen.container));
        futures_util::future::try_join_all(removals).await.map(drop)
    }

    fn asked(&self, verb: &'static str, resource: &'static str) -> Asked<'_> {
        Asked { verb, resource, namespace: &self.frame.config.namespace }
    }

    /// One request to the cluster.
    async fn ask<T>(
        &self,
        verb: &'static str,
        resource: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, BackendError> {
        match tokio::time::timeout(ANSWER, call).await {
            Ok(answer) => answer.map_err(|e| failed(self.asked(verb, resource), e)),
            Err(_) => Err(BackendError::Deadline("the cluster's API")),
        }
    }

    fn secret(&self, instance: InstanceId) -> InstanceSecret {
        InstanceSecret::from_bytes(self.master_key.instance_secret(instance))
    }

    async fn start_inner(&self, request: StartRequest) -> Result<ContainerId, BackendError> {
        let name = &request.key.image;
        let image = self.images.reference(name, &request.image)?;
        let program = if request.key.is_own_image() {
            Program::Own(self.own.facts(&request.image).await?)
        } else if self.images.is_current(name, &request.image).await {
            Program::Runtime
        } else {
            Program::OldRuntime
        };
        let name = pod::new_name(self.frame.installation, request.role);
        let secret = self.secret(request.instance);
        let pod = pod::function_pod(&self.frame, &request, name.clone(), image, &secret, &program);
        let params = PostParams::default();
        let made = self.ask("create", "pods", self.api.create(&params, &pod)).await?;
        self.pods.made(made);
        Ok(ContainerId(name))
    }

    async fn stop_inner(&self, container: &ContainerId) -> Result<(), BackendError> {
        let params = DeleteParams::default().grace_period(END_SECONDS);
        match tokio::time::timeout(ANSWER, self.api.delete(&container.0, &params)).await {
            Ok(Ok(_)) => {}
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            Ok(Err(error)) => return Err(failed(self.asked("delete", "pods"), error)),
            Err(_) => return Err(BackendError::Deadline("removing a pod")),
        }
        self.pods.removed(&container.0);
        Ok(())
    }

    async fn life_inner(&self, container: &ContainerId) -> Result<Life, BackendError> {
        let Some(pod) = self.pods.get(&container.0) else { return Ok(Life::Gone) };
        let life = state::life(&pod);
        let created = pod.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |at| at.0.as_second());
        let old = chrono::Utc::now().timestamp().saturating_sub(created) > PATIENCE.as_secs() as i64;
        match life {
            // No status has a place for what goes wrong before a container is made: its network, its volumes.
            Life::Waiting(why) if old && state::is_placed(&pod) => match self.last_warning(container).await {
                Some(warning) => Ok(Life::Waiting(format!("{why}; {warning}"))),
                None => Ok(Life::Waiting(why)),
            },
            life => Ok(life),
        }
    }

    /// The last warning among a pod's events. Without the right to read them there is none.
    async fn last_warning(&self, container: &ContainerId) -> Option<String> {
        let of_pod = format!("involvedObject.name={},type=Warning", container.0);
        let params = ListParams::default().fields(&of_pod).limit(20);
        let listed = self.ask("list", "events", self.events.list(&params)).await.ok()?;
        let last =
            listed.items.into_iter().max_by_key(|event| event.last_timestamp.clone().map(|at| at.0))?;
        let text = format!("{}: {}", last.reason.unwrap_or_default(), last.message.unwrap_or_default());
        Some(text.chars().take(300).collect())
    }

    async fn ready_inner(
        &self,
        instance: InstanceId,
        container: &ContainerId,
    ) -> Result<Option<Place>, BackendError> {
        let address = self.pods.get(&container.0).and_then(|pod| state::agent(&pod));
        let Some(address) = address else { return Ok(None) };
        // The agent listens when its runtime is warm; until then its kernel says no at once.
        match tokio::time::timeout(TRY, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(Some(Place::Tcp { address, secret: self.secret(instance) })),
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    async fn last_words_inner(&self, container: &ContainerId) -> Result<Vec<String>, BackendError> {
        let mut words = Vec::new();
        if let Some(pod) = self.pods.get(&container.0)
            && state::life(&pod) != Life::Running
        {
            words.push(state::sentence(&pod));
        }
        for name in [pod::BRINGS_AGENT, pod::CONTAINER] {
            let params = LogParams {
                container: Some(name.into()),
                tail_lines: Some(LAST_WORDS),
                limit_bytes: Some(16 * 1024),
                ..Default::default()
            };
            // Most pods have no first container, and one that never ran has printed nothing.
            if let Ok(text) = self.ask("get", "pods/log", self.api.logs(&container.0, &params)).await {
                words.extend(text.lines().map(str::to_owned));
            }
        }
        Ok(words)
    }
}

impl Drop for KubernetesBackend {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

/// What owns every pod; without it an uninstallation would leave them behind.
async fn owner(maps: &Api<ConfigMap>, config: &Config) -> Result<OwnerReference, BackendError> {
    let Config { owner, namespace, .. } = config;
    let asked = Asked { verb: "get", resource: "configmaps", namespace };
    let found = tokio::time::timeout(ANSWER, maps.get(owner)).await;
    let found = match found.map_err(|_| BackendError::Deadline("the cluster's API"))? {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return Err(BackendError::Refused(format!(
                "there is no ConfigMap {owner} in namespace {namespace}: the chart makes it; otherwise run `kubectl -n {namespace} create configmap {owner}`"
            )));
        }
        Err(error) => return Err(failed(asked, error)),
    };
    Ok(OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: owner.clone(),
        uid: found.metadata.uid.unwrap_or_default(),
        // `kubectl drain` takes a pod that nothing controls for one that nobody would replace.
        controller: Some(true),
        ..Default::default()
    })
}

fn no_dockerfiles() -> BackendError {
    BackendError::BadImage(
        "dockerfile: a cluster builds no Dockerfiles; push the image to a registry and name it with image"
            .into(),
    )
}

impl Backend for KubernetesBackend {
    fn observe(&self) -> Reply<'_, Vec<Observed>> {
        std::future::ready(self.pods.observe()).boxed()
    }
    fn resolve(&self, image: &str) -> Reply<'_, ImageId> {
        let image = image.to_owned();
        async move { self.images.resolve(&image).await }.boxed()
    }
    fn image_label(&self, image: &ImageId, label: &'static str) -> Reply<'_, Option<String>> {
        let image = image.clone();
        async move { self.images.label(&image, label).await }.boxed()
    }
    fn runtime_images(&self) -> Reply<'_, Vec<RuntimeImage>> {
        std::future::ready(Ok(self.images.runtimes())).boxed()
    }
    fn start(&self, request: StartRequest) -> Reply<'_, ContainerId> {
        self.start_inner(request).boxed()
    }
    fn stop(&self, container: &ContainerId, _: Option<InstanceId>) -> Reply<'_, ()> {
        let container = container.clone();
        async move { self.stop_inner(&container).await }.boxed()
    }
    fn life(&self, container: &ContainerId) -> Reply<'_, Life> {
        let container = container.clone();
        async move { self.life_inner(&container).await }.boxed()
    }
    fn ready(&self, instance: InstanceId, container: &ContainerId) -> Reply<'_, Option<Place>> {
        let container = container.clone();
        async move { self.ready_inner(instance, &container).await }.boxed()
    }
    fn resizes(&self) -> bool {
        !self.resizes_rest.is_now()
    }
    fn resize(&self, container: &ContainerId, key: &PoolKey) -> Reply<'_, Resized> {
        let (container, key) = (container.clone(), key.clone());
        async move { self.resize_inner(&container, &key).await }.boxed()
    }
    fn last_words(&self, container: &ContainerId) -> Reply<'_, Vec<String>> {
        let container = container.clone();
        async move { self.last_words_inner(&container).await }.boxed()
    }
    fn build(&self, request: BuildRequest, log: mpsc::Sender<String>) -> Reply<'_, BuildOutcome> {
        build::run(self, request, log).boxed()
    }
    fn fetch_image(&self, request: FetchRequest, log: mpsc::Sender<String>) -> Reply<'_, HadImage> {
        async move { self.own.fetch(request, &log).await }.boxed()
    }
    fn build_image(&self, _: ImageBuildRequest, _: mpsc::Sender<String>) -> Reply<'_, HadImage> {
        std::future::ready(Err(no_dockerfiles())).boxed()
    }
    fn architecture(&self) -> Reply<'_, String> {
        std::future::ready(Ok(own::architecture().to_owned())).boxed()
    }
    // `keep_image`: the registry keeps images here, and its owner decides for how long.
    fn kept_images(&self) -> Reply<'_, Vec<KeptImage>> {
        self.own.kept().boxed()
    }
    fn drop_image(&self, kept: KeptImage) -> Reply<'_, ()> {
        async move { self.own.forget(&kept).await }.boxed()
    }
}
