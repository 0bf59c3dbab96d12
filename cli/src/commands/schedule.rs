//! `davit schedule`: when the clock calls a function.

mod settings;
mod show;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use davit_api::{FunctionName, NewSchedule, ScheduleName, ScheduleView};
use serde_json::Value;

use crate::api::Api;
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{json, line, note};
use settings::{OtherArgs, TimingArgs, named};

pub(crate) use show::timing;

/// Let the clock call a function
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit schedule add hello nightly '30 2 * * *' --timezone Europe/Berlin
  davit schedule add hello often --every 15m --overlap skip
  davit schedule add hello party --at 2026-12-24T18:00 --timezone Europe/Berlin
  davit schedule preview '30 2 * * *' --timezone Europe/Berlin
  davit schedule update hello nightly --timezone UTC --unset jitter
  davit schedule list
  davit schedule run hello nightly        now, once
  davit schedule history hello nightly")]
pub(crate) struct Schedule {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Add a schedule
    Add(Box<Add>),
    /// Change a schedule in place; what no flag names stays
    #[command(visible_alias = "set")]
    Update(Box<Update>),
    /// Show when a schedule would ring; nothing is stored
    Preview(Preview),
    /// List a function's schedules, or all of the namespace
    #[command(visible_alias = "ls")]
    List { function: Option<FunctionName> },
    /// Stop a schedule until it is resumed
    Pause(Which),
    /// Let a paused schedule ring again
    Resume(Which),
    /// Call the function now, as the schedule would
    Run(Which),
    /// Remove a schedule
    #[command(visible_alias = "rm")]
    Remove(Which),
    /// Show the recorded instants, newest first
    History(History),
}

#[derive(Args)]
struct Which {
    /// The function
    function: FunctionName,
    /// The schedule
    schedule: ScheduleName,
}

#[derive(Args)]
struct Add {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    timing: TimingArgs,
    #[command(flatten)]
    other: OtherArgs,
    /// Add it paused
    #[arg(long)]
    paused: bool,
}

#[derive(Args)]
struct Update {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    timing: TimingArgs,
    #[command(flatten)]
    other: OtherArgs,
    /// Settings to remove, such as end or jitter
    #[arg(long, value_name = "SETTING",
        value_parser = ["start", "end", "jitter", "payload", "missed-limit", "overlap", "retry", "timezone"])]
    unset: Vec<String>,
}

#[derive(Args)]
struct Preview {
    #[command(flatten)]
    timing: TimingArgs,
    /// How many instants
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    count: u32,
}

#[derive(Args)]
struct History {
    /// The function; may be left out when no other function has a schedule of that name
    #[arg(value_name = "FUNCTION")]
    first: String,
    /// The schedule
    #[arg(value_name = "SCHEDULE")]
    second: Option<ScheduleName>,
    /// How many
    #[arg(short, long, default_value_t = 20)]
    limit: u32,
    /// Only instants before this one, as it is shown in the last row of a page
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    before: Option<DateTime<Utc>>,
}

/// An instant as tables show it, or as JSON has it.
fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    text.trim().replace(' ', "T").parse().map_err(|_| "write it like 2026-12-24T18:00:00Z".into())
}

impl Schedule {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let (api, as_json) = (globals.api()?, globals.json());
        match self.verb {
            Verb::Add(add) => add.run(&api, as_json).await,
            Verb::Update(update) => update.run(&api, as_json).await,
            Verb::Preview(preview) => preview.run(&api, as_json).await,
            Verb::History(history) => history.run(&api, as_json).await,
            Verb::List { function } => {
                let schedules = match &function {
                    Some(function) => api.schedules(function).await?,
                    None => api.all_schedules().await?,
                };
                if as_json {
                    json(&schedules);
                } else {
                    show::schedules(&schedules, function.is_none());
                }
                Ok(())
            }
            Verb::Pause(w) => switch(&api, &w, "pause", "paused").await,
            Verb::Resume(w) => switch(&api, &w, "resume", "resumed").await,
            Verb::Run(w) => {
                let accepted = api.run_schedule(&w.function, &w.schedule).await?;
                if as_json {
                    json(&accepted)
                } else {
                    line(accepted.invocation_id)
                }
                Ok(())
            }
            Verb::Remove(w) => {
                api.remove_schedule(&w.function, &w.schedule).await?;
                note(format!("{} is removed", w.schedule));
                Ok(())
            }
        }
    }
}

