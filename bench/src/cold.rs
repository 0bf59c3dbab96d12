//! Pooled cold start against a container of one's own: both from nothing to the full answer of the same
//! Python function.

use std::time::{Duration, Instant};

use crate::docker::Docker;
use crate::load::{self, Address};
use crate::platform::Platform;
use crate::report::Report;

const FUNCTION: &str = "def handler(event, context):\n    return {'statusCode': 200, 'body': 'hello'}\n";

/// The same function behind the smallest server that could stand for it.
const CONTROL: &str = r"
import os, socketserver, http.server, sys
sys.path.insert(0, '/s')
import app
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = app.handler({}, None)['body'].encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
    def address_string(self): return 'unix'
os.umask(0)
socketserver.UnixStreamServer('/s/sock', Handler).serve_forever()
";

pub(crate) async fn run(
    platform: &Platform,
    docker: &Docker,
    repeats: usize,
    report: &mut Report,
) -> crate::Result<()> {
    let gateway = platform.gateway()?;
    for n in 0..repeats {
        let toml = format!(
            "name = \"cold-{n}\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\naccess = \"public\"\n"
        );
        platform.deploy(&[("davit.toml", &toml), ("app.py", FUNCTION)])?;
    }
    let mut pairs = Vec::new();
    for n in 0..repeats {
        platform.pool_ready().await?;
        let davit = load::once(&gateway, &format!("/default/cold-{n}")).await?;
        pairs.push((davit.as_secs_f64() * 1e3, control(docker).await?.as_secs_f64() * 1e3));
    }
    report.pairs("Python cold start: pooled / Docker create+start→answer", "ms", &pairs);
    Ok(())
}

async fn control(docker: &Docker) -> crate::Result<Duration> {
    let start = Instant::now();
    let container = docker
        .start(
            "davit/runtime-python3.13:latest",
            &["python3", "/s/control.py"],
            &[("control.py", CONTROL), ("app.py", FUNCTION)],
        )
        .await?;
    let address = Address::Socket(container.socket());
    while start.elapsed() < Duration::from_secs(30) {
        if load::once(&address, "/").await.is_ok() {
            return Ok(start.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err("the control container did not answer within 30 s".into())
}
