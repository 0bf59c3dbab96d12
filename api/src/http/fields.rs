//! Names of HTTP header fields, and what a function's addresses may change about them.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Headers that one setting sets, and that it removes.
const CHANGES: usize = 32;
/// Longest value that is set, in bytes.
const VALUE_BYTES: usize = 4_096;
/// Longest name.
const NAME_BYTES: usize = 128;

/// Belong to a connection, frame a message, or say where a request goes or came from: the gateway's own.
const RESERVED: [&str; 17] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-accept",
    "sec-websocket-key",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
];

crate::text::text_like! {
    /// A header's name in lower case: a token (RFC 9110, section 5.6.2) of at most 128 characters.
    pub struct FieldName = "x-request-id";
}

impl FieldName {
    fn is_reserved(&self) -> bool {
        RESERVED.contains(&self.as_str())
            || ["x-davit-", "x-forwarded-"].iter().any(|prefix| self.0.starts_with(prefix))
    }
}

impl FromStr for FieldName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if text.is_empty() || text.len() > NAME_BYTES || !text.bytes().all(token) {
            let shown: String = text.chars().take(80).collect();
            return Err(format!(
                "header {shown:?}: a name is 1 to {NAME_BYTES} letters, digits and hyphens, such as x-request-id"
            ));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

/// What is changed in a message's headers: first what is removed, then what is set.
#[derive(
    Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct HeaderChanges {
    /// Headers and their values, which take the place of any that are there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::HashMap<String, String>)]
    pub set: BTreeMap<FieldName, String>,
    /// Headers that are taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<FieldName>,
}

impl HeaderChanges {
    /// The field that is wrong, and what about it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        for (field, length) in [("set", self.set.len()), ("remove", self.remove.len())] {
            if length > CHANGES {
                return Err((field, format!("at most {CHANGES} headers")));
            }
        }
        let reserved = |name: &FieldName| format!("{name} belongs to the platform");
        if let Some(name) = self.set.keys().find(|name| name.is_reserved()) {
            return Err(("set", reserved(name)));
        }
        if let Some(name) = self.remove.iter().find(|name| name.is_reserved()) {
            return Err(("remove", reserved(name)));
        }
        if let Some(name) = self.remove.iter().find(|name| self.set.contains_key(*name)) {
            return Err(("remove", format!("{name} is also set, which takes the place of what is there")));
        }
        // Spaces around a value are no part of it (RFC 9110, section 5.5); written down they were meant to be.
        let fits = |value: &str| {
            value.len() <= VALUE_BYTES
                && value.trim() == value
                && value.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b))
        };
        match self.set.iter().find(|(_, value)| !fits(value)) {
            Some((name, _)) => Err((
                "set",
                format!(
                    "the value of {name} must be at most {VALUE_BYTES} printable ASCII characters without spaces around"
                ),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_is_a_token_in_lower_case(text in "[\\PC]{0,12}") {
            if let Ok(name) = text.parse::<FieldName>() {
                prop_assert_eq!(name.as_str(), text.to_ascii_lowercase());
                prop_assert!(!text.contains([' ', ':', '\r', '\n', '"', ',']));
            }
        }
    }
}
