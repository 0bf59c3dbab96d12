//! A function of a size that no pool is kept for gets a pod that waited as another, where a cluster resizes pods.

use davit_e2e::{Cluster, Davit, eventually, pooled_python};

const HANDLER: &str = "
import os, socket

def limit():
    for path in ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'):
        if os.path.exists(path):
            return int(open(path).read())

def handler(event, context):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out:
        way_out.connect(('10.213.0.254', 1))
        return {'address': way_out.getsockname()[0], 'mb': limit() >> 20}
";

async fn one_waits(davit: &Davit) {
    eventually("a pod in the pool", async || {
        let status = davit.status().await;
        if pooled_python(&status) > 0 { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_waited_as_another_size_answers_with_the_size_that_is_asked_for() {
    let Some(cluster) = Cluster::for_story() else { return };
    let davit = Davit::up().await;
    let (cli, installation) = (davit.cli(), davit.endpoint("installation"));
    cli.deploy_python("small", "memory_mb = 160\n", HANDLER).await;
    one_waits(&davit).await;
    let waited = cluster.addresses_of(&installation);
    let said = cli.invoke("small", "{}").await.json();
    let pod = said["address"].as_str().unwrap().to_owned();
    assert!(waited.contains(&pod), "{pod} was started for the call; these waited: {waited:?}");
    assert_eq!(said["mb"], 160);
    // Of such a size none waits any more, and the function has one.
    assert_eq!(cli.invoke("small", "{}").await.json(), said);
    one_waits(&davit).await;
}
