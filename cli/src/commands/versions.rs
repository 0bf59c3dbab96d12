//! `davit versions`: what a function was, is, and can be again.

use clap::Args;
use davit_api::FunctionName;

use super::list::Length;
use crate::context::Globals;
use crate::failure::Result;
use crate::output::{Table, json, or_dash, when};

/// List a function's versions
#[derive(Args)]
#[command(after_help = "Example:\n  davit versions hello")]
pub(crate) struct Versions {
    /// The function
    function: FunctionName,
    #[command(flatten)]
    length: Length,
}

impl Versions {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let (versions, more) = globals.api()?.versions(&self.function, self.length.most()).await?;
        self.length.hint(more);
        if globals.json() {
            json(&versions);
            return Ok(());
        }
        let mut table = Table::new(&["VERSION", "STATE", "LIVE", "MADE", "COMMIT", "SIZE", "ERROR"]);
        for v in &versions {
            let commit = v.git_commit.as_ref().map(|c| c.chars().take(10).collect::<String>());
            let error = v
                .error
                .as_ref()
                .and_then(|e| e.lines().next())
                .map(|e| e.chars().take(80).collect::<String>());
            table.row(&[
                &v.number,
                &v.state.as_str(),
                &if v.live { "live" } else { "" },
                &when(v.created_at),
                &or_dash(commit),
                &or_dash(v.bundle_size.map(|b| format!("{} KiB", b.div_ceil(1024)))),
                &error.unwrap_or_default(),
            ]);
        }
        table.print("no versions");
        Ok(())
    }
}
