//! What `davit doctor` looks at in a cluster: all that a start needs, without starting anything.

use std::time::Duration;

use davit_api::{InstallationId, InstanceId, NetworkClass, PoolKey};
use davit_link::InstanceSecret;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};

use super::config::Config;
use super::distribution::Asker;
use super::errors::{Asked, failed};
use super::pod::{self, Frame, Program};
use super::quantity::amount;
use crate::backend::{ImageId, Role, StartRequest};
use crate::registry_login::Logins;

const ANSWER: Duration = Duration::from_secs(15);
/// Every right that the backend uses: verb, resource, subresource. The chart's Role gives these and no others.
const RIGHTS: [(&str, &str, &str); 9] = [
    ("get", "pods", ""),
    ("list", "pods", ""),
    ("watch", "pods", ""),
    ("create", "pods", ""),
    ("delete", "pods", ""),
    ("get", "pods", "log"),
    ("list", "events", ""),
    ("get", "configmaps", ""),
    ("patch", "configmaps", ""),
];
/// The right without which davit works as well, but starts some pods that it need not.
const USEFUL: (&str, &str, &str) = ("patch", "pods", "resize");
/// How Pod Security is told what to hold a namespace to.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing; davit works.
    Note,
    /// davit does not work like this.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What.
    pub what: &'static str,
    /// How it was found.
    pub verdict: Verdict,
    /// In words.
    pub found: String,
    /// What to do, if anything.
    pub advice: Option<String>,
}

impl Checked {
    fn new(what: &'static str, verdict: Verdict, found: impl Into<String>, advice: Option<&str>) -> Self {
        Self { what, verdict, found: found.into(), advice: advice.map(str::to_owned) }
    }
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self::new(what, Verdict::Good, found, None)
    }
    fn note(what: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self::new(what, Verdict::Note, found, Some(advice))
    }
    fn missing(what: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self::new(what, Verdict::Missing, found, Some(advice))
    }
}

/// Looks at everything. What cannot be reached ends it early: the rest would only say the same.
pub async fn check(config: &Config, logins: Logins) -> Vec<Checked> {
    let (client, version) = match reach().await {
        Ok(reached) => reached,
        Err(error) => {
            let advice =
                "run it in the controller's pod, or let KUBECONFIG name a file that leads to the cluster";
            return vec![Checked::missing("cluster", error, advice)];
        }
    };
    let mut checks = vec![Checked::good("cluster", format!("Kubernetes {version}"))];
    checks.extend(check_with(&client, config, logins).await);
    checks
}

