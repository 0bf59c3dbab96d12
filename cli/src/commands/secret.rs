//! `davit secret`: values that functions get in their environment or as files and nobody gets to read again.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use davit_api::{SecretName, limits};

use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{Table, json, note, when};
use crate::prompt;

/// Keep secrets for functions
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit secret set api-key                 asks for the value
  davit secret set api-key --file key.txt
  printf %s \"$KEY\" | davit secret set api-key

A function gets it when its davit.toml says so:
  [secrets]
  API_KEY = \"api-key\"         a variable
  [secret_files]
  \"key.txt\" = \"api-key\"       the file /run/secrets/key.txt")]
pub(crate) struct Secret {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Set a secret; its value is asked for, or read from standard input. It is never an argument, because
    /// arguments can be seen by every user of the machine and stay in the shell's history
    Set {
        /// Its name
        name: SecretName,
        /// Read the value from a file; one final line end is dropped
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List names; values are never shown
    #[command(visible_alias = "ls")]
    List,
    /// Remove a secret
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        name: SecretName,
    },
}

impl Secret {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?;
        match self.verb {
            Verb::Set { name, file } => {
                let value = match file {
                    Some(path) => std::fs::read_to_string(&path)
                        .map(prompt::without_line_end)
                        .map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?,
                    None => prompt::secret(&format!("value of {name}: "), limits::SECRET_BYTES)?,
                };
                if value.is_empty() || value.len() > limits::SECRET_BYTES {
                    return Err(Failure::Usage(format!("a secret has 1 to {} bytes", limits::SECRET_BYTES)));
                }
                api.set_secret(&name, &value).await?;
                note(format!("{name} is set; new instances get it"));
            }
            Verb::List => {
                let secrets = api.secrets().await?;
                if globals.json() {
                    json(&secrets);
                    return Ok(());
                }
                let mut table = Table::new(&["NAME", "SET"]);
                for secret in &secrets {
                    table.row(&[&secret.name, &when(secret.updated_at)]);
                }
                table.print("no secrets");
            }
            Verb::Remove { name } => {
                api.remove_secret(&name).await?;
                note(format!("{name} is removed"));
            }
        }
        Ok(())
    }
}
