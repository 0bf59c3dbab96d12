//! `davit rollback`: makes an earlier version live again, without a build.

use clap::Args;
use davit_api::FunctionName;

use crate::context::Globals;
use crate::failure::Result;
use crate::output::{json, line};

/// Make an earlier version live again
#[derive(Args)]
#[command(
    after_help = "Examples:\n  davit rollback hello             the version before\n  davit rollback hello --version 3"
)]
pub(crate) struct Rollback {
    /// The function
    function: FunctionName,
    /// The version to go to [default: the one that was live before]
    #[arg(long = "to", visible_alias = "version", value_name = "NUMBER")]
    to: Option<u32>,
}

impl Rollback {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let version = globals.api()?.rollback(&self.function, self.to).await?;
        if globals.json() {
            json(&version);
        } else {
            line(format!("{} version {} is live", self.function, version.number));
        }
        Ok(())
    }
}
