//! Tables with a partition a day: made ahead, dropped as wholes when they are over. Ended invocations
//! (`queue/retention.rs`) and messages (`topics/messages.rs`) are kept so.

use chrono::{DateTime, Days, NaiveDate, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use crate::{Registry, RegistryError, Result};

/// Days ahead that have a partition: a controller that is away for a day or two is not missed.
const AHEAD: u64 = 3;
/// Rows that one statement removes from the partition for the days without one of their own, or from what else is
/// kept for some days.
const AT_ONCE: i64 = 5_000;

/// For so long what a client calls its event stands for one invocation or message.
pub(crate) const IDEMPOTENT_FOR: &str = "24 hours";

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Partitions made.
    pub made: u32,
    /// Partitions dropped.
    pub dropped: u32,
    /// Rows deleted one by one: those whose days had no partition, keys of clients that are out of date.
    pub deleted: u64,
}

/// A table that is partitioned by days. Its partitions are called `<table>_dYYYYMMDD`, and the one for days without a
/// partition `<table>_rest`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Daily {
    /// The table; a literal of this crate, as is the column.
    pub(crate) table: &'static str,
    /// By which instant a row belongs to its day.
    pub(crate) by: &'static str,
}

impl Registry {
    /// Makes partitions for the coming days and drops those of days that ended more than `days` days ago. A partition
    /// that somebody is reading, a backup perhaps, waits for the next round rather than everybody behind it.
    pub(crate) async fn keep_days(&self, daily: Daily, days: u32) -> Result<Retention> {
        let mut done = Retention::default();
        let today: DateTime<Utc> =
            sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.pool).await?;
        let today = today.date_naive();
        let there = self.partitions(daily).await?;
        let coming = (0..=AHEAD).filter_map(|n| today.checked_add_days(Days::new(n)));
        for day in coming.filter(|day| !there.contains(day)) {
            done.made += u32::from(self.briefly(move |conn| Box::pin(make(conn, daily, day))).await?);
        }
        let oldest = today.checked_sub_days(Days::new(days.max(1).into())).unwrap_or(today);
        for day in there.into_iter().filter(|day| *day < oldest) {
            done.dropped += u32::from(self.briefly(move |conn| Box::pin(drop_day(conn, daily, day))).await?);
        }
        let Daily { table, by } = daily;
        let gone = sqlx::query(AssertSqlSafe(format!(
            "delete from {table}_rest where id in (select id from {table}_rest
                where {by} < clock_timestamp() - make_interval(days => $1) limit $2)"
        )))
        .bind(i32::try_from(days.max(1)).unwrap_or(i32::MAX))
        .bind(AT_ONCE)
        .execute(&self.pool)
        .await?;
        done.deleted = gone.rows_affected();
        Ok(done)
    }

    /// Removes what clients called their events once it is out of date. Tables and columns are literals of this crate.
    pub(crate) async fn forget_keys(&self, table: &str, owner: &str, since: &str) -> Result<u64> {
        let gone = sqlx::query(AssertSqlSafe(format!(
            "delete from {table} where ({owner}, key) in (select {owner}, key from {table}
                where {since} < clock_timestamp() - interval '{IDEMPOTENT_FOR}' order by {since} limit $1)"
        )))
        .bind(AT_ONCE)
        .execute(&self.pool)
        .await?;
        Ok(gone.rows_affected())
    }

    /// Days that have a partition.
    async fn partitions(&self, daily: Daily) -> Result<Vec<NaiveDate>> {
        let rows = sqlx::query(
            "select c.relname from pg_inherits h join pg_class c on c.oid = h.inhrelid
             where h.inhparent = $1::regclass",
        )
        .bind(daily.table)
        .fetch_all(&self.pool)
        .await?;
        let prefix = format!("{}_d", daily.table);
        let mut days = Vec::with_capacity(rows.len());
        for row in &rows {
            let name: String = row.try_get("relname")?;
            days.extend(name.strip_prefix(&prefix).and_then(|d| NaiveDate::parse_from_str(d, "%Y%m%d").ok()));
        }
        Ok(days)
    }

    /// Runs a change of the tables themselves, which must not keep anybody waiting. `false`: not now.
    async fn briefly<F>(&self, work: F) -> Result<bool>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> futures_util::future::BoxFuture<'c, Result<()>>
            + Send
            + 'static,
    {
        let done = self
            .transact(move |conn| {
                Box::pin(async move {
                    sqlx::query("set local lock_timeout = '1s'").execute(&mut *conn).await?;
                    work(conn).await
                })
            })
            .await;
        match done {
            Ok(()) => Ok(true),
            Err(RegistryError::Unavailable(why)) => {
                tracing::debug!(why, "a day's partition is in use; later");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn name(daily: Daily, day: NaiveDate) -> String {
    format!("{}_d{}", daily.table, day.format("%Y%m%d"))
}

/// Made beside and attached, which locks the whole only against other such changes. What was put with the rest
/// while the day had no partition moves into it.
async fn make(conn: &mut PgConnection, daily: Daily, day: NaiveDate) -> Result<()> {
    let Daily { table, by } = daily;
    let (name, next) = (name(daily, day), day.succ_opt().unwrap_or(day));
    let (from, to) = (format!("{day} 00:00:00+00"), format!("{next} 00:00:00+00"));
    for statement in [
        format!("create table {name} (like {table} including defaults including constraints)"),
        format!(
            "with moved as (delete from {table}_rest where {by} >= '{from}' and {by} < '{to}' returning *)
             insert into {name} select * from moved"
        ),
        format!("alter table {table} attach partition {name} for values from ('{from}') to ('{to}')"),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *conn).await?;
    }
    Ok(())
}

async fn drop_day(conn: &mut PgConnection, daily: Daily, day: NaiveDate) -> Result<()> {
    sqlx::query(AssertSqlSafe(format!("drop table {}", name(daily, day)))).execute(conn).await?;
    Ok(())
}
