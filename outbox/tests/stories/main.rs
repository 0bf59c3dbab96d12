//! The outbox in a real Postgres of somebody's own.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod changes;
mod installing;

use davit_api::{NamespaceName, PostgresSource, SourceId, SourceName, TableEvent};
use davit_daemon::Allowed;
use davit_outbox::testing::{Client, UserDatabase};
use davit_outbox::{Address, Change, Outbox, Reader, Session, Trouble};

/// A user's database with a table, and a source of it.
struct World {
    database: UserDatabase,
    user: Client,
    id: SourceId,
    spec: PostgresSource,
}

impl World {
    async fn new() -> Self {
        let database = UserDatabase::new().await;
        let user = database.client().await;
        user.run("create table orders (id int primary key, item text, total numeric)").await;
        let spec = PostgresSource::new("db".parse().unwrap(), "public.orders".parse().unwrap());
        Self { database, user, id: SourceId::new(), spec }
    }

    fn outbox(&self) -> Outbox {
        let (namespace, name): (NamespaceName, SourceName) =
            ("shop".parse().unwrap(), "orders".parse().unwrap());
        Outbox::new(self.id, &namespace, &name, &self.spec)
    }

    fn address(&self) -> Address {
        Address::parse(&self.database.url("owner")).unwrap()
    }

    async fn install(&self) -> Result<(), Trouble> {
        self.install_as("owner").await
    }

    async fn install_as(&self, user: &str) -> Result<(), Trouble> {
        let address = Address::parse(&self.database.url(user)).unwrap();
        Session::install(&address, &UserDatabase::allowed(), &self.outbox()).await?.commit().await
    }

    async fn reader(&self) -> Result<Reader, Trouble> {
        Reader::open(&self.address(), &UserDatabase::allowed(), self.outbox()).await
    }

    /// Everything of davit's that is left in the database.
    async fn left(&self) -> Vec<String> {
        let question = "select relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where nspname = 'davit_source' and relkind = 'r'
            union all select tgname from pg_trigger where tgname like 'davit%'
            union all select nspname from pg_namespace where nspname = 'davit_source'
            union all select proname from pg_proc where proname like 'capture_%'";
        self.user.ask(question).await
    }
}

/// What a change says in short.
fn short(change: &Change) -> String {
    let (old, new) = (change.old.as_deref().unwrap_or("-"), change.new.as_deref().unwrap_or("-"));
    format!("{} {old} {new}", change.operation)
}

fn positions(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::position).collect()
}

fn nobody() -> Allowed {
    Allowed::default()
}

fn only(events: &[TableEvent]) -> Vec<TableEvent> {
    events.to_vec()
}
