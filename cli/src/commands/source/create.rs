//! `davit source create`: one kind of source each.

use clap::{Args, Subcommand};
use davit_api::{
    ChangeOrder, FunctionName, NewSource, PostgresSource, SecretName, SourceName, SourceSpec, TableEvent,
    TableName, Verification, WebhookSource,
};

use super::show::address;
use crate::api::Api;
use crate::failure::{Failure, Result};
use crate::output::{json, line, note};
use crate::time;

#[derive(Subcommand)]
pub(super) enum Kind {
    /// An address of the gateway that somebody outside sends events to by HTTP POST
    Webhook(Webhook),
    /// Changes of a table in a Postgres of yours
    Postgres(Box<Postgres>),
}

impl Kind {
    pub(super) async fn run(self, api: Api, as_json: bool) -> Result<()> {
        match self {
            Self::Webhook(webhook) => webhook.run(api, as_json).await,
            Self::Postgres(postgres) => postgres.run(api, as_json).await,
        }
    }
}

#[derive(Args)]
pub(super) struct Webhook {
    /// Its name, unique within the namespace
    name: SourceName,
    /// Who gets the events
    #[arg(long, value_name = "function:NAME", value_parser = target)]
    to: FunctionName,
    /// How deliveries show who sent them: github, stripe, standard (Standard Webhooks), hmac, bearer, none
    #[arg(long, value_name = "SCHEME")]
    verify: Verification,
    /// The secret that they are checked with
    #[arg(long, value_name = "SECRET")]
    secret: Option<SecretName>,
    /// With hmac and bearer: the header that is looked at [default: x-signature, authorization]
    #[arg(long, value_name = "NAME")]
    header: Option<String>,
    /// With hmac, bearer and none: the header with the sender's id of a delivery
    #[arg(long, value_name = "NAME")]
    delivery_header: Option<String>,
    /// With stripe and standard: how far the sender's time may lie from the gateway's [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = time::seconds)]
    tolerance: Option<u32>,
    /// Make it paused
    #[arg(long)]
    paused: bool,
}

impl Webhook {
    async fn run(self, api: Api, as_json: bool) -> Result<()> {
        let mut webhook = WebhookSource::new(self.verify, self.secret);
        webhook.header = self.header.map(|name| name.to_ascii_lowercase());
        webhook.delivery_header = self.delivery_header.map(|name| name.to_ascii_lowercase());
        webhook.tolerance_seconds = self.tolerance.unwrap_or(webhook.tolerance_seconds);
        let spec = SourceSpec::Webhook(webhook);
        spec.check().map_err(|e| Failure::Usage(e.message))?;
        let new = NewSource { name: self.name, function: self.to, spec, paused: self.paused };
        let view = api.create_source(&new).await?;
        if as_json {
            json(&view);
            return Ok(());
        }
        line(address(&view, &api.with_gateway().await?)?);
        if self.verify == Verification::None {
            note("nobody checks who sends to it: whoever knows the address can call the function");
        }
        Ok(())
    }
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  davit secret set orders-db             (postgres://user:password@db.example.com/shop?sslmode=verify-full)
  davit source create postgres orders --to function:on-order --connection-secret orders-db --table public.orders
  davit source create postgres prices --to function:reprice --connection-secret orders-db --table shop.items \\
      --events insert,update --columns id,price --order none --batch 500 --batch-wait 1s
  davit source create postgres orders --to function:on-order --connection-secret orders-db --table orders --manual
  davit source sql orders | psql \"$ADMIN_URL\"")]
pub(super) struct Postgres {
    /// Its name, unique within the namespace
    name: SourceName,
    /// Who gets the changes
    #[arg(long, value_name = "function:NAME", value_parser = target)]
    to: FunctionName,
    /// The secret with the database's address: postgres://user:password@host/database
    #[arg(long, value_name = "SECRET")]
    connection_secret: SecretName,
    /// The table, as schema.table; a name that is not plain stands in double quotes
    #[arg(long, value_name = "TABLE")]
    table: TableName,
    /// What is taken: insert, update, delete, truncate [default: all of them]
    #[arg(long, value_name = "EVENT", value_delimiter = ',')]
    events: Vec<TableEvent>,
    /// The columns that events show; an update of none of them is no event [default: all columns]
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    columns: Vec<String>,
    /// Which changes wait for each other: row (those of the same row), source (all), none
    #[arg(long, value_name = "ORDER", default_value = "row")]
    order: ChangeOrder,
    /// Changes that are taken at a time, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    batch: u32,
    /// How long fewer than that wait for more, up to 60s
    #[arg(long, value_name = "TIME", value_parser = time::seconds, default_value = "0s")]
    batch_wait: u32,
    /// Open calls of the function at which nothing more is taken until they are fewer
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
    backlog: u32,
    /// Install nothing: somebody else runs what `davit source sql` prints
    #[arg(long)]
    manual: bool,
    /// Make it paused
    #[arg(long)]
    paused: bool,
}

impl Postgres {
    async fn run(self, api: Api, as_json: bool) -> Result<()> {
        let mut postgres = PostgresSource::new(self.connection_secret, self.table);
        if !self.events.is_empty() {
            postgres.events = self.events;
        }
        postgres.columns = self.columns;
        postgres.order = self.order;
        (postgres.batch, postgres.backlog, postgres.manual) = (self.batch, self.backlog, self.manual);
        postgres.batch_wait_ms = self.batch_wait.saturating_mul(1_000);
        let spec = SourceSpec::Postgres(postgres);
        spec.check().map_err(|e| Failure::Usage(e.message))?;
        let new = NewSource { name: self.name, function: self.to, spec, paused: self.paused };
        let view = api.create_source(&new).await?;
        if as_json {
            json(&view);
            return Ok(());
        }
        note(format!("{} is made", view.name));
        if self.manual {
            note(format!(
                "nothing is taken before somebody runs what this prints: davit source sql {}",
                view.name
            ));
        }
        Ok(())
    }
}

/// `function:NAME`; the word before the colon leaves room for other targets.
fn target(text: &str) -> Result<FunctionName, String> {
    let name = text.strip_prefix("function:").ok_or("write function:NAME")?;
    name.parse().map_err(|e: davit_api::NameError| e.to_string())
}
