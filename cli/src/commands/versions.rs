//! `davit versions`: what a function was, is, and can be again; and how much of it is kept.

use clap::{Args, Subcommand};
use davit_api::{FunctionName, RetentionPolicy, VersionView};

use super::list::Length;
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{Table, json, line, note, or_dash, when};
use crate::prompt::confirm;

/// List a function's versions, remove some, say how many are kept
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  davit versions hello
  davit versions delete hello 3 4
  davit versions cancel hello 5                     the build that is under way
  davit versions keep hello                         what is kept
  davit versions keep hello --newest 20 --days 30
  davit versions keep --newest 5                    in the whole namespace

A version that an alias leads to, that a canary is about, that an instance serves or that an
invocation asks for is kept in any case."
)]
pub(crate) struct Versions {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The function
    #[arg(required = true)]
    function: Option<FunctionName>,
    #[command(flatten)]
    length: Length,
}

#[derive(Subcommand)]
enum Verb {
    /// Delete versions that are not in use
    #[command(visible_alias = "rm")]
    Delete {
        /// The function
        function: FunctionName,
        /// Their numbers
        #[arg(required = true, value_name = "VERSION")]
        numbers: Vec<u32>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Cancel a version's build
    Cancel {
        /// The function
        function: FunctionName,
        /// Its number
        #[arg(value_name = "VERSION")]
        number: u32,
    },
    /// Show or set how many versions are kept
    Keep {
        /// The function; without it, functions of the namespace that say nothing themselves
        function: Option<FunctionName>,
        /// The newest ready versions, so many of them
        #[arg(long, value_name = "NUMBER")]
        newest: Option<u32>,
        /// All that are younger than so many days
        #[arg(long)]
        days: Option<u32>,
        /// Say nothing, and take what the namespace or davit says
        #[arg(long, conflicts_with_all = ["newest", "days"])]
        reset: bool,
    },
}

impl Versions {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        match (self.verb, self.function) {
            (Some(verb), _) => verb.run(globals).await,
            (None, Some(function)) => list(globals, &function, &self.length).await,
            (None, None) => Err(Failure::Usage("name a function".into())),
        }
    }
}

async fn list(globals: &Globals, function: &FunctionName, length: &Length) -> Result<()> {
    let api = globals.api()?;
    let (versions, more) = api.versions(function, length.most()).await?;
    length.hint(more);
    if globals.json() {
        json(&versions);
        return Ok(());
    }
    let mut table =
        Table::new(&["VERSION", "STATE", "ALIASES", "MADE", "COMMIT", "SIZE", "DESCRIPTION", "ERROR"]);
    for v in &versions {
        let commit = v.git_commit.as_ref().map(|c| c.chars().take(10).collect::<String>());
        table.row(&[
            &v.number,
            &v.state.as_str(),
            &aliases(v),
            &when(v.created_at),
            &or_dash(commit),
            &or_dash(v.bundle_size.map(|b| format!("{} KiB", b.div_ceil(1024)))),
            &v.description.as_deref().map(short).unwrap_or_default(),
            &v.error.as_ref().and_then(|e| e.lines().next()).map(short).unwrap_or_default(),
        ]);
    }
    table.print("no versions");
    if let Some(canary) = api.canaries(function).await?.first() {
        note(format!("canary: {}", crate::escape::visible(&super::canary::sentence(canary))));
    }
    Ok(())
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// `live 90%, beta`.
fn aliases(version: &VersionView) -> String {
    let each = version.aliases.iter().map(|share| match share.weight {
        100 => share.alias.to_string(),
        weight => format!("{} {weight}%", share.alias),
    });
    each.collect::<Vec<_>>().join(", ")
}

impl Verb {
    async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?;
        match self {
            Self::Delete { function, numbers, yes } => {
                let list = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                if !yes {
                    confirm(&format!("Delete version {list} of {function}? It cannot be brought back."))?;
                }
                for number in numbers {
                    api.delete_version(&function, number).await?;
                    note(format!("{function} version {number} is deleted"));
                }
            }
            Self::Cancel { function, number } => {
                api.cancel_build(&function, number).await?;
                note(format!("the build of {function} version {number} is cancelled"));
            }
            Self::Keep { function, newest, days, reset } => {
                let view = if newest.is_none() && days.is_none() && !reset {
                    api.retention(function.as_ref()).await?
                } else {
                    // What is not named stays as it was.
                    let own = if reset {
                        RetentionPolicy::default()
                    } else {
                        api.retention(function.as_ref()).await?.own
                    };
                    let policy =
                        RetentionPolicy { versions: newest.or(own.versions), days: days.or(own.days) };
                    api.set_retention(function.as_ref(), &policy).await?
                };
                if globals.json() {
                    json(&view);
                    return Ok(());
                }
                let days = match view.days {
                    0 => String::new(),
                    days => format!(", and all that are younger than {days} days"),
                };
                line(format!("the newest {} ready versions are kept{days}", view.versions));
            }
        }
        Ok(())
    }
}