/// Everything but the cluster's being reached.
pub(super) async fn check_with(client: &Client, config: &Config, logins: Logins) -> Vec<Checked> {
    vec![
        namespace(client, config).await,
        rights(client, config).await,
        owner(client, config).await,
        quota(client, config).await,
        images(config, logins).await,
        nodes(client, config).await,
        trial(client, config).await,
    ]
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, kube::Error> {
    tokio::time::timeout(ANSWER, call)
        .await
        .unwrap_or_else(|_| Err(kube::Error::Service("it does not answer within 15 s".into())))
}

async fn reach() -> Result<(Client, String), String> {
    let client = super::client().await.map_err(|e| e.to_string())?;
    let version = within(client.apiserver_version()).await.map_err(|e| super::chain(&e))?;
    Ok((client, version.git_version))
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// What is cluster-wide a controller may not see, and need not.
fn unseen(what: &'static str, resource: &str) -> Checked {
    Checked::good(what, format!("not looked at: this account may not read {resource}"))
}

async fn namespace(client: &Client, config: &Config) -> Checked {
    const WHAT: &str = "namespace";
    let api: Api<Namespace> = Api::all(client.clone());
    let name = &config.namespace;
    match within(api.get(name)).await {
        Ok(found) => {
            let level = found.metadata.labels.unwrap_or_default().remove(ENFORCE).unwrap_or_default();
            if level == "restricted" {
                Checked::good(WHAT, format!("{name}, held to Pod Security \"restricted\""))
            } else {
                let advice = format!("label it: kubectl label namespace {name} {ENFORCE}=restricted");
                Checked::note(WHAT, format!("{name} is not held to Pod Security \"restricted\""), &advice)
            }
        }
        Err(error) if is(&error, 404) => Checked::missing(
            WHAT,
            format!("there is no namespace {name}"),
            &format!("kubectl create namespace {name}, or name another in the configuration"),
        ),
        Err(error) if is(&error, 403) => unseen(WHAT, "namespaces"),
        Err(error) => Checked::missing(WHAT, super::chain(&error), "look at the cluster's API"),
    }
}

async fn rights(client: &Client, config: &Config) -> Checked {
    const WHAT: &str = "rights";
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let (mut lacking, mut useful) = (Vec::new(), true);
    for right @ (verb, resource, sub) in RIGHTS.into_iter().chain([USEFUL]) {
        let attributes = ResourceAttributes {
            namespace: Some(config.namespace.clone()),
            verb: Some(verb.into()),
            resource: Some(resource.into()),
            subresource: Some(sub.into()).filter(|sub: &String| !sub.is_empty()),
            name: (resource == "configmaps").then(|| config.owner.clone()),
            ..Default::default()
        };
        let spec =
            SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        match within(api.create(&PostParams::default(), &review)).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {}
            Ok(_) if right == USEFUL => useful = false,
            Ok(_) if sub.is_empty() => lacking.push(format!("{verb} {resource}")),
            Ok(_) => lacking.push(format!("{verb} {resource}/{sub}")),
            Err(error) => return Checked::missing(WHAT, super::chain(&error), "look at the cluster's API"),
        }
    }
    if lacking.is_empty() && !useful {
        return Checked::note(
            WHAT,
            format!("this account may not patch pods/resize in namespace {}", config.namespace),
            "apply the chart's Role, and waiting pods can be given another size instead of others being started",
        );
    }
    if lacking.is_empty() {
        return Checked::good(WHAT, format!("all {} in namespace {}", RIGHTS.len() + 1, config.namespace));
    }
    Checked::missing(
        WHAT,
        format!("this account may not {} in namespace {}", lacking.join(", "), config.namespace),
        "apply the chart's Role and RoleBinding, or run this in the controller's pod",
    )
}

async fn owner(client: &Client, config: &Config) -> Checked {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &config.namespace);
    match super::owner(&maps, config).await {
        Ok(_) => Checked::good("owner", format!("ConfigMap {}", config.owner)),
        Err(error) => Checked::missing("owner", error.to_string(), "install the chart, which makes it"),
    }
}

async fn quota(client: &Client, config: &Config) -> Checked {
    const WHAT: &str = "quota";
    let api: Api<ResourceQuota> = Api::namespaced(client.clone(), &config.namespace);
    let listed = match within(api.list(&ListParams::default())).await {
        Ok(listed) => listed.items,
        Err(error) if is(&error, 403) => return unseen(WHAT, "resourcequotas"),
        Err(error) => return Checked::missing(WHAT, super::chain(&error), "look at the cluster's API"),
    };
    let mut left = Vec::new();
    let mut full = Vec::new();
    for quota in listed {
        let status = quota.status.unwrap_or_default();
        let used = status.used.unwrap_or_default();
        for (resource, hard) in status.hard.unwrap_or_default() {
            let used = used.get(&resource);
            let one = format!("{resource}: {} of {} used", used.map_or("0", |used| &used.0), hard.0);
            let is_full = used.and_then(bytes).zip(bytes(&hard)).is_some_and(|(used, hard)| used >= hard);
            if is_full { full.push(one) } else { left.push(one) }
        }
    }
    match (full.is_empty(), left.is_empty()) {
        (true, true) => Checked::good(WHAT, "none"),
        (true, false) => Checked::good(WHAT, left.join(", ")),
        (false, _) => Checked::missing(
            WHAT,
            format!("used up: {}", full.join(", ")),
            "raise the ResourceQuota, or let davit take less: memoryMb and instances in the configuration",
        ),
    }
}

