//! `davit invocation`: what became of calls that were handed to the queue, and what can still be done about them.

use clap::{Args, Subcommand};
use davit_api::{FunctionName, InvocationId, InvocationSource, InvocationState, InvocationView, Priority};

use super::list::Length;
use crate::api::InvocationQuery;
use crate::context::Globals;
use crate::escape::visible;
use crate::failure::{Failure, Result};
use crate::output::{Table, json, line, note, or_dash, when};

/// Show, list, cancel and replay asynchronous calls
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  davit invocation $(davit invoke hello '{}' --async)
  davit invocation list hello --state queued
  davit invocation list --all -o json
  davit invocation cancel 0198c0de-…        stops it, also while it runs
  davit invocation replay 0198c0de-…        the same event again, as a new call"
)]
pub(crate) struct Invocation {
    /// The id that `davit invoke --async` printed
    id: Option<InvocationId>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// List accepted calls, newest first
    #[command(visible_alias = "ls")]
    List(List),
    /// End a call: at once while it waits, as soon as possible while it runs
    Cancel {
        /// Which
        id: InvocationId,
    },
    /// Accept the event of an ended call again, as a new call
    Replay {
        /// Which
        id: InvocationId,
    },
}

#[derive(Args)]
struct List {
    /// Only of this function
    function: Option<FunctionName>,
    /// Only those in this state: queued, running, succeeded, dead, cancelled
    #[arg(long)]
    state: Option<InvocationState>,
    /// Only those from this door: async, http, schedule, topic, destination, function, event_source
    #[arg(long)]
    source: Option<InvocationSource>,
    #[command(flatten)]
    length: Length,
}

impl Invocation {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?;
        match (self.verb, self.id) {
            (None, Some(id)) => {
                let view = api.invocation(id).await?;
                if globals.json() { json(&view) } else { show(&view) }
            }
            (None, None) => {
                return Err(Failure::Usage(
                    "say which: davit invocation ID, or davit invocation list".into(),
                ));
            }
            (Some(Verb::List(list)), _) => {
                let List { function, state, source, length } = list;
                let query = InvocationQuery { function, state, source };
                let (views, more) = api.invocations(&query, length.most()).await?;
                length.hint(more);
                if globals.json() {
                    json(&views);
                    return Ok(());
                }
                print_table(&views);
            }
            (Some(Verb::Cancel { id }), _) => {
                let view = api.cancel_invocation(id).await?;
                if globals.json() {
                    json(&view);
                } else if view.state == InvocationState::Cancelled {
                    note(format!("{id} is cancelled"));
                } else {
                    note(format!("{id} is {}; its gateway stops it", view.state));
                }
            }
            (Some(Verb::Replay { id }), _) => {
                let accepted = api.replay_invocation(id).await?;
                if globals.json() {
                    json(&accepted);
                } else {
                    line(accepted.invocation_id);
                    note("accepted again, under a new id");
                }
            }
        }
        Ok(())
    }
}

fn show(view: &InvocationView) {
    line(format!("{}  {}  {}", view.id, target(view), view.state));
    line(format!("accepted  {}, {} attempts so far", when(view.accepted_at), view.attempt));
    line(format!("next try  {}", or_dash(view.run_at.map(when))));
    line(format!("ended     {}", or_dash(view.ended_at.map(when))));
    if let Some(caller) = &view.caller {
        let during = caller.invocation_id.map(|id| format!(", during {id}")).unwrap_or_default();
        line(format!("caused by {caller}, version {}{during}", caller.version));
        if let Some(trace_id) = &caller.trace_id {
            line(format!("trace     {}", visible(trace_id)));
        }
    }
    if view.priority != Priority::default() {
        line(format!("priority  {}", view.priority));
    }
    if let Some(qualifier) = &view.qualifier {
        line(format!("asked for {qualifier}"));
    }
    if let Some(key) = &view.ordering_key {
        line(format!("order     after earlier ones of key {}", visible(key)));
    }
    if view.cancel_requested {
        line("cancel    asked for; its gateway stops it");
    }
    if let Some(of) = view.replay_of {
        line(format!("repeats   {of}"));
    }
    if let Some(again) = view.redriven_as {
        line(format!("again as  {again}"));
    }
    if let Some(sent) = &view.sent_on {
        let what = sent.error.clone().unwrap_or_else(|| {
            sent.invocations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        });
        line(format!("sent on   {}: {}", visible(&sent.destination), visible(&what)));
    }
    if let Some(error) = &view.error {
        note(visible(&format!("error: {}", error.message)));
    }
    if let Some(result) = &view.result {
        line(visible(result));
    }
}

/// Rows for people; dead letters have them, too.
pub(super) fn print_table(views: &[InvocationView]) {
    let mut table = Table::new(&[
        "ID",
        "TARGET",
        "SOURCE",
        "CALLER",
        "STATE",
        "ATTEMPTS",
        "ACCEPTED",
        "NEXT OR END",
        "ERROR",
    ]);
    for view in views {
        let error = view.error.as_ref().map(|e| e.message.chars().take(60).collect::<String>());
        table.row(&[
            &view.id,
            &target(view),
            &view.source,
            &or_dash(view.caller.as_ref()),
            &view.state,
            &view.attempt,
            &when(view.accepted_at),
            &or_dash(view.run_at.or(view.ended_at).map(when)),
            &or_dash(error.as_deref().map(visible)),
        ]);
    }
    table.print("none");
}

/// What is called or sent to.
fn target(view: &InvocationView) -> String {
    let webhook = view.webhook.as_deref().map(|url| visible(url).into_owned());
    view.function.as_ref().map(ToString::to_string).or(webhook).unwrap_or_else(|| "-".into())
}
