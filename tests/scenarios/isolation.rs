//! What a function can see and reach: proven from inside one.

use davit_e2e::{Cluster, Davit};
use serde_json::{Value, json};

const PROBE: &str = r#"
import os, socket, json
def reach(host, port):
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return False
def status(field):
    for line in open('/proc/self/status'):
        if line.startswith(field + ':'):
            return line.split()[1]
def handler(event, context):
    gateway = None
    for line in open('/proc/net/route'):
        f = line.split()
        if f[1] == '00000000':
            gateway = socket.inet_ntoa(bytes.fromhex(f[2])[::-1])
    def writable(path):
        try:
            open(path, 'w').close(); return True
        except OSError:
            return False
    return {
        'uid': os.getuid(), 'caps': status('CapEff'), 'bounding': status('CapBnd'), 'nnp': status('NoNewPrivs'), 'seccomp': status('Seccomp'),
        'root': writable('/etc/x'), 'socket': os.path.exists('/var/run/docker.sock'), 'agent': os.path.exists('/run/davit/agent.sock'),
        'reached': [[h, p] for h in filter(None, ['127.0.0.1', gateway, event.get('host')]) for p in event['ports'] if reach(h, p)],
    }
"#;

#[tokio::test]
async fn a_function_has_no_rights_and_reaches_no_internal_port() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_files(&[
        ("davit.toml", "name = \"probe\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n"),
        ("app.py", PROBE),
    ])
    .await;
    let port = |url: &str| url.trim_end_matches('/').rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let ports = ["gateway_url", "management_url", "admin_url"].map(|f| port(&davit.endpoint(f)));
    let event = serde_json::json!({"ports": [ports[0], ports[1], ports[2], 5432, 2375]}).to_string();
    let seen = cli.invoke("probe", &event).await.json();
    assert_ne!(seen["uid"], 0, "{seen}");
    assert_eq!(seen["caps"].as_str().unwrap().trim_start_matches('0'), "", "{seen}");
    assert_eq!(seen["bounding"].as_str().unwrap().trim_start_matches('0'), "", "{seen}");
    assert_eq!((seen["nnp"].as_str(), seen["seccomp"].as_str()), (Some("1"), Some("2")), "{seen}");
    assert_eq!(
        (&seen["root"], &seen["socket"], &seen["agent"]),
        (&false.into(), &false.into(), &false.into()),
        "{seen}"
    );
    assert_eq!(seen["reached"], serde_json::json!([]), "{seen}");
}

/// Speaks where it is told to as a stranger, and says what it heard.
const STRANGER: &str = r#"
import glob, os, socket, ssl
def hear(host, port, tls):
    path = '/pods' if port == 10250 else '/api/v1/secrets'
    try:
        wire = socket.create_connection((host, port), timeout=2)
    except OSError:
        return 'not reached'
    try:
        wire.settimeout(10)
        if tls:
            blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
            wire = blind.wrap_socket(wire)
        ask = f'GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Filler: ' + 'x' * 200 + '\r\n\r\n'
        wire.sendall(ask.encode())
        heard = b''
        while piece := wire.recv(65536):
            heard += piece
        return heard[:200].decode('latin-1')
    except OSError as error:
        return heard[:200].decode('latin-1') if heard else 'closed'
    finally:
        wire.close()
def handler(event, context):
    token = glob.glob('/var/run/secrets/kubernetes.io/*/*')
    named = [n for n in os.environ if 'KUBERNETES' in n or 'LINK' in n]
    return {'heard': [[d, hear(*d)] for d in event['doors']], 'token': token, 'named': named}
"#;

/// On a cluster whose network lets everything through, as one without NetworkPolicies does.
#[tokio::test]
async fn in_a_cluster_every_door_that_a_function_can_reach_stays_shut() {
    let Some(cluster) = Cluster::for_story() else { return };
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("neighbour", "", "def handler(event, context):\n    return 'here'\n").await;
    assert_eq!(cli.invoke("neighbour", "{}").await.json(), "here");
    cli.deploy_python("stranger", "timeout_seconds = 120\n", STRANGER).await;
    let mut doors: Vec<Value> =
        cluster.own_doors().iter().map(|(host, port)| json!([host, port, true])).collect();
    let agents = cluster.addresses_of(&davit.endpoint("installation"));
    assert!(!agents.is_empty(), "the neighbour has a pod");
    doors.extend(agents.iter().map(|pod| json!([pod, 9000, false])));
    let seen = cli.invoke("stranger", &json!({ "doors": doors }).to_string()).await.json();
    assert_eq!((&seen["token"], &seen["named"]), (&json!([]), &json!([])), "no key to the cluster: {seen}");
    let heard = seen["heard"].as_array().expect("a list");
    assert_eq!(heard.len(), doors.len());
    let mut agents_met = 0;
    for door in heard {
        let (port, said) = (&door[0][1], door[1].as_str().expect("a text"));
        let shut = match port.as_u64() {
            Some(443 | 10250) => said.contains(" 401 ") || said.contains(" 403 "),
            Some(9000) => {
                // It says what it is, and closes when the other does not know the instance's secret.
                agents_met += u32::from(said.starts_with("davit\0\0"));
                said.starts_with("davit\0\0") && said.chars().count() == 40
                    || said == "not reached"
                    || said == "closed"
            }
            _ => false,
        };
        assert!(shut, "{door} in {seen}");
    }
    assert!(agents_met > 0, "nobody was asked: {seen}");
}

/// On a cluster that has gVisor, whose kernel is another than the node's.
#[tokio::test]
async fn in_a_cluster_with_gvisor_functions_have_a_kernel_of_their_own() {
    let Some(cluster) = Cluster::for_story() else { return };
    if !cluster.asked(&["get", "runtimeclass", "-o", "name"]).contains("/gvisor") {
        eprintln!("skipped: the cluster has no runtime class gvisor");
        return;
    }
    let davit = Davit::up_placed(json!({ "runtimeClassName": "gvisor" })).await;
    let cli = davit.cli();
    let code = "import os\ndef handler(event, context):\n    return os.uname().release\n";
    cli.deploy_python("inside", "", code).await;
    let inside = cli.invoke("inside", "{}").await.json();
    let outside = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_ne!(inside.as_str(), Some(outside.trim()));
    // What gVisor says that it is (its source, pkg/sentry/kernel/version/version.go).
    assert_eq!(inside, "4.4.0");
}
