//! `davit alias`: names for versions, and how calls are shared out between them.

use clap::{Args, Subcommand};
use davit_api::{AliasName, AliasSettings, AliasView, FunctionName, Sticky, VersionWeight};

use crate::api::Api;
use crate::context::Globals;
use crate::failure::Result;
use crate::output::{Table, json, line, note, or_dash, when};
use crate::prompt::confirm;

/// Name versions, and share calls out between them
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit alias set hello beta 7             hello@beta is version 7
  davit alias set hello live 6=90 7=10     one call in ten goes to version 7
  davit alias set hello live 6=50 7=50 --sticky cookie:session
  davit alias set hello beta 7 --public    its address needs no token
  davit alias list hello
  davit alias delete hello beta

An alias has an address of its own: /<namespace>/<function>@<alias>. `live` is the alias that the
function's own address leads to; the version that is listed first brings routes and schedules.")]
pub(crate) struct Alias {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make an alias, or replace what it was
    Set {
        /// The function
        function: FunctionName,
        /// The alias
        alias: AliasName,
        /// A version, or versions with the calls of a hundred that each gets, such as 6=90 7=10
        #[arg(required = true, value_name = "VERSION[=WEIGHT]", value_parser = weight)]
        versions: Vec<(u32, Option<u32>)>,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Calls with the same value go to the same version: header:NAME or cookie:NAME
        #[arg(long, value_name = "KIND:NAME")]
        sticky: Option<Sticky>,
        /// Its address is as open as its version says; otherwise callers need a token
        #[arg(long)]
        public: bool,
    },
    /// List a function's aliases
    #[command(visible_alias = "ls")]
    List {
        /// The function
        function: FunctionName,
    },
    /// Show one alias
    Describe {
        /// The function
        function: FunctionName,
        /// The alias
        alias: AliasName,
    },
    /// Delete an alias; its versions stay
    #[command(visible_alias = "rm")]
    Delete {
        /// The function
        function: FunctionName,
        /// The alias
        alias: AliasName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// `7`, `v7` or `7=90`.
fn weight(text: &str) -> Result<(u32, Option<u32>), String> {
    let rule = || format!("{text:?} is not a version such as 7, or one with its weight such as 7=90");
    let (version, weight) = match text.split_once('=') {
        Some((version, weight)) => (version, Some(weight.trim_end_matches('%').parse().map_err(|_| rule())?)),
        None => (text, None),
    };
    let version = version.strip_prefix('v').unwrap_or(version).parse().map_err(|_| rule())?;
    Ok((version, weight))
}

impl Alias {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        match self.verb {
            Verb::Set { function, alias, versions, description, sticky, public } => {
                let api = globals.api()?.with_gateway().await?;
                let alone = versions.len() == 1;
                let versions = versions.into_iter().map(|(version, weight)| VersionWeight {
                    version,
                    // One without a weight among others is the API's to refuse.
                    weight: weight.unwrap_or(if alone { 100 } else { 0 }),
                });
                let settings = AliasSettings { versions: versions.collect(), description, sticky, public };
                let view = api.set_alias(&function, &alias, &settings).await?;
                if globals.json() {
                    json(&view);
                    return Ok(());
                }
                line(format!("{function}@{alias} is {}", shares(&view)));
                if let Some(address) = address(&api, &function, &view) {
                    note(address);
                }
            }
            Verb::List { function } => {
                let all = globals.api()?.aliases(&function).await?;
                if globals.json() {
                    json(&all);
                    return Ok(());
                }
                let mut table =
                    Table::new(&["ALIAS", "VERSIONS", "STICKY", "ADDRESS", "MOVED", "DESCRIPTION"]);
                for alias in &all {
                    let open = if alias.name.as_str() == davit_api::LIVE {
                        "the function's"
                    } else if alias.public {
                        "as its version says"
                    } else {
                        "with a token"
                    };
                    table.row(&[
                        &alias.name,
                        &shares(alias),
                        &or_dash(alias.sticky.as_ref()),
                        &open,
                        &when(alias.moved_at),
                        &or_dash(alias.description.as_ref()),
                    ]);
                }
                table.print("no aliases");
            }
            Verb::Describe { function, alias } => {
                let api = globals.api()?.with_gateway().await?;
                let view = api.alias(&function, &alias).await?;
                if globals.json() {
                    json(&view);
                    return Ok(());
                }
                let field = |name: &str, text: String| {
                    line(format!("{name:<12} {}", crate::escape::visible(&text)));
                };
                field("alias", format!("{}/{function}@{alias}", api.namespace()));
                field("versions", shares(&view));
                field("sticky", or_dash(view.sticky.as_ref()));
                field("address", or_dash(address(&api, &function, &view)));
                field("moved", when(view.moved_at));
                field("description", or_dash(view.description.as_ref()));
            }
            Verb::Delete { function, alias, yes } => {
                let api = globals.api()?;
                if !yes {
                    confirm(&format!("Delete the alias {alias} of {function}?"))?;
                }
                api.remove_alias(&function, &alias).await?;
                note(format!("{function}@{alias} is deleted"));
            }
        }
        Ok(())
    }
}

fn address(api: &Api, function: &FunctionName, view: &AliasView) -> Option<String> {
    let address = api.address(function)?;
    if view.name.as_str() == davit_api::LIVE {
        return Some(address);
    }
    let open = if view.public { "as open as its version" } else { "with a token" };
    Some(format!("{address}@{} ({open})", view.name))
}

/// `version 7`, or `6 90%, 7 10%`.
pub(super) fn shares(view: &AliasView) -> String {
    match view.versions.as_slice() {
        [one] => format!("version {}", one.version),
        several => {
            let each: Vec<_> = several.iter().map(|v| format!("{} {}%", v.version, v.weight)).collect();
            each.join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn versions_may_have_weights() {
        assert_eq!(weight("7"), Ok((7, None)));
        assert_eq!(weight("v7=90%"), Ok((7, Some(90))));
        for bad in ["", "x", "7=", "=90", "7=x", "7:90"] {
            assert!(weight(bad).is_err(), "{bad}");
        }
    }
}
