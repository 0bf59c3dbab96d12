//! CloudEvents 1.0: an event with its attributes, checked by the rules of the specification (cloudevents/spec.md) when
//! it is made, and its JSON form (cloudevents/formats/json-format.md). How it lies in HTTP is the gateway's.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde_json::Value;
use serde_json::value::RawValue;

/// Attributes of one event. The specification has no bound; a delivery in binary mode makes each of them a header.
const ATTRIBUTES: usize = 64;
/// Longest attribute name. The specification says that names should not be longer than 20.
const NAME_CHARS: usize = 64;
/// Longest value of an attribute, in bytes.
const VALUE_BYTES: usize = 2_048;

/// What an event is about.
#[derive(Debug, Clone)]
pub enum EventData {
    /// There is none.
    None,
    /// Any JSON, as it was written.
    Json(Box<RawValue>),
    /// Bytes in base64.
    Base64(String),
}

/// An event whose attributes are valid.
#[derive(Debug, Clone)]
pub struct CloudEvent {
    attributes: BTreeMap<String, Value>,
    data: EventData,
}

impl CloudEvent {
    /// The version of the specification.
    pub const VERSION: &str = "1.0";

    /// An event of attributes and data. The error names the attribute.
    pub fn new(mut attributes: BTreeMap<String, Value>, data: EventData) -> Result<Self, String> {
        // Null is how JSON says that an attribute is not set.
        attributes.retain(|_, value| !value.is_null());
        if attributes.len() > ATTRIBUTES {
            return Err(format!("more than {ATTRIBUTES} attributes"));
        }
        for required in ["specversion", "id", "source", "type"] {
            if !attributes.contains_key(required) {
                return Err(format!("{required}: is missing"));
            }
        }
        for (name, value) in &attributes {
            check(name, value).map_err(|problem| {
                let name: String = name.chars().take(80).collect();
                format!("{name}: {problem}")
            })?;
        }
        Ok(Self { attributes, data })
    }

    /// Reads the JSON form.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(text).map_err(said)?;
        Self::of_members(members)
    }

    /// Reads the JSON form of a batch; the error names the event.
    pub fn parse_batch(text: &[u8]) -> Result<Vec<Self>, String> {
        let events: Vec<BTreeMap<String, Box<RawValue>>> = serde_json::from_slice(text).map_err(said)?;
        let one = |(n, members)| Self::of_members(members).map_err(|e| format!("event [{n}]: {e}"));
        events.into_iter().enumerate().map(one).collect()
    }

    fn of_members(mut members: BTreeMap<String, Box<RawValue>>) -> Result<Self, String> {
        let data = match (members.remove("data"), members.remove("data_base64")) {
            (Some(_), Some(_)) => return Err("data: comes together with data_base64; one of them".into()),
            (Some(json), None) => EventData::Json(json),
            (None, Some(text)) => {
                let text: String =
                    serde_json::from_str(text.get()).map_err(|_| "data_base64: must be a text".to_owned())?;
                EventData::Base64(text)
            }
            (None, None) => EventData::None,
        };
        let mut attributes = BTreeMap::new();
        for (name, raw) in members {
            let value = serde_json::from_str(raw.get()).map_err(|e| format!("{name}: {}", said(e)))?;
            attributes.insert(name, value);
        }
        let event = Self::new(attributes, data)?;
        // What is deeper than a parser takes, or no base64, would only fail where it arrives.
        event.as_value().map(|_| event)
    }

    /// An attribute as text.
    pub fn attribute(&self, name: &str) -> Option<String> {
        match self.attributes.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// All attributes, as text.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, String)> {
        self.attributes.keys().filter_map(|name| Some((name.as_str(), self.attribute(name)?)))
    }

    /// What it is about.
    pub fn data(&self) -> &EventData {
        &self.data
    }

    /// The JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        // Names are letters and digits, so they need no escapes.
        let mut text = String::from("{");
        for (name, value) in &self.attributes {
            text += &format!("\"{name}\":{value},");
        }
        match &self.data {
            EventData::None => {
                text.pop();
            }
            EventData::Json(raw) => text += &format!("\"data\":{raw}"),
            EventData::Base64(base64) => text += &format!("\"data_base64\":{}", Value::from(base64.as_str())),
        }
        text.push('}');
        text.into_bytes()
    }

    /// As a value that filters look into. The error is about its data.
    pub fn as_value(&self) -> Result<Value, String> {
        use base64::Engine as _;
        let mut object: serde_json::Map<String, Value> =
            self.attributes.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        match &self.data {
            EventData::None => {}
            EventData::Json(raw) => {
                let value = serde_json::from_str(raw.get()).map_err(|e| format!("data: {}", said(e)))?;
                object.insert("data".into(), value);
            }
            EventData::Base64(text) => {
                base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map_err(|e| format!("data_base64: is no base64: {e}"))?;
                object.insert("data_base64".into(), text.as_str().into());
            }
        }
        Ok(Value::Object(object))
    }

    /// Whether an attribute may be called so: lower-case letters and digits.
    pub fn is_attribute_name(name: &str) -> bool {
        (1..=NAME_CHARS).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && name != "data"
    }
}

