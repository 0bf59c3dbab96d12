//! `davit promote`: makes a version live, at once or in steps, without a build.

use clap::Args;
use davit_api::{FunctionName, Promote as Body, Qualifier};

use super::canary::CanaryOptions;
use crate::context::Globals;
use crate::failure::Result;
use crate::output::{json, line};

/// Make a version live, without a build
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit promote hello 7
  davit promote hello beta                            the version that the alias leads to
  davit promote hello 7 --canary 5,25,50 --max-errors 1%")]
pub(crate) struct Promote {
    /// The function
    function: FunctionName,
    /// The version's number, or an alias that leads to it
    #[arg(value_name = "VERSION|ALIAS")]
    version: Qualifier,
    #[command(flatten)]
    canary: CanaryOptions,
}

impl Promote {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let canary = self.canary.spec();
        let first = canary.as_ref().and_then(|spec| spec.steps.first().copied());
        let body = Body { version: self.version, canary };
        let version = globals.api()?.promote(&self.function, &body).await?;
        if globals.json() {
            json(&version);
        } else if let Some(percent) = first {
            line(format!("{} version {} gets {percent}% of the calls", self.function, version.number));
        } else {
            line(format!("{} version {} is live", self.function, version.number));
        }
        Ok(())
    }
}
