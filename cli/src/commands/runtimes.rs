//! `davit runtimes`: which image each runtime has, whose functions run in an earlier one, and moving them on.

use clap::{ArgGroup, Args, Subcommand};
use davit_api::{
    FunctionBehind, FunctionName, Rollout, RuntimeName, RuntimeUpgrade, RuntimeView, VersionView,
};

use super::canary::CanaryOptions;
use super::deploy::{follow, outcome_of, served};
use crate::api::Api;
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{Table, complain, json, note, or_dash, short_id, when};
use crate::progress::Progress;
use crate::prompt::confirm;

/// List the runtimes, and move functions to their newest images
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit runtimes list
  davit runtimes upgrade --dry-run               whose functions run in an earlier image
  davit runtimes upgrade hello
  davit runtimes upgrade hello --canary 5,50 --max-errors 1%
  davit runtimes upgrade --runtime python3.13 --yes

A version runs in the image that its runtime had when it was built, also after `make images` or `davit images load`
has brought another one. An upgrade builds the live version's source again for the newest image, with the same
settings, as a new version; `davit rollback` goes back to the version before, in the image before.")]
pub(crate) struct Runtimes {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the runtimes, and how many functions run in their newest images
    #[command(visible_alias = "ls")]
    List,
    Upgrade(Upgrade),
}

/// Build functions again for the newest image of their runtime
#[derive(Args)]
#[command(group(ArgGroup::new("way").args(["canary", "now", "no_live"])))]
struct Upgrade {
    /// The functions [default: all of the namespace that run in an earlier image]
    functions: Vec<FunctionName>,
    /// Only functions of this runtime
    #[arg(long, conflicts_with = "functions")]
    runtime: Option<RuntimeName>,
    /// Only say which they are
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Show the builds' output, too
    #[arg(long)]
    verbose: bool,
    /// Make them live at once, also those that were deployed with a canary
    #[arg(long)]
    now: bool,
    /// Build them and leave what is live alone
    #[arg(long)]
    no_live: bool,
    #[command(flatten)]
    canary: CanaryOptions,
}

impl Runtimes {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?;
        match self.verb {
            Verb::List => list(&api.runtimes().await?, globals.json()),
            Verb::Upgrade(upgrade) => return upgrade.run(globals, &api).await,
        }
        Ok(())
    }
}

fn list(runtimes: &[RuntimeView], as_json: bool) {
    if as_json {
        return json(&runtimes);
    }
    let mut table = Table::new(&["RUNTIME", "IMAGE", "SINCE", "CURRENT", "BEHIND"]);
    for runtime in runtimes {
        table.row(&[
            &runtime.runtime,
            &runtime.image_id.as_deref().map_or("not on the host", short_id),
            &or_dash(runtime.since.map(when)),
            &runtime.current,
            &runtime.behind,
        ]);
    }
    table.print("no runtime images; build them in davit's source folder (make images) or load them");
    if runtimes.iter().any(|runtime| runtime.behind > 0) {
        note("functions run in earlier images: davit runtimes upgrade moves them on");
    }
}

impl Upgrade {
    async fn run(self, globals: &Globals, api: &Api) -> Result<()> {
        let mut functions = self.functions.clone();
        if functions.is_empty() || self.dry_run {
            let mut behind = api.functions_behind(self.runtime.as_ref()).await?;
            behind.retain(|function| functions.is_empty() || functions.contains(&function.name));
            if self.dry_run {
                print(&behind, globals.json());
                return Ok(());
            }
            if behind.is_empty() {
                note("every function runs in its runtime's newest image");
                if globals.json() {
                    json(&Vec::<VersionView>::new());
                }
                return Ok(());
            }
            functions = behind.iter().map(|function| function.name.clone()).collect();
            if !self.yes {
                print(&behind, false);
                confirm(&format!("Build {} functions again for the newest images?", functions.len()))?;
            }
        }
        let (mut done, mut failed) = (Vec::new(), 0);
        for name in &functions {
            match self.one(api, name).await {
                Ok(version) => done.push(version),
                Err(failure) if functions.len() == 1 => return Err(failure),
                Err(failure) => {
                    failed += 1;
                    complain(&failure);
                }
            }
        }
        if globals.json() {
            json(&done);
        }
        match failed {
            0 => Ok(()),
            _ => Err(Failure::Failed(format!(
                "{failed} of {} functions stay as they were; the others are done",
                functions.len()
            ))),
        }
    }

    async fn one(&self, api: &Api, name: &FunctionName) -> Result<VersionView> {
        let progress = Progress::start(&format!("upgrading {name}"));
        let upgrade = RuntimeUpgrade { rollout: self.rollout() };
        let accepted = api.upgrade_runtime(name, &upgrade).await?;
        let version = match accepted.unchanged {
            true => accepted.version,
            false => follow(api, name, accepted.version, &progress, !self.verbose).await?,
        };
        if version.live {
            served(api, name, version.number).await;
        }
        let image = version.image_id.as_deref().map_or("", short_id);
        progress.done(&format!("{}, in image {image}", outcome_of(name, &version)));
        Ok(version)
    }

    /// What the options ask for; nothing where each function shall go the way it was deployed.
    fn rollout(&self) -> Option<Rollout> {
        match (self.canary.spec(), self.now, self.no_live) {
            (Some(canary), ..) => Some(Rollout::Canary(canary)),
            (None, true, _) => Some(Rollout::Live),
            (None, _, true) => Some(Rollout::Hold),
            (None, false, false) => None,
        }
    }
}

fn print(behind: &[FunctionBehind], as_json: bool) {
    if as_json {
        return json(&behind);
    }
    let mut table = Table::new(&["FUNCTION", "VERSION", "RUNTIME", "IMAGE"]);
    for function in behind {
        table.row(&[&function.name, &function.version, &function.runtime, &short_id(&function.image_id)]);
    }
    table.print("every function runs in its runtime's newest image");
}
