//! `davit token`: who may do what.

use chrono::{Duration, Utc};
use clap::{Args, Subcommand};
use davit_api::{NewToken, Role, TokenId};

use crate::context::Globals;
use crate::failure::Result;
use crate::output::{Table, json, line, note, or_dash, when};

/// Make, list and revoke API tokens
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit token create --role invoke 'the billing service'
  davit token create --role deploy --expires-days 90 'CI'
  davit token list
  davit token revoke ID

Roles, each with those before it: read, invoke, deploy, admin.")]
pub(crate) struct Token {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a token for the namespace; it is shown once
    Create {
        /// What it is for
        description: String,
        /// What it may do: read, invoke, deploy or admin
        #[arg(long)]
        role: Role,
        /// For every namespace, instead of the one that --namespace names
        #[arg(long)]
        all_namespaces: bool,
        /// When it stops working [default: never]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        expires_days: Option<u32>,
    },
    /// List tokens, never their secrets
    #[command(visible_alias = "ls")]
    List,
    /// Revoke a token
    Revoke {
        /// Its id, as `davit token list` shows it
        id: TokenId,
    },
}

impl Token {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let api = globals.api()?;
        match self.verb {
            Verb::Create { description, role, all_namespaces, expires_days } => {
                let new = NewToken {
                    description,
                    role,
                    namespace: if all_namespaces { None } else { Some(api.namespace().clone()) },
                    expires_at: expires_days.map(|days| Utc::now() + Duration::days(days.into())),
                };
                let made = api.create_token(&new).await?;
                if globals.json() {
                    json(&made);
                } else {
                    line(&made.token);
                    note("this is the only time it is shown");
                }
            }
            Verb::List => {
                let tokens = api.tokens().await?;
                if globals.json() {
                    json(&tokens);
                    return Ok(());
                }
                let mut table = Table::new(&["ID", "PREFIX", "ROLE", "NAMESPACE", "USED", "ENDS", "FOR"]);
                for t in &tokens {
                    let ends = match (t.revoked_at, t.expires_at) {
                        (Some(at), _) => format!("revoked {}", when(at)),
                        (None, Some(at)) => when(at),
                        (None, None) => "never".into(),
                    };
                    let namespace = t.namespace.as_ref().map_or("(all)", |n| n.as_str());
                    let used = or_dash(t.last_used_at.map(when));
                    table.row(&[&t.id, &t.prefix, &t.role, &namespace, &used, &ends, &t.description]);
                }
                table.print("no tokens");
            }
            Verb::Revoke { id } => {
                api.revoke_token(id).await?;
                note("it is revoked");
            }
        }
        Ok(())
    }
}
