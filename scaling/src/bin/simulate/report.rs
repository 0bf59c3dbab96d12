//! The figures as a table for people and as JSON for scripts.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::compare::{Curve, Equal, StepRow};
use crate::engine::Totals;

/// Everything that a run found.
pub(crate) struct Report {
    pub(crate) trace: String,
    pub(crate) curves: Vec<Curve>,
    /// What was compared, and how it came out.
    pub(crate) equal: Vec<(&'static str, Equal)>,
    pub(crate) steps: Vec<StepRow>,
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.trace);
        let _ = writeln!(
            text,
            "{:<26} {:>10} {:>11} {:>12} {:>14} {:>10} {:>9}",
            "policy", "setting", "cold starts", "ahead", "idle GiB x h", "waited s", "p75 cold"
        );
        for curve in &self.curves {
            for point in &curve.points {
                let _ = writeln!(text, "{:<26} {:>10} {}", curve.name, point.knob, row(&point.totals));
            }
        }
        for (what, equal) in &self.equal {
            let _ = writeln!(text, "\nat equal idle memory: {what}");
            let _ = writeln!(text, "{:<26} {:>10} {}", "control", "", row(&equal.control));
            let price = format!("{:.3}", equal.price);
            let _ = writeln!(text, "{:<26} {:>10} {}", "davit, at price", price, row(&equal.davit));
            let _ = writeln!(
                text,
                "ratio of cold starts {:.3}   of all starts {:.3}   of waiting {:.3}",
                equal.ratio(),
                equal.ratio_of_all_starts(),
                equal.ratio_of_waiting()
            );
        }
        let _ = writeln!(
            text,
            "\nstep 1 -> 20 callers, medians over 8 positions within Knative's tick; times in ms\n{:>8} {:>8} {:>12} {:>14} {:>8} {:>12} {:>13} {:>15}",
            "call",
            "start",
            "davit fits",
            "Knative fits",
            "ratio",
            "worst ratio",
            "longest wait",
            "Knative's wait"
        );
        for s in &self.steps {
            let _ = writeln!(
                text,
                "{:>8} {:>8} {:>12} {:>14} {:>8.3} {:>12.3} {:>13} {:>15}",
                s.service.as_millis(),
                s.cold.as_millis(),
                s.davit.as_millis(),
                s.knative.as_millis(),
                s.ratio(),
                s.worst,
                s.davit_wait.as_millis(),
                s.knative_wait.as_millis()
            );
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let curves: Vec<Value> = self
            .curves
            .iter()
            .map(|c| {
                let points: Vec<Value> = c
                    .points
                    .iter()
                    .map(|p| json!({"setting": p.knob, "totals": totals(&p.totals)}))
                    .collect();
                json!({"policy": c.name, "points": points})
            })
            .collect();
        let equal: Vec<Value> = self
            .equal
            .iter()
            .map(|(what, e)| {
                json!({
                    "what": what, "control": totals(&e.control), "davit": totals(&e.davit), "price": e.price,
                    "ratio": e.ratio(), "ratio_of_all_starts": e.ratio_of_all_starts(),
                    "ratio_of_waiting": e.ratio_of_waiting(),
                })
            })
            .collect();
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|s| {
                json!({
                    "call_ms": s.service.as_millis() as u64, "start_ms": s.cold.as_millis() as u64,
                    "davit_fits_ms": s.davit.as_millis() as u64, "knative_fits_ms": s.knative.as_millis() as u64,
                    "ratio": s.ratio(), "worst_ratio": s.worst,
                })
            })
            .collect();
        json!({"trace": self.trace, "curves": curves, "equal_memory": equal, "steps": steps})
    }
}

fn row(t: &Totals) -> String {
    format!(
        "{:>11} {:>12} {:>14.1} {:>10.0} {:>9.3}",
        t.cold_starts,
        t.ahead,
        t.idle_gib_s / 3_600.0,
        t.waited_s,
        t.p75_cold
    )
}

fn totals(t: &Totals) -> Value {
    json!({
        "calls": t.calls, "cold_starts": t.cold_starts, "started_ahead": t.ahead, "idle_gib_s": t.idle_gib_s,
        "waited_s": t.waited_s, "p75_cold": t.p75_cold, "over_budget": t.over_budget,
    })
}
