//! Placeholders in a schedule's payload: `{{due_at}}` and a few more, in its texts, filled in when an instant fires.
//! The controller checks with it, whoever makes the event fills with it.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use crate::{ApiError, ErrorCode, FunctionName, NamespaceName, ScheduleName, limits};

const NAMES: [&str; 5] = ["due_at", "fired_at", "schedule", "function", "namespace"];
/// The longest text that stands in for a placeholder: a name (63), or a time with milliseconds.
const LONGEST: usize = 63;

/// What placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// `{{namespace}}`
    pub namespace: &'a NamespaceName,
    /// `{{function}}`
    pub function: &'a FunctionName,
    /// `{{schedule}}`
    pub schedule: &'a ScheduleName,
    /// `{{due_at}}`: the instant by the schedule, in UTC, in whole seconds.
    pub due_at: DateTime<Utc>,
    /// `{{fired_at}}`: when it fires, in UTC, in milliseconds.
    pub fired_at: DateTime<Utc>,
}

impl Filling<'_> {
    fn of(&self, name: &str) -> Option<String> {
        Some(match name {
            "due_at" => self.due_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            "fired_at" => self.fired_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            "schedule" => self.schedule.to_string(),
            "function" => self.function.to_string(),
            "namespace" => self.namespace.to_string(),
            _ => return None,
        })
    }
}

/// Refuses placeholders that are not known, and payloads that would grow too large.
pub(crate) fn check(payload: &Value) -> Result<(), ApiError> {
    let mut unknown = None;
    let longest = replaced(payload, &mut |name| {
        if !NAMES.contains(&name) {
            unknown.get_or_insert_with(|| name.chars().take(40).collect::<String>());
        }
        Some("x".repeat(LONGEST))
    });
    if let Some(name) = unknown {
        let known = NAMES.map(|name| format!("{{{{{name}}}}}")).join(", ");
        return Err(ApiError::field(
            "payload",
            format!("{{{{{name}}}}} is not known; use {known}, or write \\{{{{ for two braces"),
        ));
    }
    if longest.to_string().len() > limits::ASYNC_PAYLOAD_BYTES {
        return Err(ApiError::new(ErrorCode::TooLarge, "payload: larger than 1 MiB"));
    }
    Ok(())
}

/// The payload with its placeholders filled in. One that is not known stays as it is written.
pub(crate) fn fill(payload: &Value, filling: Filling<'_>) -> Value {
    replaced(payload, &mut |name| filling.of(name))
}

fn replaced(value: &Value, with: &mut impl FnMut(&str) -> Option<String>) -> Value {
    match value {
        Value::String(text) if text.contains("{{") => Value::String(replaced_text(text, with)),
        Value::Array(items) => Value::Array(items.iter().map(|item| replaced(item, with)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), replaced(value, with))).collect())
        }
        other => other.clone(),
    }
}

fn replaced_text(text: &str, with: &mut impl FnMut(&str) -> Option<String>) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let (before, inside) = (&rest[..open], &rest[open + 2..]);
        if let Some(plain) = before.strip_suffix('\\') {
            made += plain;
            made += "{{";
            rest = inside;
            continue;
        }
        made += before;
        let (name, after) = inside.split_once("}}").unwrap_or((inside, ""));
        match with(name.trim()) {
            Some(filled) => made += &filled,
            None => made += &rest[open..rest.len() - after.len()],
        }
        rest = after;
    }
    made + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fill_text(text: &str) -> String {
        replaced_text(text, &mut |name| NAMES.contains(&name).then(|| format!("<{name}>")))
    }

    #[test]
    fn placeholders_are_filled_and_everything_else_stays() {
        for (given, made) in [
            ("plain", "plain"),
            ("at {{due_at}}, by {{ schedule }}", "at <due_at>, by <schedule>"),
            ("{{due_at}}{{due_at}}", "<due_at><due_at>"),
            ("{{other}} {{due_at}}", "{{other}} <due_at>"),
            ("\\{{due_at}} and {due_at}", "{{due_at}} and {due_at}"),
            ("open {{due_at", "open <due_at>"),
            ("{{", "{{"),
        ] {
            assert_eq!(fill_text(given), made, "{given}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_and_so_is_what_grows_too_large() {
        let refused = check(&json!({"a": {"b": ["{{ due-at }}"]}})).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
        assert!(
            refused.message.starts_with("payload: {{due-at}} is not known; use {{due_at}}, "),
            "{refused}"
        );
        assert!(check(&json!({"{{key}}": "\\{{any}}"})).is_ok(), "keys are not filled in");
        let small = "{{function}}".repeat(20_000);
        assert_eq!(check(&json!(small)).unwrap_err().code, ErrorCode::TooLarge);
        assert_eq!(check(&json!("x".repeat(1_100_000))).unwrap_err().code, ErrorCode::TooLarge);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it_and_text_without_braces_never_changes(text in "[a-z{}\\\\ é]{0,40}", plain in "[^{]{0,40}") {
            let _ = fill_text(&text);
            prop_assert_eq!(fill_text(&plain), plain);
        }
    }
}
