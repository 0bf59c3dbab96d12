//! The same stories on a Kubernetes cluster: where `DAVIT_TEST_CLUSTER` names the directory of one (`make cluster` says which),
//! each davit gets a namespace of its own there instead of the container engine.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// Where nodes fetch images from, unless `DAVIT_TEST_REGISTRY` says otherwise: the test cluster's own registry.
const REGISTRY: &str = "127.0.0.1:15000";
/// The object that owns a davit's pods.
const OWNER: &str = "davit-instances";
/// Runtimes that stories on a cluster use: their images have to be in its registry.
const RUNTIMES: [&str; 3] = ["python3.13", "node20", "provided"];

/// A cluster that stories run on.
#[derive(Debug, Clone)]
pub struct Cluster {
    directory: PathBuf,
}

impl Cluster {
    /// The one that was chosen, if any.
    pub fn chosen() -> Option<Self> {
        let directory = std::env::var_os("DAVIT_TEST_CLUSTER")?;
        Some(Self { directory: PathBuf::from(directory) })
    }

    /// The same, for a story that is told on a cluster only; without one it says so.
    pub fn for_story() -> Option<Self> {
        let chosen = Self::chosen();
        if chosen.is_none() {
            eprintln!("skipped: DAVIT_TEST_CLUSTER names no cluster");
        }
        chosen
    }

    /// Where clients find it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("certs/admin.kubeconfig")
    }

    /// A client of it, to be given its arguments.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.directory.join("bin/kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }

    /// What a client of it says to these arguments; it must succeed.
    pub fn asked(&self, arguments: &[&str]) -> String {
        let output = self.kubectl().args(arguments).output().expect("the cluster's kubectl runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Names of the pods of an installation, of one role or of all.
    pub(crate) fn pods_of(&self, installation: &str, role: Option<&str>) -> Vec<String> {
        let role = role.map_or_else(String::new, |role| format!(",davit.role={role}"));
        let selector = format!("davit.installation={installation}{role}");
        // One that is on its way out is as good as gone: it serves nobody.
        let name = "{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{\"\\n\"}}{{end}}";
        let output = format!("go-template={{{{range .items}}}}{name}{{{{end}}}}");
        let listed = self.asked(&["get", "pods", "--all-namespaces", "-l", &selector, "-o", &output]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Addresses of the pods of an installation that have one.
    pub fn addresses_of(&self, installation: &str) -> Vec<String> {
        let selector = format!("davit.installation={installation}");
        let output = "jsonpath={.items[*].status.podIP}";
        let listed = self.asked(&["get", "pods", "--all-namespaces", "-l", &selector, "-o", output]);
        listed.split_whitespace().map(str::to_owned).collect()
    }

    /// Where the cluster's own parts listen that speak TLS: its API, and the kubelets.
    pub fn own_doors(&self) -> Vec<(String, u16)> {
        let api = ["get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}"];
        let address = "jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}";
        let nodes = self.asked(&["get", "nodes", "-o", address]);
        let kubelets = nodes.split_whitespace().map(|node| (node.to_owned(), 10250));
        [(self.asked(&api), 443)].into_iter().chain(kubelets).collect()
    }

    /// Makes an object, which goes again with what is returned.
    pub fn with(&self, object: &Value) -> Made {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        serde_json::to_writer(&mut file, object).expect("the file takes an object");
        let path = file.path().display().to_string();
        self.asked(&["create", "-f", &path]);
        Made { cluster: self.clone(), file }
    }

    /// A second node, for one story at a time. Others that run meanwhile may get pods there.
    pub async fn second_node(&self) -> SecondNode {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let node = SecondNode { directory: self.directory.clone(), _turn: turn };
        node.script("add");
        node
    }

    /// Takes a pod away at once, as a node that fails does.
    pub(crate) fn remove_pods(&self, namespace: &str) {
        let _ = self
            .kubectl()
            .args(["-n", namespace, "delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false"])
            .output();
    }

    /// A namespace for one davit's pods, held to "restricted", and the settings with which that davit uses it.
    pub fn room(&self, state: &Path) -> Room {
        self.room_with(state, &Value::Null)
    }

    /// The same for a davit that is told more about the cluster.
    pub(crate) fn room_with(&self, state: &Path, more: &Value) -> Room {
        // The server chooses the rest of the name, so that stories beside each other never share one.
        let made = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "generateName": "davit-story-",
                "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
            },
        });
        let file = state.join("namespace.json");
        std::fs::write(&file, made.to_string()).expect("the state directory takes a file");
        let name = "jsonpath={.metadata.name}";
        let namespace = self.asked(&["create", "-f", &file.display().to_string(), "-o", name]);
        self.asked(&["-n", &namespace, "create", "configmap", OWNER]);
        let config = state.join("kubernetes.json");
        let mut told = settings(&namespace);
        let all = told.as_object_mut().expect("settings are an object");
        all.extend(more.as_object().cloned().unwrap_or_default());
        std::fs::write(&config, told.to_string()).expect("the state directory takes a file");
        let settings = vec![
            ("DAVIT_BACKEND".to_owned(), "kubernetes".to_owned()),
            ("DAVIT_KUBERNETES_CONFIG".to_owned(), config.display().to_string()),
            ("KUBECONFIG".to_owned(), self.kubeconfig().display().to_string()),
            // A pod costs more to start than a container, and a story has davit started more than once.
            ("DAVIT_POOL_BASE".to_owned(), "1".to_owned()),
        ];
        Room { cluster: self.clone(), namespace, settings }
    }
}

