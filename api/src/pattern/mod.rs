//! Filters of subscriptions: patterns over JSON in the shape that Amazon EventBridge has ("Creating event patterns",
//! EventBridge user guide), so that those who know it need not learn another. Pure; the registry asks them for each
//! message that is published.
//!
//! A pattern is an object. Each of its fields is a list of tests, of which one must pass, or an object for what lies
//! deeper; all fields must match. `$or` holds a list of patterns, of which one must match. Where the event has a list,
//! one of its elements must match. A field that the event does not have passes `{"exists": false}` only.

mod parse;
mod text;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use text::Text;

/// A pattern that was checked when it was made.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "Value", into = "Value")]
#[schemars(with = "serde_json::Map<String, Value>")]
pub struct Pattern {
    written: Value,
    root: Fields,
}

impl utoipa::PartialSchema for Pattern {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let example =
            serde_json::json!({"type": ["order.created"], "data": {"amount": [{"numeric": [">", 100]}]}});
        let text = "A filter in the shape of Amazon EventBridge's patterns.";
        let object = utoipa::openapi::ObjectBuilder::new().description(Some(text)).examples([example]);
        object.into()
    }
}

impl utoipa::ToSchema for Pattern {}

/// All of `fields` must match, and one of `either` if there is any.
#[derive(Debug, Clone, Default)]
struct Fields {
    fields: Vec<(String, Rule)>,
    either: Vec<Fields>,
}

#[derive(Debug, Clone)]
enum Rule {
    Deeper(Fields),
    OneOf(Vec<Test>),
}

#[derive(Debug, Clone)]
enum Test {
    /// Text, number, truth value or null.
    Exact(Value),
    Text(Text),
    /// Both bounds of a range, or one of them, or one number.
    Numeric(Vec<(Comparison, f64)>),
    NoneOf(Vec<Test>),
    Exists(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

impl Pattern {
    /// Longest pattern, in bytes of its JSON.
    pub const BYTES: usize = 4_096;
    /// Most levels of objects in each other.
    pub const DEPTH: usize = 16;

    /// Whether an event matches.
    pub fn matches(&self, event: &Value) -> bool {
        self.root.matches(Some(event))
    }

    /// The names of the fields that it looks at on the event's first level.
    pub fn first_level(&self) -> Vec<&str> {
        self.root.names()
    }

    /// As it was written.
    pub fn as_value(&self) -> &Value {
        &self.written
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl TryFrom<Value> for Pattern {
    type Error = String;
    fn try_from(written: Value) -> Result<Self, String> {
        let root = parse::pattern(&written)?;
        Ok(Self { written, root })
    }
}

impl From<Pattern> for Value {
    fn from(pattern: Pattern) -> Value {
        pattern.written
    }
}

impl std::str::FromStr for Pattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("the filter is not JSON: {e}"))?;
        value.try_into()
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.written.fmt(f)
    }
}

impl Fields {
    fn names(&self) -> Vec<&str> {
        let own = self.fields.iter().map(|(name, _)| name.as_str());
        own.chain(self.either.iter().flat_map(Self::names)).collect()
    }

    fn matches(&self, at: Option<&Value>) -> bool {
        if let Some(Value::Array(items)) = at
            && !items.is_empty()
        {
            return items.iter().any(|item| self.matches(Some(item)));
        }
        // What is no object has no fields.
        let below = |name: &str| at.and_then(|value| value.get(name));
        self.fields.iter().all(|(name, rule)| rule.matches(below(name)))
            && (self.either.is_empty() || self.either.iter().any(|one| one.matches(at)))
    }
}

impl Rule {
    fn matches(&self, at: Option<&Value>) -> bool {
        match (self, at) {
            (Self::Deeper(fields), at) => fields.matches(at),
            (Self::OneOf(tests), None) => tests.iter().any(|test| matches!(test, Test::Exists(false))),
            (Self::OneOf(tests), Some(value)) => tests.iter().any(|test| test.passes(value)),
        }
    }
}

impl Test {
    fn passes(&self, value: &Value) -> bool {
        if let Self::Exists(wanted) = self {
            return *wanted;
        }
        match value {
            Value::Array(items) => items.iter().any(|item| self.passes(item)),
            Value::Object(_) => false,
            scalar => self.passes_scalar(scalar),
        }
    }

    fn passes_scalar(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Exact(Value::Number(wanted)), Value::Number(given)) => same_number(wanted, given),
            (Self::Exact(wanted), given) => wanted == given,
            (Self::Text(text), Value::String(given)) => text.fits(given),
            (Self::Numeric(bounds), Value::Number(given)) => {
                given.as_f64().is_some_and(|given| bounds.iter().all(|(c, bound)| c.holds(given, *bound)))
            }
            (Self::NoneOf(tests), given) => !tests.iter().any(|test| test.passes_scalar(given)),
            (Self::Exists(wanted), _) => *wanted,
            (Self::Text(_) | Self::Numeric(_), _) => false,
        }
    }
}

impl Comparison {
    fn holds(self, given: f64, bound: f64) -> bool {
        match self {
            Self::Less => given < bound,
            Self::LessOrEqual => given <= bound,
            Self::Equal => given == bound,
            Self::GreaterOrEqual => given >= bound,
            Self::Greater => given > bound,
        }
    }
}

/// 1 and 1.0 are the same; large whole numbers are compared as such, because as floating point they would run together.
fn same_number(one: &Number, other: &Number) -> bool {
    if one.is_f64() || other.is_f64() {
        return one.as_f64() == other.as_f64();
    }
    one == other
}

#[cfg(test)]
mod tests;
