//! `davit invocation`: what became of a call that was handed to the queue.

use clap::Args;
use davit_api::InvocationId;

use crate::context::Globals;
use crate::escape::visible;
use crate::failure::Result;
use crate::output::{json, line, note, or_dash, when};

/// Show what became of an asynchronous call
#[derive(Args)]
#[command(after_help = "Example:\n  davit invocation $(davit invoke hello '{}' --async)")]
pub(crate) struct Invocation {
    /// The id that `davit invoke --async` printed
    id: InvocationId,
}

impl Invocation {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let view = globals.api()?.invocation(self.id).await?;
        if globals.json() {
            json(&view);
            return Ok(());
        }
        line(format!("{}  {}  {}", view.id, view.function, view.state.as_str()));
        line(format!("accepted  {}, {} attempts so far", when(view.accepted_at), view.attempt));
        line(format!("next try  {}", or_dash(view.run_at.map(when))));
        line(format!("ended     {}", or_dash(view.ended_at.map(when))));
        if let Some(error) = view.error {
            note(visible(&format!("error: {}", error.message)));
        }
        if let Some(result) = view.result {
            line(visible(&result));
        }
        Ok(())
    }
}
