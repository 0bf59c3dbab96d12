//! From JSON to a pattern; what is wrong is said with its place, such as `data.amount: numeric: …`.

use serde_json::{Map, Value};

use super::text::{Text, Wildcard};
use super::{Comparison, Fields, Pattern, Rule, Test};

type Parsed<T> = Result<T, String>;

const TESTS: &str = "prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric, exists";

pub(super) fn pattern(written: &Value) -> Parsed<Fields> {
    let Value::Object(root) = written else {
        return Err("the filter must be an object, such as {\"type\": [\"order.created\"]}".into());
    };
    if written.to_string().len() > Pattern::BYTES {
        return Err(format!("the filter is larger than {} bytes", Pattern::BYTES));
    }
    fields(root, "", 1)
}

/// Puts a place in front of a problem.
fn at(place: &str, problem: impl std::fmt::Display) -> String {
    if place.is_empty() { problem.to_string() } else { format!("{place}: {problem}") }
}

fn below(place: &str, name: &str) -> String {
    let name: String = name.chars().take(80).collect();
    if place.is_empty() { name } else { format!("{place}.{name}") }
}

fn fields(object: &Map<String, Value>, place: &str, depth: usize) -> Parsed<Fields> {
    if depth > Pattern::DEPTH {
        return Err(at(place, format!("objects lie in each other deeper than {} levels", Pattern::DEPTH)));
    }
    if object.is_empty() {
        return Err(at(place, "an empty object matches everything; leave it out"));
    }
    let mut all = Fields::default();
    for (name, value) in object {
        let place = below(place, name);
        if name == "$or" {
            all.either = either(value, &place, depth)?;
            continue;
        }
        let rule = match value {
            Value::Object(deeper) => Rule::Deeper(fields(deeper, &place, depth + 1)?),
            Value::Array(tests) if tests.is_empty() => {
                return Err(at(&place, "the list is empty, so nothing would ever match"));
            }
            Value::Array(tests) => {
                let tests: Parsed<Vec<Test>> = tests.iter().map(test).collect();
                Rule::OneOf(tests.map_err(|problem| at(&place, problem))?)
            }
            _ => return Err(at(&place, format!("write a list, such as [{value}]"))),
        };
        all.fields.push((name.clone(), rule));
    }
    Ok(all)
}

fn either(value: &Value, place: &str, depth: usize) -> Parsed<Vec<Fields>> {
    let Some(patterns) = value.as_array().filter(|list| !list.is_empty()) else {
        return Err(at(place, "must be a list of patterns, of which one has to match"));
    };
    let one = |(n, pattern): (usize, &Value)| {
        let place = format!("{place}[{n}]");
        let object = pattern.as_object().ok_or_else(|| at(&place, "must be an object"))?;
        fields(object, &place, depth + 1)
    };
    patterns.iter().enumerate().map(one).collect()
}

fn test(value: &Value) -> Parsed<Test> {
    match value {
        Value::Object(object) => named(object),
        Value::Array(_) => Err("a list in a list; the tests stand in one list".into()),
        scalar => Ok(Test::Exact(scalar.clone())),
    }
}

/// `{"prefix": "x"}` and its like: one name and what goes with it.
fn named(object: &Map<String, Value>) -> Parsed<Test> {
    let mut entries = object.iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(format!("a test is an object with one of these names: {TESTS}"));
    };
    let parsed = match name.as_str() {
        "exists" => value.as_bool().map(Test::Exists).ok_or_else(|| "must be true or false".to_owned()),
        "numeric" => numeric(value).map(Test::Numeric),
        "anything-but" => anything_but(value).map(Test::NoneOf),
        _ => return text(name, value).map(Test::Text),
    };
    parsed.map_err(|problem| format!("{name}: {problem}"))
}

