//! `davit schedule`: when the clock calls a function.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use davit_api::{
    FunctionName, MissedPolicy, NewSchedule, PreviewRequest, ScheduleName, ScheduleSpec, ScheduleView,
};

use crate::api::Api;
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{Table, json, line, note, or_dash, when};

/// Let the clock call a function
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit schedule add hello nightly '30 2 * * *' --timezone Europe/Berlin
  davit schedule preview '30 2 * * *' --timezone Europe/Berlin
  davit schedule list hello
  davit schedule run hello nightly        now, once
  davit schedule history hello nightly")]
pub(crate) struct Schedule {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Add a schedule
    Add(Add),
    /// Show when a cron line would ring; nothing is stored
    Preview(Preview),
    /// List a function's schedules
    #[command(visible_alias = "ls")]
    List { function: FunctionName },
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
    History {
        #[command(flatten)]
        which: Which,
        /// How many
        #[arg(short, long, default_value_t = 20)]
        limit: u32,
    },
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
    /// Five cron fields: minute, hour, day of month, month, day of week
    cron: String,
    /// Time zone in which the fields are read
    #[arg(long, default_value = "UTC")]
    timezone: String,
    /// The event as JSON [default: a scheduled event as AWS EventBridge sends it]
    #[arg(long)]
    payload: Option<String>,
    /// Record instants missed during downtime instead of running the latest late
    #[arg(long)]
    skip_missed: bool,
    /// Add it paused
    #[arg(long)]
    paused: bool,
}

#[derive(Args)]
struct Preview {
    /// Five cron fields: minute, hour, day of month, month, day of week
    cron: String,
    /// Time zone in which the fields are read
    #[arg(long, default_value = "UTC")]
    timezone: String,
    /// How many instants
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    count: u32,
}

impl Schedule {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?;
        match self.verb {
            Verb::Add(add) => add.run(&api, globals.json()).await,
            Verb::Preview(preview) => preview.run(&api, globals.json()).await,
            Verb::List { function } => {
                let schedules = api.schedules(&function).await?;
                if globals.json() {
                    json(&schedules)
                } else {
                    print(&schedules)
                }
                Ok(())
            }
            Verb::Pause(w) => switch(&api, &w, "pause", "paused").await,
            Verb::Resume(w) => switch(&api, &w, "resume", "resumed").await,
            Verb::Run(w) => {
                let accepted = api.run_schedule(&w.function, &w.schedule).await?;
                if globals.json() {
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
            Verb::History { which, limit } => {
                let fires = api.fires(&which.function, &which.schedule, limit).await?;
                if globals.json() {
                    json(&fires);
                    return Ok(());
                }
                let mut table = Table::new(&["DUE", "OUTCOME", "LATE BY", "INVOCATION"]);
                for fire in &fires {
                    let late = (fire.recorded_at - fire.due_at).num_milliseconds().max(0);
                    let outcome = format!("{:?}", fire.outcome).to_lowercase();
                    let due = fire.due_at.format("%Y-%m-%d %H:%M:%SZ");
                    table.row(&[&due, &outcome, &format!("{late} ms"), &or_dash(fire.invocation_id)]);
                }
                table.print("it has not rung yet");
                Ok(())
            }
        }
    }
}

impl Add {
    async fn run(self, api: &Api, as_json: bool) -> Result<()> {
        let payload = self.payload.map(|text| serde_json::from_str(&text)).transpose();
        let spec = ScheduleSpec {
            cron: self.cron,
            timezone: self.timezone,
            payload: payload.map_err(|e| Failure::Usage(format!("the payload is not JSON: {e}")))?,
            missed: if self.skip_missed { MissedPolicy::Skip } else { MissedPolicy::RunOnce },
            enabled: !self.paused,
        };
        let new = NewSchedule { name: self.which.schedule, spec };
        let view = api.add_schedule(&self.which.function, &new).await?;
        if as_json {
            json(&view);
        } else {
            line(format!("{}: next {}", view.name, next(&view)));
        }
        Ok(())
    }
}

impl Preview {
    async fn run(self, api: &Api, as_json: bool) -> Result<()> {
        let zone = davit_cron::parse_zone(&self.timezone).map_err(|e| Failure::Usage(e.to_string()))?;
        let request = PreviewRequest {
            cron: self.cron,
            timezone: Some(self.timezone.clone()),
            count: Some(self.count),
        };
        let preview = api.preview(&request).await?;
        if as_json {
            json(&preview);
            return Ok(());
        }
        let header = self.timezone.to_uppercase();
        let mut table = Table::new(&["UTC", &header, "OFFSET", "IN"]);
        for at in preview.fires {
            let [utc, there, offset] = instant(at, zone);
            table.row(&[&utc, &there, &offset, &when(at)]);
        }
        table.print("it never rings");
        Ok(())
    }
}

/// An instant in UTC, on the zone's clock, and how far that is from UTC: the last tells summer from winter time.
fn instant(at: DateTime<Utc>, zone: davit_cron::Tz) -> [String; 3] {
    let there = at.with_timezone(&zone);
    [
        at.format("%Y-%m-%d %H:%M:%SZ").to_string(),
        there.format("%a %Y-%m-%d %H:%M").to_string(),
        there.format("%:z %Z").to_string(),
    ]
}

async fn switch(api: &Api, which: &Which, verb: &str, done: &str) -> Result<()> {
    api.switch_schedule(&which.function, &which.schedule, verb).await?;
    note(format!("{} is {done}", which.schedule));
    Ok(())
}

fn next(view: &ScheduleView) -> String {
    match view.next_due_at {
        _ if !view.spec.enabled => "paused".into(),
        Some(at) => format!("{} ({})", at.format("%Y-%m-%d %H:%M:%SZ"), when(at)),
        None => "none".into(),
    }
}

fn print(schedules: &[ScheduleView]) {
    let mut table = Table::new(&["NAME", "CRON", "TIME ZONE", "FROM", "LAST", "NEXT"]);
    for s in schedules {
        let from = if s.from_manifest { "davit.toml" } else { "hand" };
        table.row(&[
            &s.name,
            &s.spec.cron,
            &s.spec.timezone,
            &from,
            &or_dash(s.last_due_at.map(when)),
            &next(s),
        ]);
    }
    table.print("no schedules");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_shows_when_the_clocks_change() {
        let zone = davit_cron::parse_zone("Europe/Berlin").unwrap();
        let line: davit_cron::CronLine = "30 9 * * *".parse().unwrap();
        let rows = line.preview("2026-10-24T00:00:00Z".parse().unwrap(), zone, 2);
        let rows: Vec<_> = rows.into_iter().map(|at| instant(at, zone)).collect();
        assert_eq!(rows[0], ["2026-10-24 07:30:00Z", "Sat 2026-10-24 09:30", "+02:00 CEST"]);
        assert_eq!(rows[1], ["2026-10-25 08:30:00Z", "Sun 2026-10-25 09:30", "+01:00 CET"]);
    }
}
