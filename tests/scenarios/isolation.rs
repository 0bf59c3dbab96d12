//! What a function can see and reach: proven from inside one.

use davit_e2e::Davit;

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
