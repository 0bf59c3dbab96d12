//! Cold start of a function with an image of its own against a container that is made of the same image for it, with the same
//! limits. Once where nothing waits, as for the first call in a while of one among many; once where an instance does.

use super::{Scenario, cold};
use crate::bench::Bench;
use crate::docker::Control;
use crate::figure::{Figure, Goal};
use crate::platform::{Platform, Setup};

static ON_DEMAND: Figure = Figure {
    id: "S7",
    name: "own image, none waits: cold start / Docker create + start → first byte",
    unit: "ms",
    goal: Goal::AtMost { target: 1.15, stretch: 1.05 },
};
static WAITING: Figure = Figure {
    id: "S7a",
    name: "own image, one waits: cold start / Docker create + start → first byte",
    unit: "ms",
    goal: Goal::AtMost { target: 1.0 / 5.0, stretch: 1.0 / 20.0 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "own-image",
    about: "cold start of a function with an image of its own / a container made of that image through the engine's API",
    figures: &[&ON_DEMAND, &WAITING],
    run: |bench| Box::pin(run(bench)),
};

const DOCKERFILE: &str =
    "FROM davit/runtime-provided\nCOPY native /native\nENTRYPOINT [\"/native\"]\nCMD [\"serve\"]\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nhello\n";
const IMAGE: &str = "select image_digest from versions where spec ->> 'runtime' = 'image' limit 1";

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup { pool_base: Some(0), ..Setup::default() }).await?;
    deploy(&platform, bench)?;
    platform.copy_apart("own", bench.repeats).await?;
    pairs(bench, &platform, 0, &ON_DEMAND).await?;

    let platform = bench.platform(Setup::default()).await?;
    deploy(&platform, bench)?;
    platform.copy("own", bench.repeats).await?;
    pairs(bench, &platform, 1, &WAITING).await
}

/// First calls of the copies while so many instances wait, each followed by a container.
async fn pairs(
    bench: &mut Bench,
    platform: &Platform,
    waiting: u64,
    figure: &'static Figure,
) -> crate::Result<()> {
    let image = platform.sql.run(IMAGE)?;
    let control =
        Control { image: &image, command: &["/native", "answer", "/s/answer"], ..Control::default() };
    let mut pairs = Vec::new();
    for n in 1..=bench.repeats {
        platform.rested_with(&image, waiting).await?;
        let davit = cold::first(platform, &format!("own-{n}")).await?;
        platform.rested_with(&image, waiting).await?;
        pairs.push((davit, cold::in_a_container(&bench.docker, &control, ANSWER).await?));
    }
    bench.report.pairs(figure, &pairs);
    Ok(())
}

fn deploy(platform: &Platform, bench: &Bench) -> crate::Result<()> {
    let folder = tempfile::tempdir()?;
    let toml = "name = \"own\"\nkind = \"server\"\naccess = \"public\"\nkeep_alive_seconds = 1\nnetwork = \"none\"\n";
    std::fs::write(folder.path().join("davit.toml"), toml)?;
    std::fs::write(folder.path().join("Dockerfile"), DOCKERFILE)?;
    std::fs::copy(&bench.native, folder.path().join("native"))?;
    platform.deploy_folder(folder.path())
}
