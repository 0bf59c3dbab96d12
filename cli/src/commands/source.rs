//! `davit source`: how events from outside come to functions.

mod create;
mod show;

use clap::{Args, Subcommand};
use davit_api::{SourceName, SourceSpec};

use crate::api::Api;
use crate::context::Globals;
use crate::failure::Result;
use crate::output::{json, note, raw};
use crate::prompt::confirm;

/// Let events from outside call functions
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit source create webhook pushes --to function:build --verify github --secret github-hook
  davit source create webhook payments --to function:book --verify stripe --secret stripe-hook
  davit source create webhook shop --to function:ship --verify hmac --secret shop-hook \\
      --header x-shopify-hmac-sha256 --delivery-header x-shopify-webhook-id
  davit source create webhook uploads --to function:resize --verify bearer --secret minio-hook
  davit source create postgres orders --to function:on-order --connection-secret orders-db --table public.orders
  davit source list
  davit source describe pushes            shows the address to give to the sender
  davit source pause pushes
  davit source sql orders                 what a database administrator runs instead of davit
  davit invocation list --source event_source")]
pub(crate) struct Source {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a source
    Create {
        #[command(subcommand)]
        kind: create::Kind,
    },
    /// List the namespace's sources
    #[command(visible_alias = "ls")]
    List,
    /// Show a source: where its deliveries are taken, or how fetching them is getting on
    Describe {
        /// The source
        source: SourceName,
    },
    /// Take nothing until it is resumed; senders are told to try again later, changes of tables gather
    Pause {
        /// The source
        source: SourceName,
    },
    /// Take events again
    Resume {
        /// The source
        source: SourceName,
    },
    /// Print the statements that put a source's trigger and outbox into its database
    #[command(after_help = "\
Examples:
  davit source sql orders | psql \"$ADMIN_URL\"
  davit source sql orders --remove | psql \"$ADMIN_URL\"")]
    Sql {
        /// The source
        source: SourceName,
        /// Print those that take them away
        #[arg(long)]
        remove: bool,
    },
    /// Remove a source; what it has delivered is carried out
    #[command(visible_alias = "rm")]
    Delete {
        /// The source
        source: SourceName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Leave its trigger and its outbox in the database, such as one that cannot be reached any more
        #[arg(long)]
        leave_outbox: bool,
    },
}

impl Source {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let (api, as_json) = (globals.api()?, globals.json());
        match self.verb {
            Verb::Create { kind } => kind.run(api, as_json).await,
            Verb::List => {
                let sources = api.sources().await?;
                if as_json {
                    json(&sources);
                } else {
                    show::list(&sources);
                }
                Ok(())
            }
            Verb::Describe { source } => {
                let view = api.source(&source).await?;
                if as_json {
                    json(&view);
                    return Ok(());
                }
                show::describe(&view, api).await
            }
            Verb::Pause { source } => switch(&api, &source, "pause", "paused", as_json).await,
            Verb::Resume { source } => switch(&api, &source, "resume", "resumed", as_json).await,
            Verb::Sql { source, remove } => {
                let sql = api.source_sql(&source).await?;
                if as_json {
                    json(&sql);
                } else {
                    let text = if remove { sql.remove } else { sql.install };
                    raw(text.as_bytes());
                }
                Ok(())
            }
            Verb::Delete { source, yes, leave_outbox } => {
                let postgres = match api.source(&source).await?.spec {
                    SourceSpec::Postgres(spec) => Some(spec),
                    SourceSpec::Webhook(_) => None,
                };
                if let Some(spec) = &postgres
                    && !yes
                {
                    let table = spec.table.to_string();
                    let table = crate::escape::visible(&table);
                    confirm(&format!(
                        "Delete {source}? Changes of {table} that were not delivered are lost."
                    ))?;
                }
                api.remove_source(&source, leave_outbox).await?;
                note(format!("{source} is removed"));
                if postgres.is_some_and(|spec| spec.manual || leave_outbox) {
                    note(
                        "its trigger and its outbox are still in the database and grow with each change until somebody removes them",
                    );
                }
                Ok(())
            }
        }
    }
}

async fn switch(api: &Api, source: &SourceName, verb: &str, done: &str, as_json: bool) -> Result<()> {
    let view = api.switch_source(source, verb).await?;
    if as_json {
        json(&view);
    } else {
        note(format!("{source} is {done}"));
    }
    Ok(())
}
