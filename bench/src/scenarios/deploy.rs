//! From a changed file to the first answer that shows the change: `davit deploy` against `docker build` with a warm
//! cache and `docker run`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

use super::Scenario;
use crate::bench::Bench;
use crate::docker::image;
use crate::figure::{Figure, Goal};
use crate::load::{self, Request};
use crate::platform::{Platform, Setup};
use crate::programs::manifest;

static FIGURE: Figure = Figure {
    id: "S14",
    name: "one-file change until it answers: davit deploy / docker build + run",
    unit: "ms",
    goal: Goal::AtMost { target: 1.0 / 3.0, stretch: 1.0 / 10.0 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "deploy",
    about: "a one-file change until it is live / docker build with a warm cache and docker run of the same",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

const TAG: &str = "davit-bench-deploy";
const CONTROL: &str = "import socket, app\ns = socket.socket(socket.AF_UNIX)\ns.connect('/s/answer')\n\
                       s.sendall(app.handler({}, None)['body'].encode())\n";

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup::default()).await?;
    let outcome = measure(bench, &platform).await;
    let _ = Command::new("docker").args(["image", "rm", "-f", TAG]).output();
    outcome
}

async fn measure(bench: &mut Bench, platform: &Platform) -> crate::Result<()> {
    let folder = tempfile::tempdir()?;
    let toml = manifest("deploy", "python3.13", "handler = \"app.handler\"\n");
    std::fs::write(folder.path().join("davit.toml"), toml)?;
    std::fs::write(folder.path().join(".davitignore"), "Dockerfile\ncontrol.py\n")?;
    std::fs::write(folder.path().join("control.py"), CONTROL)?;
    let dockerfile = format!(
        "FROM {}\nWORKDIR /app\nCOPY control.py ./\nCOPY app.py ./\nENTRYPOINT [\"/usr/bin/python3\", \"-B\", \"/app/control.py\"]\n",
        image("python3.13")
    );
    std::fs::write(folder.path().join("Dockerfile"), dockerfile)?;
    let mut pairs = Vec::new();
    // The first round fills both caches and does not count.
    for n in 0..=bench.repeats {
        let word = format!("change {n}");
        let app =
            format!("def handler(event, context):\n    return {{'statusCode': 200, 'body': '{word}'}}\n");
        std::fs::write(folder.path().join("app.py"), app)?;
        let davit = davit(platform, folder.path(), &word).await?;
        platform.rested("python3.13", 2).await?;
        // What davit starts ahead of the next deploy must not run beside the control.
        platform.spares(2).await?;
        let control = control(folder.path(), &word).await?;
        if n > 0 {
            pairs.push((davit, control));
        }
        platform.rested("python3.13", 2).await?;
    }
    bench.report.pairs(&FIGURE, &pairs);
    Ok(())
}

async fn davit(platform: &Platform, folder: &Path, word: &str) -> crate::Result<f64> {
    let request = Request::get(platform.gateway()?, "/default/deploy");
    let start = Instant::now();
    platform.deploy_folder(folder)?;
    while start.elapsed() < Duration::from_secs(60) {
        if load::once(&request).await.is_ok_and(|(_, answer)| answer.ends_with(word)) {
            return Ok(start.elapsed().as_secs_f64() * 1e3);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err("the change did not become live within a minute".into())
}

async fn control(folder: &Path, word: &str) -> crate::Result<f64> {
    use std::os::unix::fs::PermissionsExt;
    let shared = tempfile::Builder::new().prefix("davit-bench-").tempdir_in("/tmp")?;
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o777))?;
    let listener = UnixListener::bind(shared.path().join("answer"))?;
    std::fs::set_permissions(shared.path().join("answer"), std::fs::Permissions::from_mode(0o777))?;
    let before = docker(&["image", "inspect", "-f", "{{.Id}}", TAG]);
    let start = Instant::now();
    docker(&["build", "-q", "--force-rm", "-t", TAG, &folder.display().to_string()])?;
    let volume = format!("{}:/s", shared.path().display());
    let id = docker(&["run", "-d", "--network", "none", "--memory", "256m", "-v", &volume, TAG])?;
    let answered = tokio::time::timeout(Duration::from_secs(30), async {
        let mut answer = String::new();
        listener.accept().await?.0.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    })
    .await;
    let took = start.elapsed().as_secs_f64() * 1e3;
    let _ = docker(&["rm", "-f", &id]);
    if let Ok(before) = before {
        let _ = docker(&["image", "rm", &before]);
    }
    match answered {
        Ok(Ok(answer)) if answer == word => Ok(took),
        other => Err(format!("the control answered {other:?}").into()),
    }
}

/// Runs the engine's client. The classic builder is in every engine; the newer one needs a plugin.
fn docker(args: &[&str]) -> crate::Result<String> {
    let output =
        Command::new("docker").args(args).env("DOCKER_BUILDKIT", "0").stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("docker {}: {}", args[0], String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
