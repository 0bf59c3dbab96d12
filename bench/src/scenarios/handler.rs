//! Warm calls of a Python handler through the gateway, against the same handler with the same runtime client under
//! AWS's Runtime Interface Emulator; where that is not at hand, under the smallest Runtime API that works.

use super::Scenario;
use crate::bench::Bench;
use crate::docker::{Container, Control, free_port, image, until_ok};
use crate::figure::{Figure, Goal};
use crate::load::{self, Request};
use crate::platform::Setup;
use crate::programs::{PYTHON, manifest};

static FIGURE: Figure = Figure {
    id: "S11",
    name: "warm handler round trip: gateway / emulator",
    unit: "ms",
    goal: Goal::AtMost { target: 0.5, stretch: 0.25 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "handler",
    about: "warm round trip of a Python handler through the gateway / under a Runtime API emulator",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

const REQUESTS: usize = 1_000;
/// Our runtime's own loop over the plain Runtime API, without the platform's warm start.
const CONTROL: &str = "import os, sys
sys.path[:0] = ['/opt/davit/runtime', '/s']
import bootstrap, app
client = bootstrap.RuntimeClient(os.environ['AWS_LAMBDA_RUNTIME_API'])
function = {'function_name': 'handler', 'version': '1', 'memory_mb': 256, 'log_group': 'group', 'log_stream': 'stream', 'arn': 'arn'}
while True:
    bootstrap.invoke_once(client, app.handler, function)
";
const EVENT: &str = r#"{"version":"2.0","routeKey":"$default","rawPath":"/","rawQueryString":"","headers":{"host":"localhost","x-forwarded-for":"127.0.0.1","x-forwarded-port":"80","x-forwarded-proto":"http"},"requestContext":{"accountId":"default","apiId":"handler","domainName":"localhost","domainPrefix":"localhost","http":{"method":"GET","path":"/","protocol":"HTTP/1.1","sourceIp":"127.0.0.1","userAgent":""},"requestId":"8476a536-e9f4-11e8-9739-2dfe598c3fcd","routeKey":"$default","stage":"$default","time":"24/Nov/2026:00:00:00 +0000","timeEpoch":1795478400000},"isBase64Encoded":false}"#;

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup::default()).await?;
    let more = "handler = \"app.handler\"\nmax_instances = 1\nkeep_alive_seconds = 600\n";
    platform.deploy(&[("davit.toml", &manifest("handler", "python3.13", more)), ("app.py", PYTHON)])?;
    let ours = Request::get(platform.gateway()?, "/default/handler");
    let (container, theirs) = emulator(bench).await?;
    until_ok("the deployed function", async || load::once(&ours).await).await?;
    if let Err(error) = until_ok("the emulator", async || load::once(&theirs).await).await {
        return Err(format!("{error}\n{}", bench.docker.words(&container)).into());
    }
    for request in [&ours, &theirs] {
        load::closed_loop(request, 1, REQUESTS / 5).await?;
    }
    let mut pairs = Vec::new();
    for _ in 0..bench.repeats {
        let davit = load::closed_loop(&ours, 1, REQUESTS).await?.percentile(0.5);
        pairs.push((davit, load::closed_loop(&theirs, 1, REQUESTS).await?.percentile(0.5)));
    }
    bench.report.pairs(&FIGURE, &pairs);
    let which = if bench.emulator.is_some() {
        "AWS's Runtime Interface Emulator"
    } else {
        "a minimal Runtime API of our own"
    };
    bench.report.note(format!("S11: the control is {which}"));
    Ok(())
}

async fn emulator(bench: &Bench) -> crate::Result<(Container, Request)> {
    let (front, api) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
    let runtime = ["/usr/bin/python3", "-s", "-B", "/s/control.py", "app.handler"];
    let mut command: Vec<&str> = match &bench.emulator {
        Some(_) => {
            vec!["/s/emulator", "--runtime-interface-emulator-address", &front, "--runtime-api-address", &api]
        }
        None => vec!["/s/emulator", "emulator", &front, &api],
    };
    command.extend(runtime);
    let control = Control {
        image: &image("python3.13"),
        command: &command,
        files: &[("control.py", CONTROL), ("app.py", PYTHON)],
        programs: &[("emulator", bench.emulator.as_ref().unwrap_or(&bench.native))],
        host_network: true,
        ..Control::default()
    };
    let container = bench.docker.start(&control).await?;
    let port = front.rsplit(':').next().ok_or("no port")?.parse()?;
    let path = "/2015-03-31/functions/function/invocations";
    Ok((container, Request::post(port, path, &[], EVENT)))
}
