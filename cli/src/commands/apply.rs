//! `davit apply`: makes a namespace what a folder says: functions, topics, secrets, sources and aliases together.

mod actual;
mod carry_out;
mod check;
pub(crate) mod load;
mod plan;
mod settings;
mod show;
mod wanted;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use davit_api::{FunctionName, NamespaceName, ProjectName};
use serde::Serialize;

use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{json, note};
use crate::prompt::confirm;
use carry_out::Work;
use load::Given;
use plan::Plan;
use settings::Wanted;

/// Make a namespace what a folder says: many functions, topics, secrets, sources, aliases
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit apply                        what is in this folder: shows what would change, and asks
  davit apply -f shop --plan         only shows it; exit code 7 when there is something to do
  davit apply -f shop --yes          for scripts
  davit apply -f shop --prune        and removes what is no longer in it
  davit apply -f shop -o json --plan | jq '.steps[].object'

Every folder below PATH with a davit.toml is a function. A davit.project.toml in PATH names the
project and says what they share: secrets (never their values), topics, sources, aliases. What a
project has made is on record under its name; --prune removes nothing else. The same files again
are nothing to do.")]
pub(crate) struct Apply {
    /// A folder with functions, or a project's file
    #[arg(short, long = "file", default_value = ".", value_name = "PATH")]
    file: PathBuf,
    /// Only show what would be done; exit code 7 when there is something
    #[arg(long, visible_alias = "dry-run", conflicts_with = "yes")]
    plan: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Remove what earlier applies of this project have made and what is no longer in it
    #[arg(long)]
    prune: bool,
    /// Show only outcomes, not the builds' output
    #[arg(short, long)]
    quiet: bool,
}

/// A plan as scripts read it.
#[derive(Serialize)]
struct Shown<'a> {
    namespace: &'a NamespaceName,
    project: Option<&'a ProjectName>,
    #[serde(flatten)]
    plan: &'a Plan,
    /// Whether it was carried out.
    applied: bool,
}

impl Apply {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let given = Given::read(&self.file)?;
        if self.prune && given.project.is_none() {
            return Err(Failure::Usage(format!(
                "--prune: {} has no davit.project.toml that names a project, so nothing is known to be its own",
                given.root.display()
            )));
        }
        let namespace = match given.namespace(globals.namespace.as_ref())? {
            Some(namespace) => namespace,
            None => globals.namespace()?,
        };
        let api = globals.api_in(namespace.clone())?;
        let mut functions = BTreeMap::<FunctionName, Wanted>::new();
        for (name, folder) in &given.functions {
            let manifest = &folder.manifest;
            let wanted = Wanted {
                spec: manifest.version_spec(),
                source: folder.pack()?.digest,
                schedules: manifest.schedule_specs().into_iter().collect(),
            };
            functions.insert(name.clone(), wanted);
        }
        let actual = actual::read(&api, &given, &functions).await?;
        check::names(&given, &actual.known)?;
        let objects = wanted::objects(&given, &functions)?;
        let plan = Plan::of(&objects, &actual.objects, &actual.owners, self.prune);
        let project = given.project.as_ref().map(|p| &p.file.name);
        let shown = |applied| Shown { namespace: &namespace, project, plan: &plan, applied };
        if !globals.json() {
            show::plan(&plan, &given, &namespace, self.prune);
        }
        if !plan.refused.is_empty() {
            return Err(Failure::Usage(plan.refused.join("\n")));
        }
        if self.plan || plan.is_empty() {
            if globals.json() {
                json(&shown(false));
            }
            if !plan.is_empty() {
                return Err(Failure::Pending(format!("to do: {}", show::sum(&plan))));
            }
            note(format!("nothing to do ({})", show::sum(&plan)));
        } else if !self.yes {
            let removed = show::removed(&plan).len();
            let what = if removed > 0 {
                format!(", of which {removed} are removed for good")
            } else {
                String::new()
            };
            confirm(&format!("{}. Apply these changes{what}?", show::sum(&plan)))?;
        }
        if self.plan {
            return Ok(());
        }
        let work = Work {
            api: &api.with_gateway().await?,
            given: &given,
            functions: &functions,
            objects: &objects,
            plan: &plan,
            quiet: self.quiet || globals.json(),
        };
        // With nothing to do it still strikes from the record what somebody else has removed.
        work.carry_out(&actual).await?;
        if !plan.is_empty() {
            if globals.json() {
                json(&shown(true));
            }
            note(format!("applied: {}", show::sum(&plan)));
        }
        Ok(())
    }
}
