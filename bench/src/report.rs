//! Ratios with their spread, as a table for people and JSON for scripts.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Median, smallest and largest of some values.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self { median: sorted[sorted.len() / 2], min: sorted[0], max: sorted[sorted.len() - 1] }
    }
    fn json(self) -> Value {
        json!({"median": self.median, "min": self.min, "max": self.max})
    }
}

struct Row {
    figure: String,
    unit: &'static str,
    davit: Spread,
    control: Spread,
    ratio: Spread,
}

/// All figures of a run.
pub(crate) struct Report {
    versions: Value,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(versions: Value) -> Self {
        Self { versions, rows: Vec::new() }
    }

    /// Adds a figure from pairs (davit, control) that were measured one after the other.
    pub(crate) fn pairs(&mut self, figure: &str, unit: &'static str, pairs: &[(f64, f64)]) {
        let column = |pick: fn(&(f64, f64)) -> f64| Spread::of(&pairs.iter().map(pick).collect::<Vec<_>>());
        self.rows.push(Row {
            figure: figure.to_owned(),
            unit,
            davit: column(|p| p.0),
            control: column(|p| p.1),
            ratio: column(|p| p.0 / p.1),
        });
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<58} {:>22} {:>22} {:>25}\n",
            "figure (davit / control)", "davit", "control", "ratio [min, max]"
        );
        for row in &self.rows {
            let _ = writeln!(
                text,
                "{:<58} {:>18.3} {:<3} {:>18.3} {:<3} {:>9.4} [{:.4}, {:.4}]",
                row.figure,
                row.davit.median,
                row.unit,
                row.control.median,
                row.unit,
                row.ratio.median,
                row.ratio.min,
                row.ratio.max
            );
        }
        let _ = write!(text, "{}", self.versions);
        text
    }

    /// Writes `latest.json` into the folder.
    pub(crate) fn write(&self, folder: &Path) -> crate::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|r| json!({"figure": r.figure, "unit": r.unit, "davit": r.davit.json(), "control": r.control.json(), "ratio": r.ratio.json()}))
            .collect();
        let path = folder.join("latest.json");
        std::fs::write(
            &path,
            serde_json::to_vec_pretty(&json!({"versions": self.versions, "figures": rows}))?,
        )?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_taken_pair_by_pair() {
        let mut report = Report::new(json!({}));
        report.pairs("x", "ms", &[(1.0, 10.0), (4.0, 20.0), (9.0, 30.0)]);
        assert_eq!(
            (report.rows[0].ratio.min, report.rows[0].ratio.median, report.rows[0].ratio.max),
            (0.1, 0.2, 0.3)
        );
    }
}
