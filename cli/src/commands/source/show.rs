//! Sources as tables and lists for people.

use std::fmt::Display;

use davit_api::{PostgresSource, SourceSpec, SourceStatus, SourceView, WebhookSource};

use crate::api::Api;
use crate::failure::Result;
use crate::output::{Table, line, or_dash, when};

/// Where deliveries are sent to.
pub(super) fn address(view: &SourceView, api: &Api) -> Result<String> {
    let gateway = api.gateway()?.base();
    Ok(view.path.as_ref().map_or_else(|| "-".into(), |path| format!("{gateway}{path}")))
}

fn state(view: &SourceView) -> String {
    match &view.status {
        Some(status) => status.state.to_string(),
        None if view.paused => "paused".into(),
        None => "active".into(),
    }
}

pub(super) fn list(sources: &[SourceView]) {
    let mut table = Table::new(&["NAME", "KIND", "FROM", "TO", "STATE", "MADE"]);
    for view in sources {
        let from = match &view.spec {
            SourceSpec::Webhook(webhook) => webhook.verify.to_string(),
            SourceSpec::Postgres(postgres) => postgres.table.to_string(),
        };
        let to = format!("function:{}", view.function);
        let cells: [&dyn Display; 6] =
            [&view.name, &view.spec.kind(), &from, &to, &state(view), &when(view.created_at)];
        table.row(&cells);
    }
    table.print("no sources");
}

pub(super) async fn describe(view: &SourceView, api: Api) -> Result<()> {
    let mut rows = vec![
        ("name", view.name.to_string()),
        ("kind", view.spec.kind().to_owned()),
        ("to", format!("function:{}", view.function)),
    ];
    match &view.spec {
        SourceSpec::Webhook(webhook) => {
            rows.push(("address", address(view, &api.with_gateway().await?)?));
            rows.extend(of_webhook(webhook));
        }
        SourceSpec::Postgres(postgres) => rows.extend(of_postgres(postgres)),
    }
    rows.push(("state", state(view)));
    rows.extend(view.status.iter().flat_map(getting_on));
    rows.push(("made", when(view.created_at)));
    for (name, value) in rows {
        line(format!("{name:<16} {}", crate::escape::visible(&value)));
    }
    Ok(())
}

fn of_webhook(webhook: &WebhookSource) -> [(&'static str, String); 4] {
    [
        ("verify", webhook.verify.to_string()),
        ("secret", or_dash(webhook.secret.as_ref())),
        ("header", or_dash(webhook.header())),
        ("delivery header", or_dash(webhook.delivery_header.as_ref())),
    ]
}

fn of_postgres(postgres: &PostgresSource) -> [(&'static str, String); 8] {
    let events: Vec<&str> = postgres.events.iter().map(|event| event.as_str()).collect();
    let columns = if postgres.columns.is_empty() { "all".into() } else { postgres.columns.join(", ") };
    [
        ("table", postgres.table.to_string()),
        ("secret", postgres.secret.to_string()),
        ("events", events.join(", ")),
        ("columns", columns),
        ("order", postgres.order.to_string()),
        ("batch", format!("{}, waits {} ms", postgres.batch, postgres.batch_wait_ms)),
        ("backlog", postgres.backlog.to_string()),
        ("installed by", if postgres.manual { "hand" } else { "davit" }.to_owned()),
    ]
}

fn getting_on(status: &SourceStatus) -> [(&'static str, String); 6] {
    let at = |time: Option<_>| time.map_or_else(|| "-".to_owned(), when);
    let lag = status.lag_seconds.map_or_else(|| "-".to_owned(), |lag| format!("{lag:.1} s"));
    [
        ("gateway", or_dash(status.gateway)),
        ("delivered", status.delivered.to_string()),
        ("last event", at(status.last_event_at)),
        ("lag", lag),
        ("last error", or_dash(status.last_error.as_ref())),
        ("last error at", at(status.last_error_at)),
    ]
}
