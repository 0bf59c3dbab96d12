//! `davit queue`: asynchronous work that has not ended.

use clap::Args;

use crate::context::Globals;
use crate::failure::Result;
use crate::output::{Table, json, or_dash, when};

/// Show what waits in the queue, by function
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit queue
  davit queue -o json | jq 'map(.due) | add'

DUE waits for a gateway, DELAYED for a later time, BEHIND for an earlier call of the same ordering key.
DEAD are dead letters that were not redriven.")]
pub(crate) struct Queue {}

impl Queue {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let views = globals.api()?.queue().await?;
        if globals.json() {
            json(&views);
            return Ok(());
        }
        let mut table =
            Table::new(&["FUNCTION", "DUE", "OLDEST DUE", "DELAYED", "BEHIND", "RUNNING", "DEAD"]);
        for view in &views {
            let name = view.function.as_ref().map_or("(webhooks)".to_owned(), ToString::to_string);
            table.row(&[
                &name,
                &view.due,
                &or_dash(view.oldest_due_at.map(when)),
                &view.delayed,
                &view.behind,
                &view.running,
                &view.dead,
            ]);
        }
        table.print("nothing waits");
        Ok(())
    }
}
