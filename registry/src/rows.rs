//! Reading columns into davit's own types; what does not fit was damaged, never guessed at.

use std::fmt::Display;
use std::str::FromStr;

use davit_api::{Digest, PoolKey};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{Postgres, Row};

use crate::{RegistryError, Result};

/// A text column as the type that its words stand for.
pub(crate) fn parsed<T: FromStr>(row: &PgRow, column: &str) -> Result<T>
where
    T::Err: Display,
{
    row.try_get::<&str, _>(column)?.parse().map_err(|e| RegistryError::damaged(column, e))
}

/// The same for a column that may be null.
pub(crate) fn parsed_opt<T: FromStr>(row: &PgRow, column: &str) -> Result<Option<T>>
where
    T::Err: Display,
{
    let text: Option<&str> = row.try_get(column)?;
    text.map(|t| t.parse().map_err(|e| RegistryError::damaged(column, e))).transpose()
}

/// A json column.
pub(crate) fn json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T> {
    // Straight from the bytes: a tree of values in between costs many times the text's size.
    let text: &RawValue = row.try_get::<Json<&RawValue>, _>(column)?.0;
    serde_json::from_str(text.get()).map_err(|e| RegistryError::damaged(column, e))
}

/// A json column that may be null.
pub(crate) fn json_opt<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<Option<T>> {
    let value: Option<serde_json::Value> = row.try_get(column)?;
    value.map(|v| serde_json::from_value(v).map_err(|e| RegistryError::damaged(column, e))).transpose()
}

/// What goes into a json column.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| RegistryError::damaged("json", e))
}

/// A digest column.
pub(crate) fn digest(row: &PgRow, column: &str) -> Result<Digest> {
    digest_opt(row, column)?.ok_or_else(|| RegistryError::damaged(column, "missing"))
}

/// A digest column that may be null.
pub(crate) fn digest_opt(row: &PgRow, column: &str) -> Result<Option<Digest>> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes
        .map(|b| {
            b.try_into().map(Digest::from_bytes).map_err(|_| RegistryError::damaged(column, "not 32 bytes"))
        })
        .transpose()
}

/// A counter or size that is never negative.
pub(crate) fn count32(row: &PgRow, column: &str) -> Result<u32> {
    u32::try_from(row.try_get::<i32, _>(column)?).map_err(|e| RegistryError::damaged(column, e))
}

/// The same in 64 bits.
pub(crate) fn count64(row: &PgRow, column: &str) -> Result<u64> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|e| RegistryError::damaged(column, e))
}

/// A number on its way into an `integer` column; larger ones stop at its end.
pub(crate) fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A number on its way into a `bigint` column.
pub(crate) fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The place in a chain of functions that cause each other.
pub(crate) fn hops(row: &PgRow) -> Result<u8> {
    u8::try_from(row.try_get::<i16, _>("hops")?).map_err(|e| RegistryError::damaged("hops", e))
}

/// The columns of a pool key.
pub(crate) fn pool_key(row: &PgRow) -> Result<PoolKey> {
    Ok(PoolKey {
        image: row.try_get("image")?,
        memory_mb: count32(row, "memory_mb")?,
        cpu_millis: count32(row, "cpu_millis")?,
        ephemeral_mb: count32(row, "ephemeral_mb")?,
        network: parsed(row, "network")?,
    })
}

/// Binds the columns of a pool key, in the order of [`pool_key`].
pub(crate) fn bind_pool_key<'q>(
    query: Query<'q, Postgres, PgArguments>,
    key: &'q PoolKey,
) -> Query<'q, Postgres, PgArguments> {
    query
        .bind(&key.image)
        .bind(int(key.memory_mb))
        .bind(int(key.cpu_millis))
        .bind(int(key.ephemeral_mb))
        .bind(key.network.as_str())
}
