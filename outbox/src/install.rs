//! Putting the outbox into somebody's database, and taking it away. Looked at first, so that what is wrong is said by
//! its name.

use davit_api::ChangeOrder;
use tokio_postgres::types::Type;

use crate::connect::Session;
use crate::script::Outbox;
use crate::{Address, Trouble};

/// `pg_current_xact_id` and 64-bit transaction ids came with 13.
const OLDEST: i32 = 130_000;

/// An outbox that is in place, in a transaction that has not been committed: davit's own row comes first, so that
/// nothing gathers in a database for a source that is not there.
pub struct Installing(Session);

impl Installing {
    /// Keeps it.
    pub async fn commit(self) -> Result<(), Trouble> {
        self.0.within(self.0.client.batch_execute("commit")).await
    }
}

impl Session {
    /// Connects, looks, and installs up to the commit. Dropping what this returns takes it back.
    pub async fn install(
        address: &Address,
        allowed: &davit_daemon::Allowed,
        outbox: &Outbox,
    ) -> Result<Installing, Trouble> {
        let session = Self::connect(address, allowed).await?;
        session.within(session.client.batch_execute("begin")).await?;
        session.look(outbox).await?;
        session.within(session.client.batch_execute(&outbox.install())).await?;
        Ok(Installing(session))
    }

    /// Takes the outbox away, and what is in it.
    pub async fn remove(
        address: &Address,
        allowed: &davit_daemon::Allowed,
        outbox: &Outbox,
    ) -> Result<(), Trouble> {
        let session = Self::connect(address, allowed).await?;
        let statements = format!("begin;\n{}commit;", outbox.remove());
        session.within(session.client.batch_execute(&statements)).await
    }

    /// Whether the table is one whose changes can be taken as the source wants them.
    async fn look(&self, outbox: &Outbox) -> Result<(), Trouble> {
        let (spec, table) = (outbox.spec(), outbox.table());
        let shown = &spec.table;
        let version = "select current_setting('server_version_num')::int4";
        let row = self.within(self.client.query_typed_one(version, &[])).await?;
        if row.get::<_, i32>(0) < OLDEST {
            return Err(Trouble::Address("the database is older than Postgres 13".into()));
        }
        let found = self
            .within(self.client.query_typed(
                "select c.oid::int8, c.relkind::text, exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
                 from pg_class c where c.oid = to_regclass($1)::oid",
                &[(&table, Type::TEXT)],
            ))
            .await?;
        let Some(row) = found.first() else {
            let why = "names are taken as they are written, upper case and lower case";
            return Err(Trouble::Table(format!("there is no table {shown} in that database; {why}")));
        };
        let (oid, kind, keyed): (i64, String, bool) = (row.get(0), row.get(1), row.get(2));
        if !matches!(kind.as_str(), "r" | "p") {
            return Err(Trouble::Table(format!("{shown} is a view or something else that is no table")));
        }
        if spec.order == ChangeOrder::Row && !keyed {
            let text = format!(
                "row needs a primary key, and {shown} has none; source keeps all its changes in order, none runs them side by side"
            );
            return Err(Trouble::Order(text));
        }
        let missing = self
            .within(self.client.query_typed(
                "select name from unnest($2::text[]) as name where not exists (select from pg_attribute a
                    where a.attrelid = $1::int8::oid and a.attname = name and a.attnum > 0 and not a.attisdropped) limit 1",
                &[(&oid, Type::INT8), (&spec.columns, Type::TEXT_ARRAY)],
            ))
            .await?;
        match missing.first() {
            Some(row) => Err(Trouble::Columns(format!("{shown} has no column {}", row.get::<_, String>(0)))),
            None => Ok(()),
        }
    }
}
