//! `davit logs`: what a function printed. On a terminal, control characters are shown instead of obeyed.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use davit_api::{ErrorCode, FunctionName, InvocationId, LogLine, LogStream};

use crate::api::{Api, LogQuery};
use crate::context::Globals;
use crate::escape::visible;
use crate::failure::{Failure, Result};
use crate::output::{Colour, line, note, paint};

/// Show what a function printed
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit logs hello
  davit logs hello -f                     and go on as lines arrive
  davit logs hello --invocation ID        only of one call
  davit logs hello -o json | jq .line     one JSON object a line")]
pub(crate) struct Logs {
    /// The function
    function: FunctionName,
    /// Go on as lines arrive
    #[arg(short, long)]
    follow: bool,
    /// How many of the newest lines to begin with
    #[arg(short = 'l', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    lines: u32,
    /// Only lines of this call
    #[arg(long, value_name = "ID")]
    invocation: Option<InvocationId>,
}

impl Logs {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?;
        let mut query =
            LogQuery { invocation_id: self.invocation, limit: Some(self.lines), ..LogQuery::default() };
        let mut quiet = 0;
        loop {
            let found = match api.logs(&self.function, &query).await {
                Ok(found) => found,
                // Someone who follows wants to see what comes after a restart, too.
                Err(Failure::Unreachable(cause)) if self.follow && query.after.is_some() && quiet < 60 => {
                    if quiet == 0 {
                        note(format!("{cause}; trying again"));
                    }
                    quiet += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            quiet = 0;
            for entry in &found {
                print_line(entry, "", globals.json());
            }
            if !self.follow {
                return Ok(());
            }
            let cursor = found.last().map(|l| l.cursor).or(query.after).unwrap_or(0);
            query = LogQuery { after: Some(cursor), limit: Some(1000), wait: Some(20), ..query };
            if found.is_empty() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// The position of the last line that a function has printed; none when there is no such function, or it printed nothing.
pub(super) async fn last_line(api: &Api, function: &FunctionName) -> Result<Option<i64>> {
    let query = LogQuery { limit: Some(1), ..LogQuery::default() };
    match api.logs(function, &query).await {
        Ok(lines) => Ok(lines.last().map(|line| line.cursor)),
        Err(Failure::Refused(body)) if body.code == ErrorCode::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Prints a line; `about` comes first where lines of several functions are shown.
pub(super) fn print_line(entry: &LogLine, about: &str, json: bool) {
    if json {
        if let Ok(text) = serde_json::to_string(entry) {
            line(text);
        }
        return;
    }
    let terminal = std::io::stdout().is_terminal();
    let at = entry.at.with_timezone(&chrono::Local).format("%H:%M:%S%.3f");
    let call = entry.invocation_id.map_or_else(
        || "-".repeat(8),
        |id| {
            // The end of an id differs between calls of one moment; its beginning is the time.
            let id = id.to_string();
            id[id.len() - 8..].to_owned()
        },
    );
    let head = paint(Colour::Dim, &format!("{at} {about}v{} {call}", entry.version), terminal);
    let text = if terminal { visible(&entry.line) } else { entry.line.as_str().into() };
    let text = match entry.stream {
        LogStream::Stderr => paint(Colour::Red, &text, terminal),
        LogStream::Platform => paint(Colour::Dim, &text, terminal),
        LogStream::Stdout => text.into_owned(),
    };
    line(format!("{head} {text}"));
}
