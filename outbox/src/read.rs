//! Reading the outbox: what is committed, in the order in which it was written; and deleting what was delivered.
//!
//! Numbers are given out before transactions commit, so a row with a lower number can appear after one with a higher one
//! was read. Nothing here remembers a number and reads beyond it: what was delivered is deleted, by its number, and what
//! is there is read. A transaction that was open for an hour is read when it commits.
//!
//! Statements are sent without being prepared, so a pooler that hands out connections by the transaction is no obstacle;
//! only notifications do not come through one, and then the outbox is looked at now and then.

use std::time::{Duration, Instant};

use davit_daemon::Allowed;
use tokio_postgres::types::Type;

use crate::connect::Session;
use crate::script::Outbox;
use crate::{Address, Change, Trouble};

/// Bytes of rows in one read; a single change may be as large by itself.
const READ_BYTES: i64 = 4 * 1024 * 1024;
/// For so long the database wakes us; said again after half of it.
const ASLEEP: Duration = Duration::from_secs(60);
/// How often the triggers are looked at: a table that was dropped and made anew has none.
const WHOLE: Duration = Duration::from_secs(60);

/// A connection that reads one outbox.
pub struct Reader {
    session: Session,
    outbox: Outbox,
    looked: Instant,
    /// When the database was told that we sleep.
    asleep: Option<Instant>,
}

impl Reader {
    /// Connects and listens.
    pub async fn open(address: &Address, allowed: &Allowed, outbox: Outbox) -> Result<Self, Trouble> {
        let session = Session::connect(address, allowed).await?;
        let reader = Self { session, outbox, looked: Instant::now(), asleep: None };
        reader.check().await?;
        let listen = format!("listen {}", reader.outbox.channel());
        reader.session.within(reader.session.client.batch_execute(&listen)).await?;
        Ok(reader)
    }

    async fn check(&self) -> Result<(), Trouble> {
        let row = self.session.within(self.session.client.query_typed_one(&self.outbox.whole(), &[])).await?;
        if row.get(0) {
            return Ok(());
        }
        let table = &self.outbox.spec().table;
        Err(Trouble::Missing(format!(
            "{table} is not there or lacks an enabled trigger of davit's, so its changes are not noted; run what davit source sql prints"
        )))
    }

    /// Up to so many changes; none when there are none. Reading again before they are acknowledged finds them again.
    pub async fn read(&mut self, most: u32) -> Result<Vec<Change>, Trouble> {
        if self.looked.elapsed() >= WHOLE {
            self.check().await?;
            self.looked = Instant::now();
        }
        let most = i64::from(most);
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&most, Type::INT8), (&READ_BYTES, Type::INT8)];
        let rows = self.session.within(self.session.client.query_typed(&self.outbox.read(), &params)).await?;
        rows.iter()
            .map(|row| {
                Ok(Change {
                    id: row.try_get(0)?,
                    transaction_id: row.try_get(1)?,
                    operation: row.try_get(2)?,
                    key: row.try_get(3)?,
                    old: row.try_get(4)?,
                    new: row.try_get(5)?,
                    omitted: row.try_get(6)?,
                    at: row.try_get(7)?,
                    age: row.try_get::<_, f64>(8)?.max(0.0),
                })
            })
            .collect::<Result<_, _>>()
            .map_err(|error| self.session.trouble(&error))
    }

    /// Deletes changes by their positions. Those that are gone already are passed over.
    pub async fn acknowledge(&mut self, positions: &[String]) -> Result<(), Trouble> {
        let ids: Vec<i64> = positions.iter().filter_map(|position| position.parse().ok()).collect();
        let delete = self.outbox.acknowledge();
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 1] = [(&ids, Type::INT8_ARRAY)];
        self.session.within(self.session.client.execute_typed(&delete, &params)).await?;
        self.asleep = None;
        Ok(())
    }

    /// Returns when there may be something to read, or after that time. A change that was written before the database
    /// knew that we sleep and is committed afterwards wakes nobody: it is found when the time is over.
    pub async fn wait(&mut self, at_most: Duration) -> Result<(), Trouble> {
        let (client, notified) = (&self.session.client, self.session.notified.clone());
        let woken = notified.notified();
        if self.asleep.is_none_or(|since| since.elapsed() >= ASLEEP / 2) {
            let seconds = ASLEEP.as_secs_f64();
            let sleep = self.outbox.sleep();
            self.session.within(client.execute_typed(&sleep, &[(&seconds, Type::FLOAT8)])).await?;
            self.asleep = Some(Instant::now());
            let row = self.session.within(client.query_typed_one(&self.outbox.any(), &[])).await?;
            if row.get(0) {
                return Ok(());
            }
        }
        let _ = tokio::time::timeout(at_most, woken).await;
        if self.session.client.is_closed() {
            return Err(Trouble::Unreachable("the connection was closed".into()));
        }
        Ok(())
    }
}