impl Add {
    async fn run(self, api: &Api, as_json: bool) -> Result<()> {
        let mut fields = named(&self.timing, &self.other, None)?;
        fields.insert("enabled".into(), (!self.paused).into());
        let spec = serde_json::from_value(Value::Object(fields));
        let spec = spec.map_err(|e| Failure::Usage(e.to_string()))?;
        let new = NewSchedule { name: self.which.schedule, spec };
        say(&api.add_schedule(&self.which.function, &new).await?, as_json);
        Ok(())
    }
}

impl Update {
    async fn run(self, api: &Api, as_json: bool) -> Result<()> {
        let Which { function, schedule } = &self.which;
        let known = api.schedules(function).await?;
        let before = known.iter().find(|view| view.name == *schedule);
        let mut patch = named(&self.timing, &self.other, before.map(|view| &view.spec))?;
        for field in &self.unset {
            patch.insert(field.replace('-', "_"), Value::Null);
        }
        if patch.is_empty() {
            return Err(Failure::Usage("nothing to change: name a setting".into()));
        }
        let view = api.edit_schedule(function, schedule, &patch).await?;
        say(&view, as_json);
        if view.from_manifest && !as_json {
            note("it comes from davit.toml, and is as that file says again after the next deployment");
        }
        Ok(())
    }
}

/// What a schedule is now.
fn say(view: &ScheduleView, as_json: bool) {
    if as_json {
        json(view);
    } else {
        line(format!("{}: next {}", view.name, show::next(view)));
    }
}

impl Preview {
    async fn run(self, api: &Api, as_json: bool) -> Result<()> {
        let zone = self.timing.timezone.clone().unwrap_or_else(|| "UTC".into());
        let preview = api.preview(&self.timing.request(self.count)).await?;
        if as_json {
            json(&preview);
        } else {
            show::preview(&preview, &zone);
        }
        Ok(())
    }
}

impl History {
    async fn run(self, api: &Api, as_json: bool) -> Result<()> {
        let named = |e: davit_api::NameError| Failure::Usage(e.to_string());
        let (function, schedule) = match self.second {
            Some(schedule) => (self.first.parse().map_err(named)?, schedule),
            None => only_one(api, &self.first.parse().map_err(named)?).await?,
        };
        let fires = api.fires(&function, &schedule, self.before, self.limit).await?;
        if as_json {
            json(&fires);
        } else {
            show::history(&fires);
        }
        Ok(())
    }
}

/// The one schedule of the namespace that has this name.
async fn only_one(api: &Api, name: &ScheduleName) -> Result<(FunctionName, ScheduleName)> {
    let all = api.all_schedules().await?;
    let mut found = all.into_iter().filter(|view| view.name == *name);
    match (found.next(), found.next()) {
        (Some(view), None) => Ok((view.function, view.name)),
        (None, _) => Err(Failure::Usage(format!("no function has a schedule named {name}"))),
        (Some(a), Some(b)) => Err(Failure::Usage(format!(
            "{} and {} have a schedule named {name}; say which: davit schedule history {} {name}",
            a.function, b.function, a.function
        ))),
    }
}

async fn switch(api: &Api, which: &Which, verb: &str, done: &str) -> Result<()> {
    api.switch_schedule(&which.function, &which.schedule, verb).await?;
    note(format!("{} is {done}", which.schedule));
    Ok(())
}
