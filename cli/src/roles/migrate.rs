//! `davit migrate`: the registry's schema brought up to date, and nothing else.

use std::time::Duration;

use clap::Args;
use davit_daemon::Backoff;
use davit_daemon::settings::parse_duration;
use davit_registry::{ConnectSettings, Registry};

use super::Log;
use crate::failure::{Failure, Result};
use crate::output::line;

/// Bring the schema of a registry up to date, and end
#[derive(Args)]
#[command(after_help = "\
Example:
  DATABASE_URL=postgres://davit@db/davit davit migrate --wait 5m

For deployments that do this before anything new starts. `davit up`, `davit controller` and
`davit gateway` do it at their start, too. Any number may run at once: one works, the others wait.
What is already there stays, and an older davit works on a newer schema.")]
pub(crate) struct Migrate {
    /// The registry's Postgres
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    /// How long to wait for a Postgres that does not answer yet
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    wait: Duration,
    #[command(flatten)]
    log: Log,
}

impl Migrate {
    pub(crate) fn run(self) -> Result<()> {
        super::run(&self.log, self.migrate())
    }

    async fn migrate(&self) -> Result<()> {
        let settings = ConnectSettings { max_connections: 2, ..ConnectSettings::new(&self.database_url) };
        let registry = connect(&settings, self.wait).await?;
        let done = registry.migrate().await.map_err(|e| Failure::while_doing("registry", e));
        registry.close().await;
        done?;
        line("the schema is up to date");
        Ok(())
    }
}

/// Connects to the registry, with patience for one that is only just starting.
pub(super) async fn connect(settings: &ConnectSettings, patience: Duration) -> Result<Registry> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let until = tokio::time::Instant::now() + patience;
    loop {
        match Registry::connect(settings).await {
            Ok(registry) => return Ok(registry),
            Err(error) if tokio::time::Instant::now() >= until => {
                return Err(Failure::while_doing("registry", error));
            }
            Err(error) => tracing::info!(%error, "waiting for the registry"),
        }
        backoff.wait().await;
    }
}
