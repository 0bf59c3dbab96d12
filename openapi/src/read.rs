//! From text to a value: JSON or YAML 1.2, within bounds.

use std::fmt;

use davit_api::limits;
use serde_json::Value;

/// Why a text is no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// The problem, as a sentence.
    pub message: String,
}

impl Unreadable {
    /// The problem with its place, in a file of this name.
    pub fn in_file(&self, file: &str) -> String {
        match self.line {
            Some(line) => format!("{file}, line {line}: {}", self.message),
            None => format!("{file}: {}", self.message),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_file("the document"))
    }
}

/// Reads a document of at most [`limits::OPENAPI_FILE_BYTES`]. What YAML's aliases may make of it is bounded by the reader.
pub fn read(text: &str) -> Result<Value, Unreadable> {
    if text.len() > limits::OPENAPI_FILE_BYTES {
        let message = format!("{} KiB, the limit is {}", text.len() >> 10, limits::OPENAPI_FILE_BYTES >> 10);
        return Err(Unreadable { line: None, message });
    }
    let value: Value = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            Unreadable { line: Some(error.line()), message }
        })?
    } else {
        yaml(text)?
    };
    if !shallow(&value, 0) {
        let message = format!("more than {} levels of objects and lists", limits::OPENAPI_DEPTH);
        return Err(Unreadable { line: None, message });
    }
    Ok(value)
}

fn yaml(text: &str) -> Result<Value, Unreadable> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    // As YAML 1.2 has it: `no` is a word.
    options.strict_booleans = true;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map(|place| usize::try_from(place.line()).unwrap_or_default());
        let message = error.to_string();
        let message = message.lines().next().unwrap_or_default().trim().chars().take(300).collect();
        Unreadable { line: line.filter(|line| *line > 0), message }
    })
}

fn shallow(value: &Value, level: usize) -> bool {
    // With room for what an import adds.
    level + 4 < limits::OPENAPI_DEPTH
        && match value {
            Value::Array(items) => items.iter().all(|item| shallow(item, level + 1)),
            Value::Object(fields) => fields.values().all(|field| shallow(field, level + 1)),
            _ => true,
        }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_and_json_are_read_alike() {
        let yaml = "openapi: 3.0.3\npaths:\n  /a:\n    get:\n      responses:\n        200:\n          description: no\n        '404': {description: 'on'}\n";
        let json = json!({"openapi": "3.0.3", "paths": {"/a": {"get": {"responses": {
            "200": {"description": "no"}, "404": {"description": "on"}}}}}});
        assert_eq!(read(yaml), Ok(json.clone()));
        assert_eq!(read(&json.to_string()), Ok(json));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_line() {
        for (text, line) in [
            ("a: 1\nb: [1, 2\nc: 3\n", 3),
            ("a:\n  b: 1\n c: 2\n", 3),
            ("a: 1\na: 2\n", 2),
            ("{\n\"a\": 1,\n}", 3),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.line.is_some_and(|found| found.abs_diff(line) <= 1), "{text}: {refused}");
        }
        assert!(
            read(&"#".repeat(limits::OPENAPI_FILE_BYTES + 1)).unwrap_err().message.contains("the limit is")
        );
        assert!(read(&format!("{}1{}", "[".repeat(120), "]".repeat(120))).is_err());
    }

    #[test]
    fn aliases_cannot_make_a_small_text_a_large_value() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let before = format!("*a{}", n - 1);
            text += &format!("a{n}: &a{n} [{}]\n", [before.as_str(); 10].join(", "));
        }
        assert!(read(&text).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fall_over(text in "[a-z:\\-\\[\\]{}&*!|>'\"# \n\\PC]{0,120}") {
            let _ = read(&text);
        }
    }
}
