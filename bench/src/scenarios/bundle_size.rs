//! What 50 MB of dependencies in the bundle, none of them imported, cost at a cold start.

use std::path::Path;

use super::{Scenario, cold};
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::platform::Setup;
use crate::programs::{PYTHON, manifest};

static FIGURE: Figure = Figure {
    id: "S8",
    name: "cold start with 50 MB of dependencies / with none",
    unit: "ms",
    goal: Goal::AtMost { target: 3.0, stretch: 1.5 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "bundle-size",
    about: "pooled cold start with a 50 MB bundle / the same function with none",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

const RUNTIME: &str = "python3.13";

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup::default()).await?;
    for name in ["large", "small"] {
        let folder = tempfile::tempdir()?;
        std::fs::write(
            folder.path().join("davit.toml"),
            manifest(name, RUNTIME, "handler = \"app.handler\"\n"),
        )?;
        std::fs::write(folder.path().join("app.py"), PYTHON)?;
        if name == "large" {
            dependencies(&folder.path().join("vendored"))?;
        }
        platform.deploy_folder(folder.path())?;
        platform.copy(name, bench.repeats).await?;
    }
    let mut pairs = Vec::new();
    for n in 1..=bench.repeats {
        let large = cold::start(&platform, RUNTIME, &format!("large-{n}")).await?;
        pairs.push((large, cold::start(&platform, RUNTIME, &format!("small-{n}")).await?));
    }
    bench.report.pairs(&FIGURE, &pairs);
    Ok(())
}

/// 2,000 modules of 4 KB and what they become when compiled, and four files of 9 MB that do not compress: as a
/// scientific library looks.
fn dependencies(folder: &Path) -> std::io::Result<()> {
    let mut noise = Noise(88_172_645_463_325_252);
    let line = "    return [value * 2 for value in range(100) if value % 3]\n";
    for package in 0..40 {
        let package = folder.join(format!("package_{package}"));
        std::fs::create_dir_all(&package)?;
        for module in 0..50 {
            let mut text = String::new();
            while text.len() < 4_096 {
                text += &format!("def function_{}():\n{line}", noise.next());
            }
            std::fs::write(package.join(format!("module_{module}.py")), text)?;
        }
    }
    for library in 0..4 {
        let bytes: Vec<u8> = (0..9 * 1024 * 1024 / 8).flat_map(|_| noise.next().to_le_bytes()).collect();
        std::fs::write(folder.join(format!("library_{library}.so")), bytes)?;
    }
    Ok(())
}

/// Xorshift (Marsaglia 2003): the same bytes at each run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
