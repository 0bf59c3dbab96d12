//! `davit schema`: the JSON schema of `davit.toml`, as it is checked in under `docs/`.

use clap::Args;
use davit_api::Manifest;

use crate::failure::Result;

/// Print the JSON schema of davit.toml
#[derive(Args)]
pub(crate) struct Schema {}

impl Schema {
    pub(crate) fn run(self) -> Result<()> {
        crate::output::json(&Manifest::json_schema());
        Ok(())
    }
}