fn text(name: &str, value: &Value) -> Parsed<Text> {
    let problem = |problem: &str| format!("{name}: {problem}");
    let plain = || match value.as_str() {
        Some("") => Err(problem("must not be empty")),
        Some(text) => Ok(text.to_owned()),
        None => Err(problem("must be a text")),
    };
    let any_case =
        value.get("equals-ignore-case").filter(|_| value.as_object().is_some_and(|o| o.len() == 1));
    let (text, any_case) = match (name, any_case) {
        ("prefix" | "suffix", Some(inner)) => match inner.as_str() {
            Some(text) if !text.is_empty() => (text.to_lowercase(), true),
            _ => return Err(problem("equals-ignore-case: must be a text that is not empty")),
        },
        ("prefix" | "suffix" | "equals-ignore-case" | "wildcard", _) => (plain()?, false),
        _ => return Err(format!("there is no test {name:?}; there are: {TESTS}")),
    };
    Ok(match name {
        "prefix" => Text::Prefix { text, any_case },
        "suffix" => Text::Suffix { text, any_case },
        "wildcard" => Text::Wildcard(Wildcard::parse(&text).map_err(|e| problem(&e))?),
        _ => Text::AnyCase(text.to_lowercase()),
    })
}

/// One value, a list of them, or a test of texts with one text or a list of them.
fn anything_but(value: &Value) -> Parsed<Vec<Test>> {
    let list = match value {
        Value::Object(object) => {
            let mut entries = object.iter();
            let (Some((name, inner)), None) = (entries.next(), entries.next()) else {
                return Err(
                    "an object here has one name: prefix, suffix, equals-ignore-case or wildcard".into()
                );
            };
            let inner = inner.as_array().cloned().unwrap_or_else(|| vec![inner.clone()]);
            let tests: Parsed<Vec<Test>> = inner.iter().map(|one| text(name, one).map(Test::Text)).collect();
            tests?
        }
        Value::Array(list) => {
            let scalar = |one: &Value| match one {
                Value::Array(_) | Value::Object(_) => Err("a list here holds plain values only".to_owned()),
                scalar => Ok(Test::Exact(scalar.clone())),
            };
            list.iter().map(scalar).collect::<Parsed<_>>()?
        }
        scalar => vec![Test::Exact(scalar.clone())],
    };
    if list.is_empty() { Err("the list is empty".into()) } else { Ok(list) }
}

/// `["=", 5]`, `[">", 0]` or `[">", 0, "<=", 5]`.
fn numeric(value: &Value) -> Parsed<Vec<(Comparison, f64)>> {
    let help = "write a comparison and a number, or two of them, such as [\">\", 0, \"<=\", 5]";
    let list = value.as_array().filter(|list| matches!(list.len(), 2 | 4)).ok_or(help)?;
    let pair = |pair: &[Value]| {
        let comparison = match pair[0].as_str() {
            Some("<") => Comparison::Less,
            Some("<=") => Comparison::LessOrEqual,
            Some("=") => Comparison::Equal,
            Some(">=") => Comparison::GreaterOrEqual,
            Some(">") => Comparison::Greater,
            _ => return Err(format!("{} is no comparison; there are <, <=, =, >=, >", pair[0])),
        };
        let bound = pair[1].as_f64().ok_or_else(|| format!("{} is no number; {help}", pair[1]))?;
        Ok((comparison, bound))
    };
    let bounds: Vec<_> = list.chunks(2).map(pair).collect::<Parsed<_>>()?;
    if let [(one, low), (other, high)] = bounds.as_slice() {
        let above = |c: &Comparison| matches!(c, Comparison::Greater | Comparison::GreaterOrEqual);
        let under = |c: &Comparison| matches!(c, Comparison::Less | Comparison::LessOrEqual);
        if !(above(one) && under(other)) {
            return Err("a range has its lower bound first: [\">\", 0, \"<=\", 5]".into());
        }
        if low > high
            || (low == high && (*one, *other) != (Comparison::GreaterOrEqual, Comparison::LessOrEqual))
        {
            return Err(format!("no number lies between {low} and {high}"));
        }
    }
    Ok(bounds)
}
