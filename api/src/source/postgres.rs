//! Changes of a table in somebody's own Postgres as a source: what is taken, and how.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ApiError, SecretName, limits};

/// Longest name that Postgres keeps, in bytes (`NAMEDATALEN` less one); it cuts longer ones, so that they would not be
/// found again.
const NAME_BYTES: usize = 63;

crate::text::words! {
    /// What can happen to a table.
    pub enum TableEvent = "an event of a table" {
        /// A row came.
        Insert = "insert",
        /// A row changed.
        Update = "update",
        /// A row went.
        Delete = "delete",
        /// All rows went at once, by `truncate`.
        Truncate = "truncate",
    }
}

crate::text::words! {
    /// Which changes wait for each other.
    pub enum ChangeOrder = "an order of changes" {
        /// Those of the same row, known by its primary key: the next one's call begins when the one before has ended.
        Row = "row",
        /// All of the source.
        Source = "source",
        /// None: calls run side by side.
        None = "none",
    }
}

/// A table by its schema and its own name, both as the catalogue has them: `public.orders`, `"My Shop"."order.items"`.
/// Without a schema it is in `public`. Nothing is folded to lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    schema: String,
    table: String,
}

impl TableName {
    /// The schema, without quotes.
    pub fn schema(&self) -> &str {
        &self.schema
    }
    /// The table's own name, without quotes.
    pub fn table(&self) -> &str {
        &self.table
    }
}

impl FromStr for TableName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, rest) = part(text)?;
        let (schema, table) = match rest.strip_prefix('.') {
            Some(rest) => {
                let (second, rest) = part(rest)?;
                if !rest.is_empty() {
                    return Err(
                        "a table is written schema.table; names with dots stand in double quotes".into()
                    );
                }
                (first, second)
            }
            None if rest.is_empty() => ("public".to_owned(), first),
            None => return Err("a table is written schema.table; odd names stand in double quotes".into()),
        };
        for name in [&schema, &table] {
            check_name(name)?;
        }
        Ok(Self { schema, table })
    }
}

/// One name from the front of the text, and what follows it.
fn part(text: &str) -> Result<(String, &str), String> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let end = rest.find('"').ok_or("a table's name has a double quote that is not closed")?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Ok((name, rest)),
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES || name.contains('\0') {
        return Err(format!("names in Postgres have 1 to {NAME_BYTES} bytes and no U+0000"));
    }
    Ok(())
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", Shown(&self.schema), Shown(&self.table))
    }
}

/// A name, in quotes where it could be misread without.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        match self.0.bytes().all(plain) {
            true => f.write_str(self.0),
            false => write!(f, "\"{}\"", self.0.replace('"', "\"\"")),
        }
    }
}

impl TryFrom<String> for TableName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}

/// Changes of one table in a Postgres of the namespace's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresSource {
    /// The secret of the namespace that holds the database's address: `postgres://user:password@host/database`.
    pub secret: SecretName,
    /// The table.
    #[schema(value_type = String)]
    pub table: TableName,
    /// What is taken; everything unless said otherwise.
    #[serde(default = "every_event")]
    pub events: Vec<TableEvent>,
    /// The columns that an event shows, in this order; all of them when this is empty. An update that leaves all of
    /// these as they were is no event then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Which changes wait for each other.
    #[serde(default = "by_row")]
    pub order: ChangeOrder,
    /// Changes that are read and accepted in one transaction, at most; 1 to 1,000.
    #[serde(default = "hundred")]
    pub batch: u32,
    /// How long, in milliseconds, a batch that is not full waits for more; 0 to 60,000.
    #[serde(default)]
    pub batch_wait_ms: u32,
    /// When so many calls of the function have not ended, nothing more is read until it is fewer; 1 to 100,000.
    #[serde(default = "thousand")]
    pub backlog: u32,
    /// Nothing is installed by davit: whoever looks after the database runs what `davit source sql` prints.
    #[serde(default)]
    pub manual: bool,
}

fn every_event() -> Vec<TableEvent> {
    TableEvent::ALL.to_vec()
}

fn by_row() -> ChangeOrder {
    ChangeOrder::Row
}

fn hundred() -> u32 {
    100
}

fn thousand() -> u32 {
    1_000
}

