//! What the operator says about the cluster: one JSON file, which the chart writes. What it does not know it refuses,
//! inside of what goes into pods as well: a misspelt toleration would be found out by pods that never start.

use std::collections::BTreeMap;
use std::path::Path;

use davit_api::{ImageName, RuntimeName};
use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Labels that are davit's own to set.
const OWN_LABELS: [&str; 3] = ["davit.", "app.kubernetes.io/managed-by", "app.kubernetes.io/component"];
/// Longest file, in bytes.
const FILE_BYTES: u64 = 1 << 20;

/// The settings of this backend.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where pods of functions and builds are made.
    pub namespace: String,
    /// A ConfigMap there that owns every pod, and keeps what is known of functions' own images.
    pub owner: String,
    /// Has the agent, for images that have none or an old one.
    pub agent_image: ImageName,
    /// What each runtime's functions run in.
    pub runtimes: BTreeMap<RuntimeName, ImageName>,
    /// What builds for runtimes that have no compiler at run time.
    #[serde(default)]
    pub builders: BTreeMap<RuntimeName, ImageName>,
    /// Secrets in the namespace with which nodes fetch images.
    #[serde(default)]
    pub image_pull_secrets: Vec<String>,
    /// When nodes fetch an image.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Image registries, as host and port, that are asked without TLS.
    #[serde(default)]
    pub plain_http_registries: Vec<String>,
    /// Labels of nodes that pods may run on.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// As in a pod.
    #[serde(default, deserialize_with = "strict")]
    pub tolerations: Vec<Toleration>,
    /// As in a pod.
    #[serde(default, deserialize_with = "strict")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// As in a pod.
    #[serde(default, deserialize_with = "strict")]
    pub affinity: Option<Affinity>,
    /// What runs the containers, such as gVisor or Kata.
    #[serde(default)]
    pub runtime_class_name: Option<String>,
    /// How pods rank where room is short.
    #[serde(default)]
    pub priority_class_name: Option<String>,
    /// More labels of pods.
    #[serde(default)]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of pods.
    #[serde(default)]
    pub pod_annotations: BTreeMap<String, String>,
    /// Memory of all instances together, in MiB.
    pub memory_mb: u64,
    /// Instances in all.
    pub instances: usize,
}

/// When nodes fetch an image that they may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum PullPolicy {
    /// When they do not have it.
    #[default]
    IfNotPresent,
    /// Each time, so that the registry is asked whether the node may have it.
    Always,
    /// Never: somebody else puts images there.
    Never,
}

impl PullPolicy {
    /// The word in a pod.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

impl Config {
    /// Reads the file; the error says what is wrong with it and what to do.
    pub fn read(path: &Path) -> Result<Self, String> {
        let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
        if size > FILE_BYTES {
            return Err(format!("it has {size} bytes; at most {FILE_BYTES} are read"));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(|e| e.to_string())?)
    }

    /// The same, of its text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let label = |text: &str| {
            !text.is_empty()
                && text.len() <= 63
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !label(&self.namespace) {
            return Err(format!("namespace: {:?} is no name of a namespace", self.namespace));
        }
        if self.owner.is_empty() {
            return Err(
                "owner: name the ConfigMap that owns the pods; the chart makes it and names it here".into()
            );
        }
        if self.runtimes.is_empty() {
            return Err(
                "runtimes: none is there, so nothing could be deployed; name the image of at least one"
                    .into(),
            );
        }
        if self.memory_mb == 0 || self.instances == 0 {
            return Err("memoryMb and instances: must be more than 0".into());
        }
        if let Some(taken) =
            self.pod_labels.keys().find(|key| OWN_LABELS.iter().any(|own| key.starts_with(own)))
        {
            return Err(format!("podLabels: {taken} is davit's own to set; choose another"));
        }
        Ok(())
    }

    /// Whether an image registry is asked without TLS.
    pub fn is_plain_http(&self, registry: &str) -> bool {
        self.plain_http_registries.iter().any(|plain| plain == registry)
    }
}

