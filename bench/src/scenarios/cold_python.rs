//! Pooled cold start against a container of one's own: both from nothing to the full answer of the same
//! Python function.

use super::{Scenario, cold};
use crate::bench::Bench;
use crate::docker::{Control, Docker, image};
use crate::figure::{Figure, Goal, short};
use crate::load::{self, Request};
use crate::platform::{Platform, Setup};
use crate::programs::{PYTHON, manifest};
use crate::report::Spread;

static FIGURE: Figure = Figure {
    id: "S3",
    name: "Python cold start: pooled / Docker create + start → answer",
    unit: "ms",
    goal: Goal::AtMost { target: 1.0 / 25.0, stretch: 1.0 / 50.0 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "cold-python",
    about: "pooled cold start of a Python function / a container made for it through the engine's API",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

/// The same function as a program that answers to where the bench listens: no server, no polling.
const CONTROL: &str = r"
import socket, sys
sys.path.insert(0, '/s')
import app
s = socket.socket(socket.AF_UNIX)
s.connect('/s/answer')
s.sendall(app.handler({}, None)['body'].encode())
";

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup::default()).await?;
    let toml = manifest("cold", "python3.13", "handler = \"app.handler\"\n");
    platform.deploy(&[("davit.toml", &toml), ("app.py", PYTHON)])?;
    platform.copy("cold", 2 * bench.repeats).await?;
    let mut pairs = Vec::new();
    for n in 1..=bench.repeats {
        let davit = cold::start(&platform, "python3.13", &format!("cold-{n}")).await?;
        platform.rested("python3.13", 1).await?;
        pairs.push((davit, control(&bench.docker).await?));
    }
    bench.report.pairs(&FIGURE, &pairs);
    phases(bench, &platform).await
}

/// Where the time of cold starts goes, as the gateway tells callers of its API.
async fn phases(bench: &mut Bench, platform: &Platform) -> crate::Result<()> {
    let bearer = format!("Bearer {}", platform.token()?);
    // In the order in which they come.
    let mut phases: Vec<(String, Vec<f64>)> = Vec::new();
    for n in bench.repeats + 1..=2 * bench.repeats {
        platform.rested("python3.13", 1).await?;
        let path = format!("/v1/namespaces/default/functions/cold-{n}/invocations");
        let request = Request::post(platform.gateway()?, &path, &[("Authorization", &bearer)], "{}");
        let (total, answer) = load::once(&request).await?;
        let timing = answer
            .lines()
            .find_map(|l| l.strip_prefix("x-davit-cold-phases: "))
            .ok_or("no phases in the answer")?;
        for phase in timing.trim().split(';').chain([format!("whole={total}").as_str()]) {
            let (name, ms) = phase.split_once('=').ok_or("timing is not name=ms")?;
            match phases.iter_mut().find(|(known, _)| known == name) {
                Some((_, all)) => all.push(ms.parse()?),
                None => phases.push((name.to_owned(), vec![ms.parse()?])),
            }
        }
    }
    let medians: Vec<String> =
        phases.iter().map(|(name, ms)| format!("{name} {} ms", short(Spread::of(ms).median))).collect();
    bench.report.note(format!("phases of a Python cold start, medians: {}", medians.join(", ")));
    Ok(())
}

async fn control(docker: &Docker) -> crate::Result<f64> {
    let control = Control {
        image: &image("python3.13"),
        command: &["/usr/bin/python3", "-s", "-B", "/s/control.py"],
        files: &[("control.py", CONTROL), ("app.py", PYTHON)],
        ..Control::default()
    };
    cold::in_a_container(docker, &control, b"hello\n").await
}
