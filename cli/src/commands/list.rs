//! `davit list`: the functions of a namespace, and what they cost right now.

use clap::Args;
use davit_api::{Access, FunctionSummary};

use crate::context::Globals;
use crate::failure::Result;
use crate::output::{Table, json, or_dash, when};

/// List functions, their instances by state, and their calls
#[derive(Args)]
#[command(after_help = "Examples:\n  davit list\n  davit list -n shop -o json | jq '.[].name'")]
pub(crate) struct List {}

impl List {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let functions = globals.api()?.functions().await?;
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
        table.print("no functions yet; `davit init` makes one");
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