/// Reads what goes into pods as it is. The types of the Kubernetes API pass over what they do not know, so what was read
/// is written again and compared.
fn strict<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned + Serialize,
{
    use serde::de::Error;
    let said = Value::deserialize(from)?;
    let read: T = serde_json::from_value(said.clone()).map_err(D::Error::custom)?;
    let known = serde_json::to_value(&read).map_err(D::Error::custom)?;
    match lost(&said, &known) {
        None => Ok(read),
        Some(key) => Err(D::Error::custom(format!("unknown field `{key}`"))),
    }
}

/// The first key that is in one and not in the other.
fn lost(said: &Value, known: &Value) -> Option<String> {
    match (said, known) {
        (Value::Object(said), Value::Object(known)) => {
            said.iter().find_map(|(key, value)| match known.get(key) {
                Some(known) => lost(value, known),
                None => (!value.is_null()).then(|| key.clone()),
            })
        }
        (Value::Array(said), Value::Array(known)) => {
            said.iter().zip(known).find_map(|(said, known)| lost(said, known))
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const SMALL: &str = r#"{
        "namespace": "davit-functions", "owner": "davit-instances",
        "agentImage": "registry.test/davit/davit:0.1.0",
        "runtimes": {"python3.13": "registry.test:5000/davit/runtime-python3.13:0.1.0@sha256:84008a41e51615a49fc9966191ff91509e3c40b939176e643fd50a5c2196b8f8"},
        "memoryMb": 8192, "instances": 200
    }"#;

    fn with(more: &str) -> Result<Config, String> {
        Config::parse(&SMALL.replacen('{', &format!("{{{more},"), 1))
    }

    #[test]
    fn a_small_file_is_enough_and_a_full_one_is_understood() {
        let small = Config::parse(SMALL).unwrap();
        assert_eq!(small.image_pull_policy, PullPolicy::IfNotPresent);
        let full = with(
            r#""imagePullSecrets": ["pull"], "imagePullPolicy": "Always", "plainHttpRegistries": ["10.1.2.3:5000"],
            "nodeSelector": {"pool": "functions"}, "affinity": null, "runtimeClassName": "gvisor", "priorityClassName": null,
            "tolerations": [{"key": "functions", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 30}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
              "labelSelector": {"matchLabels": {"davit.role": "instance"}}}],
            "podLabels": {"team": "a"}, "podAnnotations": {"b": "c"}, "builders": {"go": "registry.test/davit/build-go"}"#,
        )
        .unwrap();
        assert_eq!(full.tolerations[0].toleration_seconds, Some(30));
        assert_eq!(full.topology_spread_constraints[0].max_skew, 1);
        assert!(full.is_plain_http("10.1.2.3:5000") && !full.is_plain_http("10.1.2.3"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, named) in [
            (r#""nameSpace": "x""#, "nameSpace"),
            (r#""tolerations": [{"key": "a", "efect": "NoSchedule"}]"#, "efect"),
            (r#""affinity": {"nodeAffinity": {"requiredDuringScheduling": {}}}"#, "requiredDuringScheduling"),
            (r#""podLabels": {"davit.role": "builder"}"#, "davit.role"),
            (r#""podLabels": {"app.kubernetes.io/component": "gateway"}"#, "app.kubernetes.io/component"),
            (r#""imagePullPolicy": "Sometimes""#, "Sometimes"),
            (r#""builders": {"go": "Not An Image"}"#, "image"),
        ] {
            let error = with(more).unwrap_err();
            assert!(error.contains(named), "{more}: {error}");
        }
        for (from, to, named) in [
            ("\"davit-functions\"", "\"A b\"", "namespace"),
            ("\"davit-instances\"", "\"\"", "owner"),
            ("8192", "0", "memoryMb"),
        ] {
            let error = Config::parse(&SMALL.replace(from, to)).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
