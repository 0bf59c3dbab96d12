//! Ratios with their spread, as a table for people and JSON for scripts.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::figure::{Figure, Verdict, short};
use crate::plot;

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

/// One measured figure.
pub(crate) struct Row {
    pub(crate) figure: &'static Figure,
    /// What is judged: the ratios of the pairs, or the values themselves when there is no control.
    pub(crate) value: Spread,
    /// The two sides, in the figure's unit.
    sides: Option<(Spread, Spread)>,
    pairs: Vec<(f64, f64)>,
}

impl Row {
    pub(crate) fn verdict(&self) -> Verdict {
        self.figure.goal.judge(self.value.median)
    }
}

/// All figures of a run.
pub(crate) struct Report {
    versions: Value,
    pub(crate) rows: Vec<Row>,
    /// Lines that explain: direct rates, phases, which control was used.
    notes: Vec<String>,
    shown: (usize, usize),
}

impl Report {
    pub(crate) fn new(versions: Value) -> Self {
        Self { versions, rows: Vec::new(), notes: Vec::new(), shown: (0, 0) }
    }

    /// Adds a figure from pairs (davit, control) that were measured one after the other.
    pub(crate) fn pairs(&mut self, figure: &'static Figure, pairs: &[(f64, f64)]) {
        let column = |pick: fn(&(f64, f64)) -> f64| Spread::of(&pairs.iter().map(pick).collect::<Vec<_>>());
        self.rows.push(Row {
            figure,
            value: column(|p| p.0 / p.1),
            sides: Some((column(|p| p.0), column(|p| p.1))),
            pairs: pairs.to_vec(),
        });
    }

    /// Adds a figure that has no control.
    pub(crate) fn values(&mut self, figure: &'static Figure, values: &[f64]) {
        let pairs = values.iter().map(|v| (*v, f64::NAN)).collect();
        self.rows.push(Row { figure, value: Spread::of(values), sides: None, pairs });
    }

    /// Adds an explaining line.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// What was added since the last time this was asked.
    pub(crate) fn since_last(&mut self) -> String {
        let mut text: String = self.rows[self.shown.0..].iter().map(|row| line(row) + "\n").collect();
        for note in &self.notes[self.shown.1..] {
            let _ = writeln!(text, "   {note}");
        }
        self.shown = (self.rows.len(), self.notes.len());
        text
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<5} {:<66} {:>15} {:>15} {:>26}  {:<18} {}\n",
            "", "figure", "davit", "control", "median [min, max]", "target (stretch)", ""
        );
        for row in &self.rows {
            let _ = writeln!(text, "{}", line(row));
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let _ = write!(text, "{}", self.versions);
        text
    }

    /// Writes `latest.json` and `latest.svg` into the folder.
    pub(crate) fn write(&self, folder: &Path) -> crate::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(folder)?;
        let rows: Vec<Value> = self.rows.iter().map(row_json).collect();
        let json = json!({"versions": self.versions, "figures": rows, "notes": self.notes});
        let files = [
            ("latest.json", serde_json::to_string_pretty(&json)? + "\n"),
            ("latest.svg", plot::svg(&self.rows)),
        ];
        let mut written = Vec::new();
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text)?;
            written.push(path);
        }
        Ok(written)
    }
}

fn line(row: &Row) -> String {
    let side = |s: &Spread| format!("{} {}", short(s.median), row.figure.unit);
    let (davit, control) =
        row.sides.as_ref().map_or((side(&row.value), String::new()), |(a, b)| (side(a), side(b)));
    let value = row.value;
    format!(
        "{:<5} {:<66} {davit:>15} {control:>15} {:>26}  {:<18} {}",
        row.figure.id,
        row.figure.name,
        format!("{} [{}, {}]", short(value.median), short(value.min), short(value.max)),
        row.figure.goal.to_string(),
        row.verdict().as_str()
    )
}

fn row_json(row: &Row) -> Value {
    let bounds = row.figure.goal.bounds();
    json!({
        "id": row.figure.id, "figure": row.figure.name, "unit": row.figure.unit,
        "value": row.value.json(),
        "davit": row.sides.as_ref().map(|s| s.0.json()), "control": row.sides.as_ref().map(|s| s.1.json()),
        "target": bounds.map(|b| b.0), "stretch": bounds.map(|b| b.1), "verdict": row.verdict().as_str(),
        // A control that does not exist is no number and becomes null.
        "repeats": row.pairs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Goal;

    static X: Figure =
        Figure { id: "X", name: "x", unit: "ms", goal: Goal::AtMost { target: 0.25, stretch: 0.15 } };

    #[test]
    fn the_ratio_is_taken_pair_by_pair() {
        let mut report = Report::new(json!({}));
        report.pairs(&X, &[(1.0, 10.0), (4.0, 20.0), (9.0, 30.0)]);
        let value = report.rows[0].value;
        assert_eq!((value.min, value.median, value.max), (0.1, 0.2, 0.3));
        assert_eq!(report.rows[0].verdict(), Verdict::Met);
        assert!(report.table().contains("<= 0.25 (0.15)"), "{}", report.table());
    }

    #[test]
    fn what_was_shown_is_not_shown_again() {
        let mut report = Report::new(json!({}));
        report.values(&X, &[1.0]);
        report.note("direct: 5");
        assert!(report.since_last().contains("direct: 5"));
        assert_eq!(report.since_last(), "");
    }
}
