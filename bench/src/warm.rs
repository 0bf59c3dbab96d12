//! Warm calls through the gateway against nginx, both in front of the same server program in a container.

use crate::docker::Docker;
use crate::load::{self, Address};
use crate::nginx::Nginx;
use crate::platform::Platform;
use crate::report::Report;

const SERVER: &str = "const http = require('http');
const server = http.createServer((q, r) => { r.setHeader('content-length', 5); r.end('hello'); });
server.keepAliveTimeout = 600000;
process.umask(0);
server.listen(process.env.SOCKET || { port: process.env.PORT, host: '127.0.0.1' });
";
const TOML: &str = "name = \"warm\"\nruntime = \"node20\"\nkind = \"server\"\ncommand = [\"node\", \"server.js\"]\naccess = \"public\"\n\
concurrency = 64\nmax_instances = 1\n";

pub(crate) async fn run(
    platform: &Platform,
    docker: &Docker,
    repeats: usize,
    report: &mut Report,
) -> crate::Result<()> {
    platform.deploy(&[("davit.toml", TOML), ("server.js", SERVER)])?;
    let gateway = platform.gateway()?;
    let container = docker
        .start(
            "davit/runtime-node20:latest",
            &["env", "SOCKET=/s/sock", "node", "/s/server.js"],
            &[("server.js", SERVER)],
        )
        .await?;
    let direct = Address::Socket(container.socket());
    let mut tries = 0;
    while load::once(&direct, "/").await.is_err() {
        tries += 1;
        if tries > 500 {
            return Err("the control server did not answer".into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let nginx = Nginx::start(&container.socket()).await?;
    let control = Address::Port(nginx.port);
    for (address, path) in [(&gateway, "/default/warm"), (&control, "/"), (&direct, "/")] {
        load::closed_loop(address, path, 4, 400).await?;
    }
    for connections in [1, 64] {
        let count = if connections == 1 { 2_000 } else { 12_800 };
        let (mut rates, mut added) = (Vec::new(), Vec::new());
        for _ in 0..repeats {
            let ours = load::closed_loop(&gateway, "/default/warm", connections, count).await?;
            let theirs = load::closed_loop(&control, "/", connections, count).await?;
            let bare = load::closed_loop(&direct, "/", connections, count).await?;
            rates.push((ours.0, theirs.0));
            added.push((ours.1 - bare.1, theirs.1 - bare.1));
        }
        report.pairs(
            &format!("warm requests per second, {connections} connections: davit / nginx"),
            "/s",
            &rates,
        );
        if connections == 1 {
            report.pairs("warm added latency, 1 connection: davit / nginx", "ms", &added);
        }
    }
    Ok(())
}
