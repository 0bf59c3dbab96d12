//! Places in a document: JSON pointers (RFC 6901), references, and problems that name both place and operation.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// References that lead to references, so far.
const HOPS: usize = 16;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place, as a JSON pointer; empty for the whole document.
    pub pointer: String,
    /// The operation that it concerns, such as `POST /orders`, where it is one's.
    pub operation: Option<String>,
    /// The problem, as a sentence without the place.
    pub message: String,
}

impl Problem {
    /// A problem at a place.
    pub(crate) fn at(pointer: &str, message: impl Into<String>) -> Self {
        Self { pointer: pointer.to_owned(), operation: None, message: message.into() }
    }

    /// The same, said of an operation.
    pub(crate) fn of(mut self, operation: &str) -> Self {
        self.operation.get_or_insert_with(|| operation.to_owned());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| text.chars().take(300).collect::<String>();
        if let Some(operation) = &self.operation {
            write!(f, "{}: ", short(operation))?;
        }
        if !self.pointer.is_empty() {
            write!(f, "#{}: ", short(&self.pointer))?;
        }
        f.write_str(&short(&self.message))
    }
}

/// A pointer with one more step.
pub(crate) fn below(pointer: &str, step: &str) -> String {
    format!("{pointer}/{}", step.replace('~', "~0").replace('/', "~1"))
}

/// The place that a reference names, as a pointer; none when it is not within the document.
pub(crate) fn pointer_of(reference: &str) -> Option<String> {
    let fragment = reference.strip_prefix('#')?;
    percent_decode_str(fragment).decode_utf8().ok().map(Cow::into_owned)
}

/// The component that a pointer leads to or into: its section and its name.
pub(crate) fn component(pointer: &str) -> Option<(String, String)> {
    let plain = |step: &str| step.replace("~1", "/").replace("~0", "~");
    let mut steps = pointer.strip_prefix("/components/")?.split('/');
    Some((plain(steps.next()?), plain(steps.next()?)))
}

/// The reference that a value is, if it is one.
pub(crate) fn reference(value: &Value) -> Option<&str> {
    value.get("$ref")?.as_str()
}

/// What a value is in the end: itself, or what it refers to. With its place.
pub(crate) fn resolved<'d>(
    document: &'d Value,
    mut value: &'d Value,
    pointer: &str,
) -> Result<(&'d Value, String), Problem> {
    let mut place = pointer.to_owned();
    for _ in 0..HOPS {
        let Some(reference) = reference(value) else { return Ok((value, place)) };
        let target = pointer_of(reference).filter(|target| component(target).is_some());
        let found = target.and_then(|target| Some((document.pointer(&target)?, target)));
        let Some((next, target)) = found else {
            return Err(Problem::at(&place, format!("{reference:?} leads nowhere in the document")));
        };
        (value, place) = (next, target);
    }
    Err(Problem::at(pointer, "refers to something that refers to something, and so on without an end"))
}
