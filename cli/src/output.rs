//! Where a command's words go: data to standard output as a table or as JSON, everything else to standard
//! error. A reader that closes early (`| head`) ends the command quietly.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::escape::visible;
use crate::failure::Failure;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For scripts: the API's own bodies.
    Json,
}

/// Writes bytes to standard output.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a line to standard output.
pub(crate) fn line(text: impl Display) {
    raw(format!("{text}\n").as_bytes());
}

/// Writes a value as JSON to standard output.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => note(format!("cannot print the answer: {error}")),
    }
}

/// An image's id as people tell it from others.
pub(crate) fn short_id(id: &str) -> &str {
    let hex = id.trim_start_matches("sha256:");
    hex.get(..12).unwrap_or(hex)
}

/// Writes a line to standard error.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a failure and what to do about it.
pub(crate) fn complain(failure: &Failure) {
    if let Failure::Pending(text) = failure {
        return note(text);
    }
    let label = paint(Colour::Red, "error:", std::io::stderr().is_terminal());
    let text = failure.to_string();
    let text = text.lines().map(visible).collect::<Vec<_>>().join("\n");
    note(format!("{label} {text}"));
    if let Some(hint) = failure.hint() {
        note(format!("  {hint}"));
    }
}

/// Colours in use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    Red,
    Green,
    Dim,
}

/// The text in a colour, if it goes to a terminal and the user has not said NO_COLOR.
pub(crate) fn paint(colour: Colour, text: &str, terminal: bool) -> String {
    if !terminal || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Red => 31,
        Colour::Green => 32,
        Colour::Dim => 2,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// A table of text: columns as wide as their widest cell, nothing drawn.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with its headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// Adds a row. Cells are made safe for a terminal.
    pub(crate) fn row(&mut self, cells: &[&dyn Display]) {
        self.rows.push(cells.iter().map(|c| visible(&c.to_string()).into_owned()).collect());
    }

    /// Prints it, or a sentence if it has no rows.
    pub(crate) fn print(self, if_empty: &str) {
        if self.rows.len() == 1 {
            note(if_empty);
        } else {
            raw(self.render(std::io::stdout().is_terminal()).as_bytes());
        }
    }

    fn render(&self, terminal: bool) -> String {
        let columns = self.rows[0].len();
        let width = |n: usize| self.rows.iter().map(|r| r[n].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(c, w)| format!("{c}{}", " ".repeat(w - c.chars().count())))
                .collect();
            let line = cells.join("  ");
            let line = line.trim_end();
            text += &if index == 0 { paint(Colour::Dim, line, terminal) } else { line.to_owned() };
            text.push('\n');
        }
        text
    }
}

/// A moment as seen from now: `12 s ago`, `in 3 min`.
pub(crate) fn when(at: DateTime<Utc>) -> String {
    let seconds = (Utc::now() - at).num_seconds();
    let span = match seconds.unsigned_abs() {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s @ 7_200..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    };
    if seconds >= 0 { format!("{span} ago") } else { format!("in {span}") }
}

/// The value, or a dash where there is none.
pub(crate) fn or_dash<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_cells_are_harmless() {
        let mut table = Table::new(&["NAME", "CALLS"]);
        table.row(&[&"a-long-name", &1]);
        table.row(&[&"x\u{1b}[2J", &20]);
        assert_eq!(table.render(false), "NAME         CALLS\na-long-name  1\nx\\x1b[2J     20\n");
    }

    #[test]
    fn moments_read_like_speech() {
        let ago = |s| when(Utc::now() - chrono::Duration::seconds(s));
        assert_eq!(
            [ago(5), ago(300), ago(7_200), ago(200_000)],
            ["5 s ago", "5 min ago", "2 h ago", "2 days ago"]
        );
        assert!(when(Utc::now() + chrono::Duration::seconds(400)).starts_with("in 6 min"));
    }
}