/// An object of a story's own in the cluster.
#[derive(Debug)]
pub struct Made {
    cluster: Cluster,
    file: tempfile::NamedTempFile,
}

impl Drop for Made {
    fn drop(&mut self) {
        let path = self.file.path().display().to_string();
        let gone =
            ["delete", "-f", &path, "--ignore-not-found", "--grace-period=0", "--force", "--wait=false"];
        let _ = self.cluster.kubectl().args(gone).output();
    }
}

/// The test cluster's second node, which goes with this.
#[derive(Debug)]
pub struct SecondNode {
    directory: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl SecondNode {
    /// Its name.
    pub const NAME: &'static str = "node-2";

    /// Its power fails.
    pub fn lose(&self) {
        self.script("lose");
    }

    fn script(&self, what: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cluster.sh");
        let mut command = Command::new(script);
        let command = command.args(["node", what]).env("DAVIT_CLUSTER_DIR", &self.directory);
        let output = command.output().expect("the cluster's script runs");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let done = output.status.success() || std::thread::panicking();
        assert!(done, "node {what}: {}", said.concat());
    }
}

impl Drop for SecondNode {
    fn drop(&mut self) {
        self.script("remove");
    }
}

/// Where nodes fetch an image of davit's.
pub fn image_on_nodes(name: &str) -> String {
    format!("{}/davit/{name}:latest", registry())
}

fn registry() -> String {
    std::env::var("DAVIT_TEST_REGISTRY").unwrap_or_else(|_| REGISTRY.into())
}

fn settings(namespace: &str) -> Value {
    let image = |name: &str| (name.to_owned(), image_on_nodes(&format!("runtime-{name}")).into());
    json!({
        "namespace": namespace,
        "owner": OWNER,
        "agentImage": image_on_nodes("davit"),
        "runtimes": Value::Object(RUNTIMES.into_iter().map(image).collect()),
        "imagePullPolicy": "IfNotPresent",
        "plainHttpRegistries": [registry()],
        "memoryMb": 6_000,
        "instances": 50,
    })
}

/// The namespace of one davit. It goes with this, and with it whatever is in it.
#[derive(Debug)]
pub struct Room {
    cluster: Cluster,
    /// Its name.
    pub namespace: String,
    /// What a davit is started with to use it.
    pub settings: Vec<(String, String)>,
}

impl Room {
    /// Fails the story if a davit that was stopped left pods behind.
    pub(crate) fn must_be_empty(&self, installation: &str) {
        let left = self.cluster.pods_of(installation, None);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "davit left pods behind when it was stopped: {left:?}");
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.cluster.remove_pods(&self.namespace);
        let gone = ["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"];
        let _ = self.cluster.kubectl().args(gone).output();
    }
}