async fn images(config: &Config, logins: Logins) -> Checked {
    const WHAT: &str = "images";
    let asker = Asker::new(logins, &config.plain_http_registries);
    let all = config.runtimes.values().chain(config.builders.values()).chain([&config.agent_image]);
    let mut count = 0;
    let mut bad = Vec::new();
    for image in all {
        count += 1;
        if let Err(why) = asker.digest(&image.full()).await {
            bad.push(format!("{image}: {why}"));
        }
    }
    if bad.is_empty() {
        return Checked::good(WHAT, format!("all {count} are in their registries"));
    }
    Checked::missing(
        WHAT,
        bad.join("; "),
        "push them with scripts/push-images.sh, or name others in the configuration",
    )
}

async fn nodes(client: &Client, config: &Config) -> Checked {
    const WHAT: &str = "nodes";
    let api: Api<Node> = Api::all(client.clone());
    let selector: Vec<String> =
        config.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let params = ListParams::default().labels(&selector.join(","));
    let nodes = match within(api.list(&params)).await {
        Ok(listed) => listed.items,
        Err(error) if is(&error, 403) => return unseen(WHAT, "nodes"),
        Err(error) => return Checked::missing(WHAT, super::chain(&error), "look at the cluster's API"),
    };
    let open = |node: &&Node| !node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let room = |node: &Node| {
        let room = node.status.as_ref()?.allocatable.as_ref()?;
        bytes(room.get("memory")?)
    };
    let open: Vec<&Node> = nodes.iter().filter(open).collect();
    let memory_mb = open.iter().filter_map(|node| room(node)).sum::<u64>() >> 20;
    let found = format!("{} that take pods, with {memory_mb} MiB", open.len());
    if open.is_empty() {
        Checked::missing(WHAT, found, "uncordon one, or change nodeSelector in the configuration")
    } else if memory_mb < config.memory_mb {
        Checked::note(
            WHAT,
            format!("{found}; memoryMb is {}", config.memory_mb),
            "lower memoryMb in the configuration: starts beyond the nodes' room wait in vain",
        )
    } else {
        Checked::good(WHAT, found)
    }
}

/// A pod that the cluster judges as if it were to be made: admission, limits and classes have their say.
async fn trial(client: &Client, config: &Config) -> Checked {
    const WHAT: &str = "a trial pod";
    let api: Api<Pod> = Api::namespaced(client.clone(), &config.namespace);
    let (installation, instance) = (InstallationId::new(), InstanceId::new());
    let owner = match super::owner(&Api::namespaced(client.clone(), &config.namespace), config).await {
        Ok(owner) => owner,
        Err(error) => return Checked::missing(WHAT, error.to_string(), "see above"),
    };
    let frame = Frame { installation, owner, config: config.clone() };
    let key = PoolKey {
        image: "trial".into(),
        memory_mb: 128,
        cpu_millis: 500,
        ephemeral_mb: 64,
        network: NetworkClass::None,
    };
    let request = StartRequest { instance, role: Role::Instance, image: ImageId(String::new()), key };
    let name = pod::new_name(installation, Role::Instance);
    let secret = InstanceSecret::from_bytes([0; 32]);
    let image = config.agent_image.to_string();
    let pod = pod::function_pod(&frame, &request, name, image, &secret, &Program::OldRuntime);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match within(api.create(&params, &pod)).await {
        Ok(_) => Checked::good(WHAT, "the cluster would take it"),
        Err(error) => {
            let asked = Asked { verb: "create", resource: "pods", namespace: &config.namespace };
            Checked::missing(
                WHAT,
                failed(asked, error).to_string(),
                "change what refuses it, or davit's configuration",
            )
        }
    }
}

/// A quantity as a whole number; parts of one are rounded up.
fn bytes(quantity: &Quantity) -> Option<u64> {
    amount(quantity).map(|amount| amount.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers() {
        for (text, wanted) in
            [("2", 2), ("500m", 1), ("64Mi", 64 << 20), ("1.5Gi", 3 << 29), ("3k", 3_000), ("12e3", 12_000)]
        {
            assert_eq!(bytes(&Quantity(text.into())), Some(wanted), "{text}");
        }
        assert_eq!(bytes(&Quantity("many".into())), None);
    }
}
