//! Where what lies in a document: the one table of which field of which object holds what. Everything that changes or looks
//! at all schemas or references goes by it, so that an example which looks like a schema is left alone.

use serde_json::Value;

use crate::place::below;

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Document,
    Components,
    PathItem,
    Operation,
    Parameter,
    RequestBody,
    Response,
    Header,
    MediaType,
    Encoding,
    Example,
    Link,
    SecurityScheme,
    Schema,
}

/// How many of them a field holds.
#[derive(Debug, Clone, Copy)]
enum Holds {
    One,
    List,
    Map,
}

impl Kind {
    /// The section of the components that has such.
    pub(crate) fn section(self) -> Option<&'static str> {
        Some(match self {
            Self::PathItem => "pathItems",
            Self::Parameter => "parameters",
            Self::RequestBody => "requestBodies",
            Self::Response => "responses",
            Self::Header => "headers",
            Self::Example => "examples",
            Self::Link => "links",
            Self::SecurityScheme => "securitySchemes",
            Self::Schema => "schemas",
            Self::Document | Self::Components | Self::Operation | Self::MediaType | Self::Encoding => {
                return None;
            }
        })
    }

    fn fields(self) -> &'static [(&'static str, Holds, Kind)] {
        use Holds::{List, Map, One};
        use Kind::*;
        match self {
            Document => &[("paths", Map, PathItem), ("components", One, Components)],
            Components => &[
                ("schemas", Map, Schema),
                ("parameters", Map, Parameter),
                ("requestBodies", Map, RequestBody),
                ("responses", Map, Response),
                ("headers", Map, Header),
                ("examples", Map, Example),
                ("links", Map, Link),
                ("securitySchemes", Map, SecurityScheme),
                ("pathItems", Map, PathItem),
            ],
            PathItem => &[
                ("parameters", List, Parameter),
                ("get", One, Operation),
                ("head", One, Operation),
                ("post", One, Operation),
                ("put", One, Operation),
                ("patch", One, Operation),
                ("delete", One, Operation),
                ("options", One, Operation),
            ],
            Operation => &[
                ("parameters", List, Parameter),
                ("requestBody", One, RequestBody),
                ("responses", Map, Response),
            ],
            Parameter | Header => {
                &[("schema", One, Schema), ("content", Map, MediaType), ("examples", Map, Example)]
            }
            RequestBody => &[("content", Map, MediaType)],
            Response => &[("headers", Map, Header), ("content", Map, MediaType), ("links", Map, Link)],
            MediaType => &[("schema", One, Schema), ("examples", Map, Example), ("encoding", Map, Encoding)],
            Encoding => &[("headers", Map, Header)],
            Example | Link | SecurityScheme => &[],
            Schema => &[
                ("allOf", List, Schema),
                ("anyOf", List, Schema),
                ("oneOf", List, Schema),
                ("prefixItems", List, Schema),
                ("not", One, Schema),
                ("if", One, Schema),
                ("then", One, Schema),
                ("else", One, Schema),
                ("items", One, Schema),
                ("contains", One, Schema),
                ("additionalProperties", One, Schema),
                ("propertyNames", One, Schema),
                ("unevaluatedItems", One, Schema),
                ("unevaluatedProperties", One, Schema),
                ("properties", Map, Schema),
                ("patternProperties", Map, Schema),
                ("dependentSchemas", Map, Schema),
                ("$defs", Map, Schema),
            ],
        }
    }
}

/// Looks at `value`, which is of that kind, and at everything in it, outside first. Its depth was bounded before.
pub(crate) fn visit(kind: Kind, value: &Value, pointer: &str, look: &mut dyn FnMut(Kind, &Value, &str)) {
    look(kind, value, pointer);
    let Value::Object(fields) = value else { return };
    for (name, holds, inner) in kind.fields() {
        let Some(held) = fields.get(*name) else { continue };
        let place = below(pointer, name);
        match (holds, held) {
            (Holds::One, one) => visit(*inner, one, &place, look),
            (Holds::List, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    visit(*inner, item, &below(&place, &index.to_string()), look);
                }
            }
            (Holds::Map, Value::Object(map)) => {
                for (key, item) in map {
                    visit(*inner, item, &below(&place, key), look);
                }
            }
            (Holds::List | Holds::Map, _) => {}
        }
    }
}

/// Changes `value`, which is of that kind, and everything in it, outside first.
pub(crate) fn change(kind: Kind, value: &mut Value, make: &mut dyn FnMut(Kind, &mut Value)) {
    make(kind, value);
    let Value::Object(fields) = value else { return };
    for (name, holds, inner) in kind.fields() {
        let Some(held) = fields.get_mut(*name) else { continue };
        match (holds, held) {
            (Holds::One, one) => change(*inner, one, make),
            (Holds::List, Value::Array(items)) => {
                items.iter_mut().for_each(|item| change(*inner, item, make));
            }
            (Holds::Map, Value::Object(map)) => {
                map.values_mut().for_each(|item| change(*inner, item, make));
            }
            (Holds::List | Holds::Map, _) => {}
        }
    }
}
