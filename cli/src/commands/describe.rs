//! `davit describe`: everything about one function.

use clap::Args;
use davit_api::{ColdPhases, FunctionDetail, FunctionName, SECRET_FOLDER};

use super::list::{access_word, instances};
use crate::api::Api;
use crate::context::Globals;
use crate::escape::visible;
use crate::failure::Result;
use crate::output::{json, line, or_dash, short_id, when};

/// Show everything about a function
#[derive(Args)]
#[command(after_help = "Example:\n  davit describe hello")]
pub(crate) struct Describe {
    /// The function
    function: FunctionName,
}

impl Describe {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?.with_gateway().await?;
        let detail = api.function(&self.function).await?;
        if globals.json() {
            json(&detail)
        } else {
            print(&detail, &api)
        }
        Ok(())
    }
}

fn print(detail: &FunctionDetail, api: &Api) {
    let field = |name: &str, text: &str| line(format!("{name:<12} {}", visible(text)));
    let summary = &detail.summary;
    field("function", &format!("{}/{}", summary.namespace, summary.name));
    field("live", &summary.live_version.map_or("none yet".into(), |n| format!("version {n}")));
    for alias in &detail.aliases {
        if alias.name.as_str() != davit_api::LIVE || alias.versions.len() > 1 {
            field("alias", &format!("{}: {}", alias.name, super::alias::shares(alias)));
        }
    }
    if let Some(canary) = &detail.canary {
        field("canary", &super::canary::sentence(canary));
    }
    field("instances", &instances(summary));
    if let Some(obstacle) = &detail.obstacle {
        field("no start", obstacle);
    }
    let usage = &summary.usage;
    field("calls", &format!("{} ({} failed, {} cold starts)", usage.calls, usage.errors, usage.cold_starts));
    field("last call", &or_dash(usage.last_call_at.map(when)));
    if let Some(cold) = &usage.last_cold {
        let phases = ColdPhases::NAMES.iter().zip(cold.times());
        let phases: Vec<_> = phases.map(|(name, ms)| format!("{} {ms:.1}", name.replace('_', " "))).collect();
        let total: f64 = cold.times().iter().sum();
        field("last cold", &format!("{total:.1} ms ({})", phases.join(", ")));
    }
    if let Some(live) = &detail.live {
        let spec = &live.spec;
        field("runtime", &format!("{} ({:?})", spec.runtime, spec.kind).to_lowercase());
        if let Some(image) = spec.image.as_ref().map(ToString::to_string).or_else(|| spec.dockerfile.clone())
        {
            field("image", &format!("{image} ({})", or_dash(live.image_id.as_ref())));
        } else if let Some(id) = &live.image_id {
            field("image", &format!("{} of {}", short_id(id), spec.runtime));
        }
        let program = if spec.command.is_empty() { spec.handler.clone() } else { spec.command.join(" ") };
        if !program.is_empty() || !spec.runtime.is_own_image() {
            field("runs", &program);
        }
        field(
            "each",
            &format!(
                "{} MiB, {} CPU, {} at a time, {} s timeout{}, kept {}",
                spec.memory_mb,
                f64::from(spec.cpu_millis) / 1000.0,
                spec.concurrency,
                spec.timeout_seconds,
                spec.async_timeout_seconds.map_or_else(String::new, |s| format!(" ({s} s asynchronous)")),
                spec.keep_alive_seconds.map_or_else(|| "auto".to_owned(), |s| format!("{s} s"))
            ),
        );
        if spec.debug.is_some() {
            field("debugger", "this version is deployed for debugging; whoever may deploy can attach one");
        }
        field("scales", &format!("from {} to {} instances", spec.min_instances, spec.max_instances));
        let names: Vec<&str> = spec.env.keys().chain(spec.secrets.keys()).map(|n| n.as_str()).collect();
        field("environment", &if names.is_empty() { "-".to_owned() } else { names.join(" ") });
        if !spec.secret_files.is_empty() {
            let files: Vec<String> =
                spec.secret_files.keys().map(|name| format!("{SECRET_FOLDER}/{name}")).collect();
            field("secret files", &files.join(" "));
        }
        field("source", &live.source.to_string());
        field("commit", &or_dash(live.git_commit.as_ref()));
        if let Some(description) = &live.description {
            field("description", description);
        }
        let address = match spec.access {
            davit_api::Access::Private => "none (private)".to_owned(),
            access => {
                format!("{} ({})", or_dash(api.address(&summary.name)), access_word(access))
            }
        };
        field("address", &address);
        if let Some(callers) = &spec.allow_callers {
            let callers: Vec<String> = callers.iter().map(ToString::to_string).collect();
            field("callers", &if callers.is_empty() { "none".to_owned() } else { callers.join(" ") });
        }
    }
    if let Some(latest) = &detail.latest {
        let cause = latest.error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
        field("newest", &format!("version {} is {}{cause}", latest.number, latest.state.as_str()));
    }
    for route in &detail.routes {
        let host = route.host.as_ref().map_or("", |h| h.as_str());
        let access = route.access.map_or_else(String::new, |access| format!(" ({})", access_word(access)));
        field("route", &format!("{} {host}{}{access}", route.method, route.path));
    }
    for one in detail.live.iter().flat_map(|live| &live.spec.subscriptions) {
        let filter = one.filter.as_ref().map_or("everything".to_owned(), ToString::to_string);
        field("subscribes", &format!("topic {}: {filter}", one.topic));
    }
    for schedule in &detail.schedules {
        let none = if schedule.spec.enabled { "none" } else { "paused" };
        let next = schedule.next_due_at.map_or(none.to_owned(), when);
        field(
            "schedule",
            &format!(
                "{}: {} ({}), next {next}",
                schedule.name,
                super::schedule::timing(&schedule.spec),
                schedule.spec.timezone
            ),
        );
    }
}