fn said(error: serde_json::Error) -> String {
    error.to_string().chars().take(300).collect()
}

/// The rules of one attribute.
fn check(name: &str, value: &Value) -> Result<(), String> {
    if !CloudEvent::is_attribute_name(name) {
        return Err(format!(
            "an attribute is named with 1 to {NAME_CHARS} lower-case letters and digits, and not \"data\""
        ));
    }
    let of_the_specification =
        ["specversion", "id", "source", "type", "datacontenttype", "dataschema", "subject", "time"]
            .contains(&name);
    let text = match value {
        Value::String(text) => text,
        Value::Bool(_) | Value::Number(_) if of_the_specification => return Err("must be a text".into()),
        Value::Bool(_) => return Ok(()),
        // Integers of the specification have 32 bits.
        Value::Number(n) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => return Ok(()),
        Value::Number(_) => return Err("a number is a whole one of 32 bits".into()),
        _ => return Err("must be a text, a whole number or a truth value".into()),
    };
    if text.len() > VALUE_BYTES {
        return Err(format!("longer than {VALUE_BYTES} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters".into());
    }
    if text.is_empty() && of_the_specification {
        return Err("must not be empty".into());
    }
    match name {
        "specversion" if text != CloudEvent::VERSION => Err("only 1.0 is understood".into()),
        "source" if !is_uri(text) => Err("must be a URI reference, such as /shop/orders".into()),
        "dataschema" if !is_uri(text) || !text.contains(':') => Err("must be a URI with its scheme".into()),
        "time" if DateTime::parse_from_rfc3339(text).is_err() => {
            Err("must be an instant such as 2030-01-01T00:00:00Z".into())
        }
        "datacontenttype" if !is_media_type(text) => {
            Err("must be a media type, such as application/json".into())
        }
        _ => Ok(()),
    }
}

/// The characters that may stand in a URI (RFC 3986, section 2).
fn is_uri(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b))
}

fn is_media_type(text: &str) -> bool {
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    text.is_ascii() && essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn whole() -> Value {
        json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.created"})
    }

    fn with(name: &str, value: Value) -> Result<CloudEvent, String> {
        let mut event = whole();
        event[name] = value;
        CloudEvent::parse(event.to_string().as_bytes())
    }

    #[test]
    fn attributes_follow_the_specification_and_wrong_ones_are_named() {
        for (name, value) in [
            ("subject", json!("a/b é")),
            ("time", json!("2030-01-01T00:00:00.5+02:00")),
            ("datacontenttype", json!("application/json; charset=utf-8")),
            ("dataschema", json!("https://example.com/x#y")),
            ("tenant", json!(-5)),
            ("urgent", json!(true)),
            ("subject", json!(null)),
            ("data", json!({"deep": [1.50]})),
            ("data_base64", json!("AAEC")),
        ] {
            assert!(
                with(name, value.clone()).is_ok(),
                "{name} {value}: {:?}",
                with(name, value.clone()).err()
            );
        }
        for (name, value) in [
            ("specversion", json!("0.3")),
            ("id", json!("")),
            ("id", json!(null)),
            ("id", json!(7)),
            ("source", json!("a b")),
            ("type", json!("a\nb")),
            ("subject", json!("")),
            ("time", json!("yesterday")),
            ("datacontenttype", json!("json")),
            ("dataschema", json!("/relative")),
            ("camelCase", json!("x")),
            ("with_underscore", json!("x")),
            ("big", json!(3_000_000_000_u32)),
            ("half", json!(0.5)),
            ("list", json!([1])),
            ("long", json!("x".repeat(3_000))),
            ("data_base64", json!(5)),
            ("data_base64", json!("*")),
        ] {
            let error = with(name, value.clone()).map(drop).unwrap_err();
            assert!(error.starts_with(&format!("{name}: ")), "{name} {value}: {error}");
        }
        let both = json!({"specversion": "1.0", "id": "1", "source": "/", "type": "t", "data": 1, "data_base64": ""});
        assert!(CloudEvent::parse(both.to_string().as_bytes()).is_err());
        let deep = format!("{{\"data\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(CloudEvent::parse(deep.as_bytes()).is_err());
        for text in ["", "[]", "{", "5", "{\"specversion\":\"1.0\"}"] {
            assert!(CloudEvent::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn data_stays_as_it_was_written() {
        let text = r#"{"id":"1","source":"/","specversion":"1.0","type":"t","data":{"n":12345678901234567890123,"x":1.50}}"#;
        let event = CloudEvent::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(event.to_json()).unwrap(), text);
        assert_eq!(event.attribute("source").as_deref(), Some("/"));
        let again = CloudEvent::parse(&CloudEvent::parse(whole().to_string().as_bytes()).unwrap().to_json());
        assert_eq!(again.unwrap().as_value().unwrap(), whole());
    }

    #[test]
    fn the_event_of_a_batch_that_is_wrong_is_named() {
        let batch = json!([whole(), {"id": "x"}]).to_string();
        assert_eq!(
            CloudEvent::parse_batch(batch.as_bytes()).unwrap_err(),
            "event [1]: specversion: is missing"
        );
        assert_eq!(CloudEvent::parse_batch(b"[]").unwrap().len(), 0);
    }
}
