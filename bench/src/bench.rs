//! What every scenario works with: the platform under measurement, the engine, the report.

use std::path::PathBuf;
use std::rc::Rc;

use crate::Args;
use crate::docker::Docker;
use crate::platform::{Platform, Setup};
use crate::report::Report;
use crate::versions;

/// The run.
pub(crate) struct Bench {
    /// Repeats of each pair.
    pub(crate) repeats: usize,
    /// The engine.
    pub(crate) docker: Rc<Docker>,
    /// The static program of `bench/native/`.
    pub(crate) native: PathBuf,
    /// AWS's emulator, if there is one.
    pub(crate) emulator: Option<PathBuf>,
    /// What was measured.
    pub(crate) report: Report,
    davit: PathBuf,
    platform: Option<Rc<Platform>>,
}

impl Bench {
    pub(crate) async fn new(args: &Args) -> crate::Result<Self> {
        let docker = Docker::connect()?;
        let report = Report::new(versions::all(&docker, &args.davit).await?);
        Ok(Self {
            repeats: args.repeats,
            docker: Rc::new(docker),
            native: std::fs::canonicalize(&args.native)
                .map_err(|e| format!("{}: {e}", args.native.display()))?,
            emulator: args.emulator.clone(),
            report,
            davit: args.davit.clone(),
            platform: None,
        })
    }

    /// A davit that was started like this: the running one, if it was, else a new one in its place.
    pub(crate) async fn platform(&mut self, setup: Setup) -> crate::Result<Rc<Platform>> {
        if let Some(platform) = self.platform.as_ref().filter(|p| p.setup == setup) {
            return Ok(platform.clone());
        }
        self.stop();
        let platform = Rc::new(Platform::up(&self.davit, setup).await?);
        self.platform = Some(platform.clone());
        Ok(platform)
    }

    /// A new davit for a scenario that restarts it. No other runs meanwhile.
    pub(crate) async fn own_platform(&mut self, setup: Setup) -> crate::Result<Platform> {
        self.stop();
        Platform::up(&self.davit, setup).await
    }

    /// Takes every function away, so that the next scenario begins with an idle platform.
    pub(crate) async fn clear(&mut self) {
        if let Some(platform) = &self.platform
            && platform.clear().await.is_err()
        {
            self.stop();
        }
    }

    /// Ends the platform.
    pub(crate) fn stop(&mut self) {
        self.platform = None;
    }
}
