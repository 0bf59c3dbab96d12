//! `davit delete`: removes a function. It asks first.

use clap::Args;
use davit_api::FunctionName;

use crate::context::Globals;
use crate::failure::Result;
use crate::output::note;
use crate::prompt::confirm;

/// Delete a function, its versions, routes and schedules
#[derive(Args)]
#[command(after_help = "Example:\n  davit delete hello --yes")]
pub(crate) struct Delete {
    /// The function
    function: FunctionName,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Delete {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?;
        if !self.yes {
            confirm(&format!("Delete {} in namespace {}?", self.function, api.namespace()))?;
        }
        api.delete_function(&self.function).await?;
        note(format!("{} is deleted", self.function));
        Ok(())
    }
}
