//! What nodes do with the pods on them: a drain, a more important pod, a power failure. Told where there is a cluster. Callers
//! have threads of their own, since the cluster's client is waited for in the story's.

use std::time::{Duration, SystemTime};

use davit_e2e::{
    Answer, Cluster, Davit, Made, SecondNode, Steady, containers_of, eventually, eventually_within,
};
use serde_json::json;
use tokio::task::JoinHandle;

/// Says in which pod it runs, by its address, after a while if it is told to take one.
const HANDLER: &str = "
import socket, time

def handler(event, context):
    time.sleep(event.get('sleep', 0) if isinstance(event, dict) else 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out:
        way_out.connect(('10.213.0.254', 1))
        return way_out.getsockname()[0]
";
/// One instance takes one call, so that a call under way and steady callers have an instance each.
const PUBLIC: &str = "access = \"public\"\npayload = \"body\"\ntimeout_seconds = 120\nmax_instances = 6\n";

/// The node that is always there.
const OTHER: &str = "node-1";

/// Takes no new pods while this lives.
struct Cordon<'a>(&'a Cluster, String);

impl<'a> Cordon<'a> {
    fn of(cluster: &'a Cluster, node: &str) -> Self {
        cluster.asked(&["cordon", node]);
        Self(cluster, node.to_owned())
    }
}

impl Drop for Cordon<'_> {
    fn drop(&mut self) {
        let _ = self.0.kubectl().args(["uncordon", &self.1]).output();
    }
}

/// A pod that was met.
#[derive(Debug)]
struct Met {
    name: String,
    node: String,
}

/// Calls until there is an answer, and finds the pod that it comes from.
async fn pod_that_answers(cluster: &Cluster, davit: &Davit) -> Met {
    let answer = eventually("an answer", async || {
        let answer = davit.api().invoke("moves", &json!({})).await;
        if answer.status == 200 { Ok(answer) } else { Err(answer) }
    })
    .await;
    let address = answer.body.as_str().expect("an address");
    let one = "{.status.podIP} {.metadata.name} {.spec.nodeName}{\"\\n\"}";
    let all = format!("jsonpath={{range .items[*]}}{one}{{end}}");
    let listed = cluster.asked(&["get", "pods", "--all-namespaces", "-l", &of(davit), "-o", &all]);
    let words = listed.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = words.into_iter().find(|words| words[0] == address);
    let found = found.unwrap_or_else(|| panic!("no pod has {address}: {listed}"));
    Met { name: found[1].to_owned(), node: found[2].to_owned() }
}

/// Selects the pods of a davit.
fn of(davit: &Davit) -> String {
    format!("davit.installation={}", davit.endpoint("installation"))
}

/// A call that takes so long, and is under way when this returns.
async fn long_call(davit: &Davit, seconds: u64) -> JoinHandle<Answer> {
    let api = davit.api();
    let call = tokio::spawn(async move { api.invoke("moves", &json!({ "sleep": seconds })).await });
    eventually("the call to be under way", async || {
        let status = davit.status().await;
        let fleets = status["gateway"]["fleets"].as_array().cloned().unwrap_or_default();
        if fleets.iter().any(|fleet| fleet["in_use"] == 1) { Ok(()) } else { Err(fleets) }
    })
    .await;
    call
}

fn steady(davit: &Davit) -> Steady {
    Steady::calling(&davit.http, davit.url("/default/moves"), "{}".into(), Duration::from_millis(10))
}

/// A call that is under way, and a steady caller whose calls another instance answers.
async fn load(cluster: &Cluster, davit: &Davit) -> (JoinHandle<Answer>, Steady) {
    let long = long_call(davit, 10).await;
    pod_that_answers(cluster, davit).await;
    let steady = steady(davit);
    steady.more(20).await;
    (long, steady)
}

