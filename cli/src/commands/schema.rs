//! `davit schema`: the JSON schemas of `davit.toml` and `davit.project.toml`, as they are checked in under `docs/`.

use clap::Args;
use davit_api::{Manifest, ProjectFile};

use crate::failure::Result;

/// Print the JSON schema of davit.toml
#[derive(Args)]
pub(crate) struct Schema {
    /// Of davit.project.toml instead
    #[arg(long)]
    project: bool,
}

impl Schema {
    pub(crate) fn run(self) -> Result<()> {
        crate::output::json(&if self.project { ProjectFile::json_schema() } else { Manifest::json_schema() });
        Ok(())
    }
}
