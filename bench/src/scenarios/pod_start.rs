//! On Kubernetes: a pooled cold start against a pod of one's own, made through the cluster's API, both from nothing to the
//! full answer of the same Python function.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use davit_e2e::{Cluster, image_on_nodes};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::{Scenario, cold};
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::platform::Setup;
use crate::programs::{PYTHON, manifest};

static FIGURE: Figure = Figure {
    id: "S12",
    name: "Kubernetes: pooled cold start / create a pod → answer",
    unit: "ms",
    goal: Goal::AtMost { target: 1.0 / 25.0, stretch: 1.0 / 60.0 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "pod-start",
    about: "pooled cold start on Kubernetes / a pod made for it through the cluster's API (DAVIT_TEST_CLUSTER)",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

/// Where the control answers whoever connects.
const PORT: u16 = 8000;
/// The same function as a program that answers the first connection.
const CONTROL: &str = "
import socket
exec(APP)
s = socket.create_server(('', PORT))
while True:
    c, _ = s.accept()
    c.sendall(handler({}, None)['body'].encode())
    c.close()
";

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let Some(cluster) = Cluster::chosen() else {
        bench.report.note("pod-start: no cluster was chosen (DAVIT_TEST_CLUSTER), so it was left out");
        return Ok(());
    };
    let platform = bench.platform(Setup { on_cluster: true, ..Setup::default() }).await?;
    let toml = manifest("cold", "python3.13", "handler = \"app.handler\"\n");
    platform.deploy(&[("davit.toml", &toml), ("app.py", PYTHON)])?;
    platform.copy("cold", bench.repeats).await?;
    let room = platform.room.as_ref().ok_or("the platform has no place in the cluster")?;
    let api = ApiServer::open(&cluster)?;
    let mut pairs = Vec::new();
    for n in 1..=bench.repeats {
        let davit = cold::start(&platform, "python3.13", &format!("cold-{n}")).await?;
        platform.rested("python3.13", 1).await?;
        pairs.push((davit, api.pod(&room.namespace, &format!("control-{n}")).await?));
    }
    bench.report.pairs(&FIGURE, &pairs);
    Ok(())
}

/// A door to the cluster's API without TLS, so that the control pays for nothing but the pod.
struct ApiServer {
    proxy: Child,
    url: String,
    http: reqwest::Client,
}

impl ApiServer {
    fn open(cluster: &Cluster) -> crate::Result<Self> {
        use std::io::BufRead as _;
        let mut proxy = cluster.kubectl().args(["proxy", "--port=0"]).stdout(Stdio::piped()).spawn()?;
        let said = proxy.stdout.take().ok_or("the proxy says nothing")?;
        let mut line = String::new();
        std::io::BufReader::new(said).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        Ok(Self { proxy, url: format!("http://{address}"), http: reqwest::Client::new() })
    }

    /// Milliseconds from asking for a pod to its answer.
    async fn pod(&self, namespace: &str, name: &str) -> crate::Result<f64> {
        let pods = format!("{}/api/v1/namespaces/{namespace}/pods", self.url);
        let body = serde_json::to_string(&pod(name))?;
        let start = Instant::now();
        let asked =
            self.http.post(&pods).header("content-type", "application/json").body(body).send().await?;
        asked.error_for_status()?;
        let answered = tokio::time::timeout(Duration::from_secs(60), async {
            let address = loop {
                let seen = self.http.get(format!("{pods}/{name}")).send().await?.text().await?;
                let seen: Value = serde_json::from_str(&seen)?;
                match seen["status"]["podIP"].as_str() {
                    Some(address) => break address.to_owned(),
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            };
            loop {
                // Until its program listens, its kernel says no.
                match tokio::net::TcpStream::connect((address.as_str(), PORT)).await {
                    Ok(mut stream) => {
                        let mut answer = Vec::new();
                        stream.read_to_end(&mut answer).await?;
                        return crate::Result::Ok(answer);
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        });
        let answer = answered.await.map_err(|_| "the control pod did not answer within 60 s")??;
        let took = start.elapsed().as_secs_f64() * 1e3;
        self.http.delete(format!("{pods}/{name}?gracePeriodSeconds=0")).send().await?.error_for_status()?;
        if answer != b"hello\n" {
            return Err(format!("the control pod answered {}", String::from_utf8_lossy(&answer)).into());
        }
        Ok(took)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

/// As confined as a function's pod, and as large.
fn pod(name: &str) -> Value {
    let program = format!("PORT = {PORT}\nAPP = {PYTHON:?}\n{CONTROL}");
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "control", "image": image_on_nodes("runtime-python3.13"), "imagePullPolicy": "IfNotPresent",
                "command": ["/usr/bin/python3", "-s", "-B", "-c", program],
                "resources": {"limits": {"memory": "256Mi", "cpu": "1"}, "requests": {"memory": "256Mi", "cpu": "50m"}},
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}
            }]
        }
    })
}
