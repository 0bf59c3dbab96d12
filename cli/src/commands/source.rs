//! `davit source`: how events from outside come to functions.

use clap::{Args, Subcommand};
use davit_api::{
    FunctionName, NewSource, SecretName, SourceName, SourceSpec, SourceView, Verification, WebhookSource,
};

use crate::api::Api;
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{Table, json, line, note, or_dash, when};
use crate::time;

/// Let events from outside call functions
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit source create webhook pushes --to function:build --verify github --secret github-hook
  davit source create webhook payments --to function:book --verify stripe --secret stripe-hook
  davit source create webhook shop --to function:ship --verify hmac --secret shop-hook \\
      --header x-shopify-hmac-sha256 --delivery-header x-shopify-webhook-id
  davit source create webhook uploads --to function:resize --verify bearer --secret minio-hook
  davit source list
  davit source describe pushes            shows the address to give to the sender
  davit source pause pushes
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
        kind: Kind,
    },
    /// List the namespace's sources
    #[command(visible_alias = "ls")]
    List,
    /// Show a source and where its deliveries are taken
    Describe {
        /// The source
        source: SourceName,
    },
    /// Take nothing until it is resumed; senders are told to try again later
    Pause {
        /// The source
        source: SourceName,
    },
    /// Take events again
    Resume {
        /// The source
        source: SourceName,
    },
    /// Remove a source; what it has delivered is carried out
    #[command(visible_alias = "rm")]
    Delete {
        /// The source
        source: SourceName,
    },
}

#[derive(Subcommand)]
enum Kind {
    /// An address of the gateway that somebody outside sends events to by HTTP POST
    Webhook(Webhook),
}

#[derive(Args)]
struct Webhook {
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

/// `function:NAME`; the word before the colon leaves room for other targets.
fn target(text: &str) -> Result<FunctionName, String> {
    let name = text.strip_prefix("function:").ok_or("write function:NAME")?;
    name.parse().map_err(|e: davit_api::NameError| e.to_string())
}

impl Source {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let (api, as_json) = (globals.api()?, globals.json());
        match self.verb {
            Verb::Create { kind: Kind::Webhook(webhook) } => webhook.run(api, as_json).await,
            Verb::List => {
                let sources = api.sources().await?;
                if as_json {
                    json(&sources);
                } else {
                    list(&sources);
                }
                Ok(())
            }
            Verb::Describe { source } => {
                let view = api.source(&source).await?;
                if as_json {
                    json(&view);
                    return Ok(());
                }
                describe(&view, &api.with_gateway().await?)
            }
            Verb::Pause { source } => switch(&api, &source, "pause", "paused", as_json).await,
            Verb::Resume { source } => switch(&api, &source, "resume", "resumed", as_json).await,
            Verb::Delete { source } => {
                api.remove_source(&source).await?;
                note(format!("{source} is removed"));
                Ok(())
            }
        }
    }
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

fn address(view: &SourceView, api: &Api) -> Result<String> {
    let gateway = api.gateway()?.base();
    Ok(view.path.as_ref().map_or_else(|| "-".into(), |path| format!("{gateway}{path}")))
}

fn state(view: &SourceView) -> &'static str {
    if view.paused { "paused" } else { "active" }
}

fn list(sources: &[SourceView]) {
    let mut table = Table::new(&["NAME", "KIND", "VERIFY", "TO", "STATE", "MADE"]);
    for view in sources {
        let SourceSpec::Webhook(webhook) = &view.spec;
        let to = format!("function:{}", view.function);
        let cells: [&dyn std::fmt::Display; 6] =
            [&view.name, &view.spec.kind(), &webhook.verify, &to, &state(view), &when(view.created_at)];
        table.row(&cells);
    }
    table.print("no sources");
}

fn describe(view: &SourceView, api: &Api) -> Result<()> {
    let SourceSpec::Webhook(webhook) = &view.spec;
    let rows = [
        ("name", view.name.to_string()),
        ("kind", view.spec.kind().to_owned()),
        ("to", format!("function:{}", view.function)),
        ("address", address(view, api)?),
        ("verify", webhook.verify.to_string()),
        ("secret", or_dash(webhook.secret.as_ref())),
        ("header", or_dash(webhook.header())),
        ("delivery header", or_dash(webhook.delivery_header.as_ref())),
        ("state", state(view).to_owned()),
        ("made", when(view.created_at)),
    ];
    for (name, value) in rows {
        line(format!("{name:<16} {}", crate::escape::visible(&value)));
    }
    Ok(())
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
