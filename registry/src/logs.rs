//! Output of functions, kept for a while and up to a number of lines.

use std::time::Duration;

use chrono::{DateTime, Utc};
use davit_api::{FunctionId, FunctionName, InvocationId, LogLine, LogStream, NamespaceName};
use sqlx::Row;

use crate::namespaces::function_of;
use crate::rows::{count32, int, parsed};
use crate::{Registry, Result};

const LINE_BYTES: usize = 256 * 1024;

/// A line to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Whose.
    pub function_id: FunctionId,
    /// Version number that wrote it.
    pub version: u32,
    /// During which invocation.
    pub invocation_id: Option<InvocationId>,
    /// To which output.
    pub stream: LogStream,
    /// When.
    pub at: DateTime<Utc>,
    /// The text, without its line end.
    pub line: String,
}

/// Which lines are wanted; empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Only of this invocation.
    pub invocation_id: Option<InvocationId>,
    /// Only of this version.
    pub version: Option<u32>,
    /// Only from then on.
    pub since: Option<DateTime<Utc>>,
}

/// A line as Postgres takes it: bounded, and without U+0000.
fn storable(line: &str) -> String {
    let mut end = line.len().min(LINE_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].replace('\0', " ")
}

impl Registry {
    /// Stores a batch of lines.
    pub async fn append_logs(&self, rows: &[LogRow]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into logs (function_id, version, invocation_id, stream, at, line)
             select * from unnest($1::uuid[], $2::int[], $3::uuid[], $4::text[], $5::timestamptz[], $6::text[])",
        )
        .bind(rows.iter().map(|r| r.function_id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| int(r.version)).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.invocation_id.map(|i| i.0)).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.stream.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| r.at).collect::<Vec<_>>())
        .bind(rows.iter().map(|r| storable(&r.line)).collect::<Vec<_>>())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Lines of a function in order: those after a cursor, or without one the last ones.
    pub async fn read_logs(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        after: Option<i64>,
        limit: u32,
        filter: &LogFilter,
    ) -> Result<Vec<LogLine>> {
        let mut conn = self.pool.acquire().await?;
        let (_, id) = function_of(&mut conn, namespace, function).await?;
        let statement = match after {
            Some(_) => sqlx::query(
                "select * from logs where function_id = $1 and id > $2 and ($3::uuid is null or invocation_id = $3)
                 and ($4::int is null or version = $4) and ($5::timestamptz is null or at >= $5) order by id limit $6",
            ),
            None => sqlx::query(
                "select * from (select * from logs where function_id = $1 and $2::bigint is null
                    and ($3::uuid is null or invocation_id = $3) and ($4::int is null or version = $4)
                    and ($5::timestamptz is null or at >= $5) order by id desc limit $6) l order by id",
            ),
        };
        let rows = statement
            .bind(id.0)
            .bind(after)
            .bind(filter.invocation_id.map(|i| i.0))
            .bind(filter.version.map(int))
            .bind(filter.since)
            .bind(i64::from(limit.min(10_000)))
            .fetch_all(&mut *conn)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(LogLine {
                    cursor: row.try_get("id")?,
                    at: row.try_get("at")?,
                    version: count32(row, "version")?,
                    invocation_id: row.try_get::<Option<_>, _>("invocation_id")?.map(InvocationId),
                    stream: parsed(row, "stream")?,
                    line: row.try_get("line")?,
                })
            })
            .collect()
    }

    /// Removes lines that are older than `keep`, and of each function all but the newest `most`.
    pub async fn prune_logs(&self, keep: Duration, most: u32) -> Result<u64> {
        let old = sqlx::query("delete from logs where at < clock_timestamp() - make_interval(secs => $1)")
            .bind(keep.as_secs_f64())
            .execute(&self.pool)
            .await?;
        let many = sqlx::query(
            "delete from logs l using functions f cross join lateral (
                select x.id from logs x where x.function_id = f.id order by x.id desc offset $1 limit 1) last
             where l.function_id = f.id and l.id <= last.id",
        )
        .bind(i64::from(most))
        .execute(&self.pool)
        .await?;
        Ok(old.rows_affected() + many.rows_affected())
    }
}
