//! `davit list`: the functions of a namespace, and what they cost right now.

use clap::Args;
use davit_api::{Access, FunctionSummary, NamePart, RuntimeName};

use crate::context::Globals;
use crate::failure::Result;
use crate::output::{Table, json, note, or_dash, when};

/// List functions, their instances by state, and their calls
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit list
  davit list --search order --runtime python3.13
  davit list -n shop --all -o json | jq '.[].name'")]
pub(crate) struct List {
    /// Only functions with this somewhere in their names
    #[arg(long, value_name = "TEXT")]
    search: Option<NamePart>,
    /// Only functions whose live version has this runtime
    #[arg(long)]
    runtime: Option<RuntimeName>,
    #[command(flatten)]
    length: Length,
}

/// How much of a list that may be long is printed
#[derive(Args)]
pub(crate) struct Length {
    /// At most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with = "all")]
    limit: u32,
    /// All there are
    #[arg(long)]
    all: bool,
}

impl Length {
    /// The most that are wanted; none when that is all.
    pub(super) fn most(&self) -> Option<usize> {
        (!self.all).then_some(self.limit as usize)
    }

    /// Says that a list goes on, where it cannot be taken for a part of it.
    pub(super) fn hint(&self, more: bool) {
        if more {
            note(format!("there are more than these {}; --all prints all of them", self.limit));
        }
    }
}

impl List {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let (search, runtime) = (self.search.as_ref(), self.runtime.as_ref());
        let (functions, more) = globals.api()?.functions(search, runtime, self.length.most()).await?;
        self.length.hint(more);
        if globals.json() {
            json(&functions);
            return Ok(());
        }
        let mut table = Table::new(&[
            "NAME",
            "VERSION",
            "RUNTIME",
            "ACCESS",
            "INSTANCES",
            "CALLS",
            "ERRORS",
            "COLD",
            "LAST COLD",
            "LAST CALL",
        ]);
        for f in &functions {
            table.row(&[
                &f.name,
                &or_dash(f.live_version),
                &or_dash(f.runtime.as_ref()),
                &f.access.map_or("-", access_word),
                &instances(f),
                &f.usage.calls,
                &f.usage.errors,
                &f.usage.cold_starts,
                &or_dash(f.usage.last_cold_ms.map(|ms| format!("{ms:.0} ms"))),
                &or_dash(f.usage.last_call_at.map(when)),
            ]);
        }
        table.print(match (search, runtime) {
            (None, None) => "no functions yet; `davit init` makes one",
            _ => "no function is like that",
        });
        Ok(())
    }
}

/// The instances in words: at zero is a state, not an absence.
pub(super) fn instances(function: &FunctionSummary) -> String {
    match (function.instances.active, function.instances.frozen) {
        (0, 0) => "zero".to_owned(),
        (active, 0) => format!("{active} active"),
        (0, frozen) => format!("{frozen} frozen"),
        (active, frozen) => format!("{active} active, {frozen} frozen"),
    }
}

/// The word of `davit.toml`.
pub(super) fn access_word(access: Access) -> &'static str {
    match access {
        Access::Private => "private",
        Access::Token => "token",
        Access::Public => "public",
    }
}
