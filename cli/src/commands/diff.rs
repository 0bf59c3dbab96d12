//! `davit diff`: what is different between two versions.

use clap::Args;
use davit_api::{FunctionName, Qualifier, VersionDiff};

use crate::context::Globals;
use crate::escape::visible;
use crate::failure::{Failure, Result};
use crate::output::{json, line, note};

/// Show what is different between two versions
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit diff hello v3 v7          settings, and which files differ
  davit diff hello 3 7 --files    with the lines that differ

Of environment variables only the names are told.")]
pub(crate) struct Diff {
    /// The function
    function: FunctionName,
    /// The older version
    #[arg(value_name = "VERSION")]
    from: Qualifier,
    /// The newer version
    #[arg(value_name = "VERSION")]
    to: Qualifier,
    /// Show the lines of text files that differ
    #[arg(long)]
    files: bool,
}

impl Diff {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let (from, to) = (number(&self.from)?, number(&self.to)?);
        let diff = globals.api()?.diff(&self.function, from, to, self.files).await?;
        if globals.json() {
            json(&diff);
        } else {
            print(&diff);
        }
        Ok(())
    }
}

fn number(which: &Qualifier) -> Result<u32> {
    match which {
        Qualifier::Version(number) => Ok(*number),
        Qualifier::Alias(name) => Err(Failure::Usage(format!(
            "{name} is no version's number; `davit alias list` shows which one it is"
        ))),
    }
}

fn print(diff: &VersionDiff) {
    if diff.settings.is_empty() && diff.files.is_empty() {
        note(format!("versions {} and {} are the same", diff.from, diff.to));
    }
    for change in &diff.settings {
        let text = match (&change.old, &change.new) {
            (None, Some(new)) => format!("+ {}: {new}", change.setting),
            (Some(old), None) => format!("- {}: {old}", change.setting),
            (old, new) => format!(
                "~ {}: {} -> {}",
                change.setting,
                old.as_deref().unwrap_or_default(),
                new.as_deref().unwrap_or_default()
            ),
        };
        line(visible(&text));
    }
    for file in &diff.files {
        let text = match (file.old_bytes, file.new_bytes) {
            (None, Some(bytes)) => format!("+ {} ({bytes} bytes)", file.path),
            (Some(bytes), None) => format!("- {} ({bytes} bytes)", file.path),
            (old, new) => {
                format!("~ {} ({} -> {} bytes)", file.path, old.unwrap_or_default(), new.unwrap_or_default())
            }
        };
        line(visible(&text));
        for each in file.diff.iter().flat_map(|text| text.lines()) {
            line(format!("    {}", visible(each)));
        }
    }
    if diff.cut {
        note("there is more than is shown");
    }
}
