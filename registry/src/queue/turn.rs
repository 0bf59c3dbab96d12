//! Ordering keys: of a function's invocations with one key only the first may run. The others wait with `in_turn`
//! false, so a claim never looks at them, however many there are.
//!
//! Whoever lines one up and whoever ends one first take the key's lock, which lasts until their transaction's end:
//! each sees what the other has done, and no turn is lost between them.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use crate::Result;

/// Takes the locks of some keys, always in the same order. A statement of its own: what is read after it is read as
/// of after the wait.
pub(crate) async fn lock<'k>(
    conn: &mut PgConnection,
    keys: impl Iterator<Item = (Uuid, &'k str)>,
) -> Result<()> {
    let (functions, keys): (Vec<Uuid>, Vec<&str>) = keys.unzip();
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "select pg_advisory_xact_lock(l.id) from (
            select distinct hashtextextended(k.key, hashtextextended(k.function::text, 0)) as id
            from unnest($1::uuid[], $2::text[]) as k(function, key) order by 1) l",
    )
    .bind(functions)
    .bind(keys)
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the locks of the keys that these rows name, and answers the keys.
pub(super) async fn lock_those_of(conn: &mut PgConnection, rows: &[PgRow]) -> Result<Vec<(Uuid, String)>> {
    let mut keys: Vec<(Uuid, String)> = Vec::with_capacity(rows.len());
    for row in rows {
        keys.push((row.try_get("function_id")?, row.try_get("ordering_key")?));
    }
    lock(conn, keys.iter().map(|(function, key)| (*function, key.as_str()))).await?;
    Ok(keys)
}

/// Puts new ones behind those of their keys that have not ended; without a key there is nobody to wait for.
pub(crate) async fn line_up(conn: &mut PgConnection, ids: &[Uuid]) -> Result<()> {
    sqlx::query(
        "update invocations i set in_turn = false where i.id = any($1) and exists (select from invocations e
            where e.function_id = i.function_id and e.ordering_key = i.ordering_key and e.position < i.position)",
    )
    .bind(ids)
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets the first of each key have its turn, unless it has it already. Its time counts from now: a claim that only
/// looks at what became due lately must see it.
pub(super) async fn advance(conn: &mut PgConnection, functions: &[Uuid], keys: &[&str]) -> Result<()> {
    sqlx::query(
        "update invocations i set in_turn = true, run_at = greatest(i.run_at, clock_timestamp())
         from unnest($1::uuid[], $2::text[]) as k(function, key)
         where not i.in_turn and i.id = (select f.id from invocations f where f.function_id = k.function and f.ordering_key = k.key
            order by f.position limit 1)",
    )
    .bind(functions)
    .bind(keys)
    .execute(conn)
    .await?;
    Ok(())
}
