//! `davit dead-letter`: calls whose attempts or age were used up.

use clap::{Args, Subcommand};
use davit_api::{DeadLetters, FunctionName, InvocationId, InvocationState};

use super::invocation::print_table;
use super::list::Length;
use crate::api::InvocationQuery;
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{json, line, note};
use crate::prompt;

/// List, redrive and purge calls that failed for good
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit dead-letter list
  davit dead-letter redrive --function billing     all of one function, once more
  davit dead-letter redrive 0198c0de-…             one of them
  davit dead-letter purge --all --yes")]
pub(crate) struct DeadLetter {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List them, newest first
    #[command(visible_alias = "ls")]
    List {
        /// Only of this function
        function: Option<FunctionName>,
        #[command(flatten)]
        length: Length,
    },
    /// Accept them again, each as a new call; those that were redriven before are passed over
    Redrive(Which),
    /// Remove them for good
    Purge {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// This one
    id: Option<InvocationId>,
    /// All of this function
    #[arg(long)]
    function: Option<FunctionName>,
    /// All of the namespace
    #[arg(long)]
    all: bool,
}

impl Which {
    fn body(&self) -> DeadLetters {
        DeadLetters { function: self.function.clone(), invocation: self.id }
    }
}

impl DeadLetter {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?;
        match self.verb {
            Verb::List { function, length } => {
                let query = InvocationQuery { function, state: Some(InvocationState::Dead), source: None };
                let (views, more) = api.invocations(&query, length.most()).await?;
                length.hint(more);
                if globals.json() { json(&views) } else { print_table(&views) }
            }
            Verb::Redrive(which) => {
                let mut made = Vec::new();
                // A thousand at a time, until none is left.
                loop {
                    let some = api.redrive(&which.body()).await?.invocation_ids;
                    let done = some.is_empty() || which.id.is_some();
                    made.extend(some);
                    if done {
                        break;
                    }
                    note(format!("{} accepted again so far", made.len()));
                }
                if made.is_empty() && which.id.is_some() {
                    return Err(Failure::Failed(
                        "there is no such dead letter, or it was redriven before".into(),
                    ));
                }
                if globals.json() {
                    json(&made);
                } else {
                    made.iter().for_each(line);
                    note(format!("{} accepted again, each under a new id", made.len()));
                }
            }
            Verb::Purge { which, yes } => {
                if !yes {
                    prompt::confirm(
                        "Remove these dead letters for good? They cannot be redriven afterwards.",
                    )?;
                }
                let mut purged = 0;
                loop {
                    let some = api.purge_dead_letters(&which.body()).await?.purged;
                    purged += some;
                    if some == 0 {
                        break;
                    }
                }
                if globals.json() {
                    json(&davit_api::Purged { purged });
                } else {
                    note(format!("{purged} removed"));
                }
            }
        }
        Ok(())
    }
}
