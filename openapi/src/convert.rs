//! OpenAPI 3.0 → 3.1 (the migration notes of the OpenAPI Initiative): schemas become JSON Schema of draft 2020-12, so that
//! all that follows knows one form.

use serde_json::{Map, Value, json};

use crate::shape::{Kind, change};

/// Makes a document of 3.0 one of 3.1.
pub(crate) fn to_31(document: &mut Value) {
    change(Kind::Document, document, &mut |kind, value| {
        if kind == Kind::Schema
            && let Value::Object(schema) = value
        {
            *schema = converted(std::mem::take(schema));
        }
    });
}

fn converted(mut schema: Map<String, Value>) -> Map<String, Value> {
    // In 3.0 nothing beside a reference counts.
    if let Some(reference) = schema.get("$ref").filter(|r| r.is_string()) {
        return Map::from_iter([("$ref".to_owned(), reference.clone())]);
    }
    for (flag, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        if let Some(Value::Bool(exclusive)) = schema.get(flag) {
            let exclusive = *exclusive;
            schema.remove(flag);
            if exclusive && let Some(value) = schema.remove(bound) {
                schema.insert(flag.to_owned(), value);
            }
        }
    }
    if let Some(example) = schema.remove("example") {
        schema.entry("examples").or_insert_with(|| json!([example]));
    }
    if schema.remove("nullable") == Some(Value::Bool(true)) {
        return nullable(schema);
    }
    schema
}

/// The same, or null. Where no type is said, as beside `allOf`, the letter of 3.0.3 would have it mean nothing, and those who
/// write it mean this.
fn nullable(mut schema: Map<String, Value>) -> Map<String, Value> {
    match schema.get("type") {
        Some(Value::String(one)) => {
            let both = json!([one, "null"]);
            schema.insert("type".to_owned(), both);
        }
        _ => {
            return Map::from_iter([("anyOf".to_owned(), json!([schema, {"type": "null"}]))]);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_of_30_become_those_of_31_and_examples_are_left_alone() {
        let schema = |schema: Value| {
            let mut document = json!({"components": {"schemas": {"A": schema}}});
            to_31(&mut document);
            document["components"]["schemas"]["A"].take()
        };
        for (old, new) in [
            (
                json!({"type": "string", "nullable": true, "enum": ["a"]}),
                json!({"type": ["string", "null"], "enum": ["a", null]}),
            ),
            (
                json!({"minimum": 1, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false}),
                json!({"exclusiveMinimum": 1, "maximum": 9}),
            ),
            (
                json!({"$ref": "#/components/schemas/B", "description": "x"}),
                json!({"$ref": "#/components/schemas/B"}),
            ),
            (
                json!({"allOf": [{"nullable": true, "type": "object"}], "nullable": true}),
                json!({"anyOf": [{"allOf": [{"type": ["object", "null"]}]}, {"type": "null"}]}),
            ),
            (
                json!({"properties": {"nullable": {"type": "integer", "nullable": true}}}),
                json!({"properties": {"nullable": {"type": ["integer", "null"]}}}),
            ),
            (
                json!({"default": {"nullable": true}, "example": {"nullable": true}}),
                json!({"default": {"nullable": true}, "examples": [{"nullable": true}]}),
            ),
        ] {
            assert_eq!(schema(old.clone()), new, "{old}");
        }
    }
}