impl PostgresSource {
    /// A source with nothing out of the ordinary.
    pub fn new(secret: SecretName, table: TableName) -> Self {
        Self {
            secret,
            table,
            events: every_event(),
            columns: Vec::new(),
            order: by_row(),
            batch: hundred(),
            batch_wait_ms: 0,
            backlog: thousand(),
            manual: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), ApiError> {
        if self.events.is_empty() {
            return Err(ApiError::field("events", "name at least one: insert, update, delete, truncate"));
        }
        if repeats(&self.events) {
            return Err(ApiError::field("events", "each at most once"));
        }
        if self.columns.len() > limits::SOURCE_COLUMNS || repeats(&self.columns) {
            let most = limits::SOURCE_COLUMNS;
            return Err(ApiError::field("columns", format!("at most {most}, and each once")));
        }
        self.columns
            .iter()
            .try_for_each(|name| check_name(name))
            .map_err(|e| ApiError::field("columns", e))?;
        for (field, value, range) in [
            ("batch", self.batch, limits::SOURCE_BATCH),
            ("batch_wait_ms", self.batch_wait_ms, limits::SOURCE_BATCH_WAIT_MS),
            ("backlog", self.backlog, limits::SOURCE_BACKLOG),
        ] {
            if !range.contains(&value) {
                return Err(ApiError::field(field, format!("must be {} to {}", range.start(), range.end())));
            }
        }
        Ok(())
    }
}

fn repeats<T: PartialEq>(all: &[T]) -> bool {
    all.iter().enumerate().any(|(n, one)| all[..n].contains(one))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SourceSpec;

    #[test]
    fn tables_are_read_as_the_catalogue_has_them() {
        for (text, schema, table) in [
            ("orders", "public", "orders"),
            ("public.orders", "public", "orders"),
            ("Shop.Orders", "Shop", "Orders"),
            (r#""my shop"."order.items""#, "my shop", "order.items"),
            (r#""say ""hi"""."#, "", ""),
            (r#""a""b".c"#, "a\"b", "c"),
            ("x; drop table y", "public", "x; drop table y"),
        ] {
            match text.parse::<TableName>() {
                Ok(name) => assert_eq!((name.schema(), name.table()), (schema, table), "{text}"),
                Err(_) => assert_eq!(table, "", "{text}"),
            }
        }
        for bad in ["", ".", "a.", ".b", "a.b.c", "\"a", "a\"b", "\"a\"b", "a\0", &"x".repeat(64)] {
            assert!(bad.parse::<TableName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_table_is_shown_as_it_can_be_read_again(schema in "[^\0]{1,15}", table in "[^\0]{1,15}") {
            let name = TableName { schema, table };
            prop_assert_eq!(name.to_string().parse::<TableName>(), Ok(name));
        }
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        type Change = fn(&mut PostgresSource);
        let refused: [(Change, &str); 8] = [
            (|p| p.events.clear(), "events: name"),
            (|p| p.events.push(TableEvent::Insert), "events: each"),
            (|p| p.columns = vec!["a".into(), "a".into()], "columns: at most"),
            (|p| p.columns = vec![String::new()], "columns: names"),
            (|p| p.batch = 0, "batch: must be 1 to 1000"),
            (|p| p.batch = 1_001, "batch: must"),
            (|p| p.batch_wait_ms = 60_001, "batch_wait_ms: must be 0 to 60000"),
            (|p| p.backlog = 0, "backlog: must be 1 to"),
        ];
        let plain = PostgresSource::new("db".parse().unwrap(), "orders".parse().unwrap());
        assert_eq!(SourceSpec::Postgres(plain.clone()).check(), Ok(()));
        for (change, why) in refused {
            let mut changed = plain.clone();
            change(&mut changed);
            let message = SourceSpec::Postgres(changed).check().unwrap_err().message;
            assert!(message.starts_with(why), "{message}");
        }
    }

    #[test]
    fn what_is_not_said_has_its_usual_value() {
        let text = r#"{"kind":"postgres","secret":"db","table":"public.orders"}"#;
        let spec: SourceSpec = serde_json::from_str(text).unwrap();
        assert_eq!(
            spec,
            SourceSpec::Postgres(PostgresSource::new("db".parse().unwrap(), "orders".parse().unwrap()))
        );
        let odd = r#"{"kind":"postgres","secret":"db","table":"a.b.c"}"#;
        assert!(serde_json::from_str::<SourceSpec>(odd).unwrap_err().to_string().contains("schema.table"));
    }
}