/// No call failed, the one under way included.
async fn all_answered((long, steady): (JoinHandle<Answer>, Steady)) {
    steady.more(20).await;
    steady.stop().await.all_good("calls meanwhile");
    let long = long.await.expect("the call's task ends");
    assert_eq!(long.status, 200, "a call under way ends first: {long:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_takes_no_call_along() {
    let Some(cluster) = Cluster::for_story() else { return };
    let _node = cluster.second_node().await;
    let cordon = Cordon::of(&cluster, OTHER);
    let davit = Davit::up().await;
    davit.cli().deploy_python("moves", PUBLIC, HANDLER).await;
    let first = pod_that_answers(&cluster, &davit).await;
    assert_eq!(first.node, SecondNode::NAME);
    let load = load(&cluster, &davit).await;
    let before = load.1.ended();
    drop(cordon);
    let _back = Cordon::of(&cluster, SecondNode::NAME);
    // As an administrator does it, but that the pods of others stay.
    let what = ["drain", SecondNode::NAME, "--ignore-daemonsets", "--delete-emptydir-data"];
    cluster.asked(&[&what[..], &["--timeout=100s", "--pod-selector", &of(&davit)]].concat());
    assert!(load.1.ended() > before, "nobody was answered while it was drained");
    all_answered(load).await;
    assert_eq!(pod_that_answers(&cluster, &davit).await.node, OTHER);
}

fn priority(cluster: &Cluster, name: &str, value: i32) -> Made {
    cluster.with(&json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name },
        "value": value, "description": "of a test",
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_has_to_make_room_ends_its_calls_first_and_is_replaced() {
    let Some(cluster) = Cluster::for_story() else { return };
    let unique = unique();
    let (low, high) = (format!("low-{unique}"), format!("high-{unique}"));
    // Below everybody else, so that nobody else's pods are in question.
    let _ranks = (priority(&cluster, &low, -20), priority(&cluster, &high, -10));
    let davit = Davit::up_placed(json!({ "priorityClassName": low })).await;
    davit.cli().deploy_python("moves", PUBLIC, HANDLER).await;
    let first = pod_that_answers(&cluster, &davit).await;
    let load = load(&cluster, &davit).await;
    // It wants to be where none of them is, and on this node.
    let installation = davit.endpoint("installation");
    let before = containers_of(&installation);
    let greedy = format!("greedy-{unique}");
    let apart = json!({
        "topologyKey": "kubernetes.io/hostname", "namespaceSelector": {},
        "labelSelector": { "matchExpressions": [
            { "key": "davit.installation", "operator": "In", "values": [installation] },
            { "key": "davit.instance", "operator": "In", "values": instances_of(&cluster, &davit) },
        ] },
    });
    let _greedy = cluster.with(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": greedy, "namespace": "default" },
        "spec": {
            "priorityClassName": high, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "nodeSelector": { "kubernetes.io/hostname": first.node },
            "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [apart] } },
            "containers": [{ "name": "pause", "image": "davit.local/pause:1" }],
        },
    }));
    eventually_within(Duration::from_secs(120), "the more important pod to have its place", async || {
        let seen =
            cluster.asked(&["get", "pod", &greedy, "-o", "jsonpath={.spec.nodeName}{.status.conditions}"]);
        if seen.starts_with("node-") { Ok(()) } else { Err(seen) }
    })
    .await;
    all_answered(load).await;
    let after = pod_that_answers(&cluster, &davit).await;
    assert!(!before.contains(&after.name), "{after:?} was to go");
}

fn instances_of(cluster: &Cluster, davit: &Davit) -> Vec<String> {
    let output = "jsonpath={.items[*].metadata.labels.davit\\.instance}";
    let listed = cluster.asked(&["get", "pods", "--all-namespaces", "-l", &of(davit), "-o", output]);
    listed.split_whitespace().map(str::to_owned).collect()
}

/// Of names in the whole cluster, what makes them this run's.
fn unique() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{}-{}", std::process::id(), since.as_nanos())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_lost_takes_its_own_calls_along_and_says_so_and_its_instances_are_replaced() {
    let Some(cluster) = Cluster::for_story() else { return };
    let node = cluster.second_node().await;
    let cordon = Cordon::of(&cluster, OTHER);
    let davit = Davit::up().await;
    davit.cli().deploy_python("moves", PUBLIC, HANDLER).await;
    let first = pod_that_answers(&cluster, &davit).await;
    assert_eq!(first.node, SecondNode::NAME);
    drop(cordon);
    let lost = containers_of(&davit.endpoint("installation"));
    let long = long_call(&davit, 100).await;
    node.lose();
    let answer = long.await.unwrap();
    assert_eq!((answer.status, answer.code()), (502, "instance_lost"), "{answer:?}");
    let next = pod_that_answers(&cluster, &davit).await;
    assert_eq!(next.node, OTHER);
    let calls = steady(&davit);
    // The cluster takes a minute to call a node lost; until then its pods are said to run.
    eventually_within(Duration::from_secs(180), "davit to give the lost pods up", async || {
        let left = containers_of(&davit.endpoint("installation"));
        let left: Vec<_> = left.into_iter().filter(|pod| lost.contains(pod)).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    calls.more(20).await;
    calls.stop().await.all_good("calls while the cluster finds out");
}
