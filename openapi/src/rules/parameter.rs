//! One parameter: from the text that a request has of it to a value, and whether that fits.

use serde_json::{Map, Value};

use super::compile::Schema;
use super::refusal::Refusal;
use crate::cost::Types;

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The so-many-th parameter of the path: a route may call it otherwise.
    Path(usize),
    Query,
    Header(http::HeaderName),
    Cookie,
}

impl Place {
    fn word(&self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Query => "query",
            Self::Header(_) => "header",
            Self::Cookie => "cookie",
        }
    }
}

/// How its value is written.
pub(super) enum Form {
    /// As one of these scalars.
    Text(Types),
    /// As several, repeated or with something in between.
    List { separator: Option<char>, of: Types },
    /// As `name[property]=value`, with what each property may be.
    Deep(Box<[(String, Types)]>),
    /// As JSON.
    Json,
}

/// A parameter.
pub(super) struct Parameter {
    pub(super) place: Place,
    pub(super) name: Box<str>,
    pub(super) required: bool,
    pub(super) may_be_empty: bool,
    pub(super) form: Form,
    pub(super) schema: Option<Schema>,
}

impl Parameter {
    /// Whether both say what holds for the same part of a request.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Place::Path(one), Place::Path(other)) => one == other,
            (Place::Header(one), Place::Header(other)) => one == other,
            _ => self.place.word() == other.place.word() && self.name == other.name,
        }
    }

    /// Its place, as a refusal tells it.
    fn told(&self) -> String {
        format!("{}.{}", self.place.word(), self.name)
    }

    /// Checks what a request has of it: as often as it is given, decoded.
    pub(super) fn check(&self, given: &[&str], refusal: &mut Refusal) {
        let told = self.told();
        let Some(first) = given.first() else {
            if self.required {
                refusal.add(&told, "is missing");
            }
            return;
        };
        if self.may_be_empty && given == [""] {
            return;
        }
        match &self.form {
            Form::List { separator, of } => self.list(given, *separator, *of, &told, refusal),
            // Readers do not agree which of them counts.
            _ if given.len() > 1 => refusal.add(&told, &format!("is given {} times", given.len())),
            Form::Json => match serde_json::from_str(first) {
                Ok(value) => self.fits(&[value], &told, refusal),
                Err(_) => refusal.add(&told, "must be JSON"),
            },
            Form::Text(types) => match read(first, *types) {
                ways if ways.is_empty() => refusal.add(&told, &wanted(*types)),
                ways => self.fits(&ways, &told, refusal),
            },
            // Objects come by `deep`.
            Form::Deep(_) => {}
        }
    }

    fn list(&self, given: &[&str], separator: Option<char>, of: Types, told: &str, refusal: &mut Refusal) {
        let split = |text| -> Vec<&str> { separator.map_or(vec![text], |by| str::split(text, by).collect()) };
        if separator.is_some() && given.len() > 1 && !matches!(self.place, Place::Header(_)) {
            return refusal.add(told, &format!("is given {} times", given.len()));
        }
        let header = matches!(self.place, Place::Header(_));
        let mut items = Vec::new();
        for (index, text) in given.iter().flat_map(|text| split(text)).enumerate() {
            let text = if header { text.trim() } else { text };
            match read(text, of).into_iter().next() {
                Some(value) => items.push(value),
                None => return refusal.add(&format!("{told}/{index}"), &wanted(of)),
            }
        }
        self.fits(&[Value::Array(items)], told, refusal);
    }

    /// Checks an object that is written as `name[property]=value`.
    pub(super) fn deep(&self, pairs: &[(String, String)], refusal: &mut Refusal) {
        let Form::Deep(properties) = &self.form else { return };
        let mut object = Map::new();
        for (key, text) in pairs {
            let inner =
                key.strip_prefix(&*self.name).and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']'));
            let Some(property) = inner else { continue };
            let types = properties.iter().find(|(name, _)| name == property).map(|(_, types)| *types);
            let types = types.filter(|types| *types != Types::default()).unwrap_or(Types::SCALAR);
            let told = format!("{}/{property}", self.told());
            match read(text, types).into_iter().next() {
                Some(value) => {
                    if object.insert(property.to_owned(), value).is_some() {
                        refusal.add(&told, "is given more than once");
                    }
                }
                None => refusal.add(&told, &wanted(types)),
            }
        }
        match (object.is_empty(), self.required) {
            (true, true) => refusal.add(&self.told(), "is missing"),
            (true, false) => {}
            (false, _) => self.fits(&[Value::Object(object)], &self.told(), refusal),
        }
    }

    /// Checks that one of the ways to read it fits.
    fn fits(&self, ways: &[Value], told: &str, refusal: &mut Refusal) {
        let Some(schema) = &self.schema else { return };
        let Some(first) = ways.first() else { return };
        if !ways.iter().any(|value| schema.fits(value)) {
            schema.explain(first, told, refusal);
        }
    }
}

/// The values that a text may stand for, where these types are wanted; the likeliest first.
fn read(text: &str, types: Types) -> Vec<Value> {
    let mut ways = Vec::new();
    if types.has(Types::NUMBER)
        && text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && let Ok(number) = serde_json::from_str::<serde_json::Number>(text)
    {
        ways.push(Value::Number(number));
    }
    if types.has(Types::BOOLEAN) && (text == "true" || text == "false") {
        ways.push(Value::Bool(text == "true"));
    }
    if types.has(Types::STRING) {
        ways.push(Value::String(text.to_owned()));
    }
    if types.has(Types::NULL) && (text.is_empty() || text == "null") {
        ways.push(Value::Null);
    }
    ways
}

/// What is wanted instead of a text that stands for none of these.
fn wanted(types: Types) -> String {
    let words = [(Types::NUMBER, "a number"), (Types::BOOLEAN, "true or false"), (Types::NULL, "empty")];
    let words: Vec<_> = words.iter().filter(|(one, _)| types.has(*one)).map(|(_, word)| *word).collect();
    format!("must be {}", words.join(", or "))
}
