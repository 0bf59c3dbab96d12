//! One change, and the event that a function gets of it. Pure.

use davit_api::{ChangeOrder, SourceId, SourceName, TableName, limits};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// A change that was committed and not yet taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Its place in the outbox.
    pub id: i64,
    /// The transaction that made it.
    pub transaction_id: String,
    /// `insert`, `update`, `delete` or `truncate`.
    pub operation: String,
    /// The primary key's columns, as JSON; none without a primary key.
    pub key: Option<String>,
    /// The row before, as JSON.
    pub old: Option<String>,
    /// The row after, as JSON.
    pub new: Option<String>,
    /// The rows were too large to be kept.
    pub omitted: bool,
    /// When it was made, by the database's clock, in RFC 3339.
    pub at: String,
    /// How long ago that was when it was read, in seconds.
    pub age: f64,
}

#[derive(Serialize)]
struct Shape<'a> {
    source: &'a SourceName,
    table: &'a TableName,
    operation: &'a str,
    key: Option<&'a RawValue>,
    old: Option<&'a RawValue>,
    new: Option<&'a RawValue>,
    omitted: bool,
    transaction_id: &'a str,
    position: String,
    time: &'a str,
}

impl Change {
    /// Its place in the outbox, as events and acknowledgments name it.
    pub fn position(&self) -> String {
        self.id.to_string()
    }

    /// The event: at most [`limits::ASYNC_PAYLOAD_BYTES`], without the rows when it would be more with them. The trigger
    /// has seen to that already; here it is made sure of, whoever wrote the outbox.
    pub fn payload(&self, source: &SourceName, table: &TableName) -> Vec<u8> {
        let whole = self.written(source, table, !self.omitted, true);
        if whole.len() <= limits::ASYNC_PAYLOAD_BYTES {
            return whole;
        }
        let bare = self.written(source, table, false, true);
        if bare.len() <= limits::ASYNC_PAYLOAD_BYTES {
            return bare;
        }
        self.written(source, table, false, false)
    }

    fn written(&self, source: &SourceName, table: &TableName, rows: bool, key: bool) -> Vec<u8> {
        let (old, new) = (raw(&self.old).filter(|_| rows), raw(&self.new).filter(|_| rows));
        let shape = Shape {
            source,
            table,
            operation: &self.operation,
            key: raw(&self.key).filter(|_| key),
            old,
            new,
            omitted: !rows,
            transaction_id: &self.transaction_id,
            position: self.position(),
            time: &self.at,
        };
        // Texts, and JSON that was read: nothing in it can fail to be written.
        serde_json::to_vec(&shape).unwrap_or_default()
    }

    /// Which calls it waits for. Without a key all rows are one.
    pub fn ordering_key(&self, order: ChangeOrder, source: SourceId) -> Option<String> {
        match (order, &self.key) {
            (ChangeOrder::None, _) => None,
            (ChangeOrder::Source, _) | (ChangeOrder::Row, None) => Some(source.to_string()),
            (ChangeOrder::Row, Some(key)) => {
                let digest = Sha256::digest(key.as_bytes());
                let hex = digest[..16].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
                Some(format!("{source}:{hex}"))
            }
        }
    }
}

/// The text as it is, when it is JSON.
fn raw(text: &Option<String>) -> Option<&RawValue> {
    text.as_deref().and_then(|text| serde_json::from_str(text).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn change(new: Option<String>) -> Change {
        Change {
            id: 7,
            transaction_id: "740".into(),
            operation: "insert".into(),
            key: Some(r#"{"id":1}"#.into()),
            new,
            at: "2026-01-02T03:04:05.000006Z".into(),
            ..Change::default()
        }
    }

    fn payload(change: &Change) -> (Value, usize) {
        let bytes = change.payload(&"orders".parse().unwrap(), &"public.orders".parse().unwrap());
        (serde_json::from_slice(&bytes).unwrap(), bytes.len())
    }

    #[test]
    fn an_event_holds_the_row_as_the_database_wrote_it() {
        let small = change(Some(r#"{"id":1,"total":12.340000000000000000001}"#.into()));
        let (event, _) = payload(&small);
        assert_eq!(
            event,
            json!({"source": "orders", "table": "public.orders", "operation": "insert", "key": {"id": 1}, "old": null,
                "new": {"id": 1, "total": 12.34}, "omitted": false, "transaction_id": "740", "position": "7",
                "time": "2026-01-02T03:04:05.000006Z"})
        );
        let text = small.payload(&"o".parse().unwrap(), &"t".parse().unwrap());
        assert!(String::from_utf8(text).unwrap().contains("12.340000000000000000001"));
    }

    #[test]
    fn what_is_too_large_keeps_its_key_and_what_even_so_is_loses_that_too() {
        let row = |bytes: usize| Some(format!("{{\"text\":\"{}\"}}", "x".repeat(bytes)));
        let (event, size) = payload(&change(row(2 << 20)));
        assert_eq!(
            (&event["omitted"], &event["new"], &event["key"]["id"]),
            (&json!(true), &Value::Null, &json!(1))
        );
        assert!(size < 1024);
        let mut odd = change(None);
        odd.key = row(2 << 20);
        let (event, size) = payload(&odd);
        assert_eq!((&event["omitted"], &event["key"]), (&json!(true), &Value::Null));
        assert!(size < 1024);
        let (fits, size) = payload(&change(row(1_000_000)));
        assert!(fits["omitted"] == json!(false) && size <= limits::ASYNC_PAYLOAD_BYTES);
    }

    #[test]
    fn changes_of_one_row_share_a_key_and_those_of_others_do_not() {
        let source = SourceId::new();
        let (a, mut b) = (change(None), change(None));
        b.operation = "delete".into();
        assert_eq!(a.ordering_key(ChangeOrder::Row, source), b.ordering_key(ChangeOrder::Row, source));
        b.key = Some(r#"{"id":2}"#.into());
        assert_ne!(a.ordering_key(ChangeOrder::Row, source), b.ordering_key(ChangeOrder::Row, source));
        assert_eq!(a.ordering_key(ChangeOrder::Source, source), b.ordering_key(ChangeOrder::Source, source));
        assert_eq!(a.ordering_key(ChangeOrder::None, source), None);
        assert!(a.ordering_key(ChangeOrder::Row, source).is_some_and(|key| key.len() <= 128));
    }
}
