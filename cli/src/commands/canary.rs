//! `davit canary`: how a shift in steps is doing, and its end by hand; and the options that start one.

use clap::{Args, Subcommand};
use davit_api::{CanaryFigures, CanarySpec, CanaryState, CanaryView, FunctionName, LatencyLimit};

use crate::context::Globals;
use crate::escape::visible;
use crate::failure::Result;
use crate::output::{Table, json, line, or_dash, when};

/// How a canary goes on
#[derive(Args)]
pub(crate) struct CanaryOptions {
    /// Go live in steps: calls of a hundred that the new version gets, such as 5,25,50
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',')]
    canary: Vec<u32>,
    /// How long each step lasts at least, such as 30s or 2m [default: 2m]
    #[arg(long, requires = "canary", value_parser = crate::time::seconds)]
    interval: Option<u32>,
    /// Most calls that may fail through the function's own fault [default: 5%]
    #[arg(long, requires = "canary", value_name = "PERCENT", value_parser = percent)]
    max_errors: Option<f64>,
    /// Longest run of calls, such as p95:1.2x (times the old version's) or p95:250ms
    #[arg(long, requires = "canary", value_name = "LIMIT")]
    max_latency: Option<LatencyLimit>,
    /// Calls of the new version in a step before it is judged [default: 50]
    #[arg(long, requires = "canary", value_name = "CALLS")]
    min_calls: Option<u32>,
}

impl CanaryOptions {
    /// The canary that they ask for.
    pub(super) fn spec(&self) -> Option<CanarySpec> {
        if self.canary.is_empty() {
            return None;
        }
        let base = CanarySpec::new(self.canary.clone());
        Some(CanarySpec {
            interval_seconds: self.interval.unwrap_or(base.interval_seconds),
            max_error_percent: self.max_errors.unwrap_or(base.max_error_percent),
            max_latency: self.max_latency,
            min_calls: self.min_calls.unwrap_or(base.min_calls),
            steps: base.steps,
        })
    }
}

/// `1%` or `1`.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|n| (0.0..=100.0).contains(n))
        .ok_or_else(|| format!("{text:?} is no percentage; write 1% or 0.5%"))
}

/// Watch or end a shift to a new version
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit deploy --canary 5,25,50 --interval 2m --max-errors 1% --max-latency p95:1.2x
  davit canary status hello      how far it is, and what was counted
  davit canary abort hello       everything back to the old version
  davit canary promote hello     everything to the new one")]
pub(crate) struct Canary {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show the canary that runs, and how the last ones ended
    Status {
        /// The function
        function: FunctionName,
    },
    /// End it: the old version gets everything
    Abort {
        /// The function
        function: FunctionName,
    },
    /// End it: the new version gets everything
    Promote {
        /// The function
        function: FunctionName,
    },
}

impl Canary {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?;
        let ended = match self.verb {
            Verb::Status { function } => {
                let all = api.canaries(&function).await?;
                if globals.json() {
                    json(&all);
                } else {
                    print(&all);
                }
                return Ok(());
            }
            Verb::Abort { function } => api.end_canary(&function, "abort").await?,
            Verb::Promote { function } => api.end_canary(&function, "promote").await?,
        };
        if globals.json() {
            json(&ended);
        } else {
            line(sentence(&ended));
        }
        Ok(())
    }
}

fn print(all: &[CanaryView]) {
    if let Some(running) = all.first().filter(|canary| canary.state == CanaryState::Running) {
        line(visible(&sentence(running)));
        let figures = |name: &str, version: u32, figures: &CanaryFigures| {
            line(visible(&format!("  {name} version {version}: {}", counted(figures))));
        };
        figures("new", running.version, &running.new);
        figures("old", running.base, &running.old);
    }
    let mut table = Table::new(&["VERSION", "FROM", "STATE", "STEP", "BEGAN", "WHY"]);
    for canary in all {
        table.row(&[
            &canary.version,
            &canary.base,
            &canary.state.as_str(),
            &format!("{}/{}", canary.step, canary.spec.steps.len()),
            &when(canary.started_at),
            &or_dash(canary.reason.as_ref()),
        ]);
    }
    table.print("no canary has run");
}

/// What was counted of one version.
fn counted(figures: &CanaryFigures) -> String {
    let latency = figures.latency_ms.map(|ms| format!(", {ms:.1} ms")).unwrap_or_default();
    let platform = match figures.platform_errors {
        0 => String::new(),
        n => format!(" ({n} more found no place to run)"),
    };
    format!("{} calls, {} failed{platform}{latency}", figures.calls, figures.errors)
}

/// How a canary stands, in a sentence.
pub(super) fn sentence(canary: &CanaryView) -> String {
    let CanaryView { version, base, step, .. } = canary;
    let steps = canary.spec.steps.len();
    let weight = usize::try_from(*step).ok().and_then(|s| canary.spec.steps.get(s.checked_sub(1)?));
    let why = canary.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    match canary.state {
        CanaryState::Running => format!(
            "version {version} gets {}% of version {base}'s calls (step {step} of {steps}, for {})",
            weight.copied().unwrap_or_default(),
            when(canary.step_at).trim_end_matches(" ago")
        ),
        CanaryState::Promoted => format!("version {version} went live{why}"),
        CanaryState::RolledBack => format!("version {version} was rolled back to {base} in step {step}{why}"),
        CanaryState::Aborted => format!("the canary of version {version} was ended in step {step}{why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn percentages_are_within_a_hundred() {
        assert_eq!((percent("1%"), percent("0.5")), (Ok(1.0), Ok(0.5)));
        for bad in ["", "%", "-1%", "101%", "NaN"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }
}
