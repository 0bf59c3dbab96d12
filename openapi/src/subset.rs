//! Parts of a document: what operations need of its components, and what of a schema counts for requests.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::place::{Problem, component, pointer_of, reference};
use crate::shape::{Kind, change, visit};

/// Sections of the components that are carried, with what they hold.
const SECTIONS: [Kind; 7] = [
    Kind::Schema,
    Kind::Parameter,
    Kind::RequestBody,
    Kind::Response,
    Kind::Header,
    Kind::Example,
    Kind::Link,
];

/// The components that a document's paths need, and its security schemes. Problems are references that lead nowhere.
pub(crate) fn needed(document: &Value, problems: &mut Vec<Problem>) -> Map<String, Value> {
    let mut needed = BTreeSet::<(String, String)>::new();
    let mut todo = Vec::new();
    let paths = json!({"paths": document.get("paths")});
    visit(Kind::Document, &paths, "", &mut |kind, value, place| {
        note(document, kind, value, place, &mut todo, problems);
    });
    while let Some((section, name)) = todo.pop() {
        if !needed.insert((section.clone(), name.clone())) {
            continue;
        }
        let kind = SECTIONS.into_iter().find(|kind| kind.section() == Some(&section));
        let held = document.get("components").and_then(|all| all.get(&section)?.get(&name));
        if let (Some(kind), Some(held)) = (kind, held) {
            let place = crate::place::below(&format!("/components/{section}"), &name);
            visit(kind, held, &place, &mut |kind, value, place| {
                note(document, kind, value, place, &mut todo, problems);
            });
        }
    }
    let mut components = taken(document, &needed);
    if let Some(schemes) = document.pointer("/components/securitySchemes").filter(|all| all.is_object()) {
        components.insert("securitySchemes".to_owned(), schemes.clone());
    }
    components
}

/// Notes what a part of a document refers to.
fn note(
    document: &Value,
    kind: Kind,
    value: &Value,
    place: &str,
    todo: &mut Vec<(String, String)>,
    problems: &mut Vec<Problem>,
) {
    let Some(section) = kind.section() else { return };
    if let Some(reference) = reference(value) {
        let target = pointer_of(reference);
        let found = target.as_deref().filter(|target| document.pointer(target).is_some());
        match found.and_then(component) {
            Some(found) if kind == Kind::Schema || found.0 == section => todo.push(found),
            Some(_) => problems.push(Problem::at(place, format!("{reference:?} is none of the {section}"))),
            None => {
                let why = if reference.starts_with('#') {
                    "leads nowhere within the document's components"
                } else {
                    "leads out of the document; put what it names into it"
                };
                problems.push(Problem::at(place, format!("{reference:?} {why}")));
            }
        }
    }
    if kind == Kind::Schema
        && let Some(Value::Object(mapping)) = value.pointer("/discriminator/mapping")
    {
        // Names or references; what they name is only told.
        for name in mapping.values().filter_map(Value::as_str) {
            let target = pointer_of(name).unwrap_or_else(|| format!("/components/schemas/{name}"));
            if document.pointer(&target).is_some() {
                todo.extend(component(&target));
            }
        }
    }
}

/// These components of a document.
fn taken(document: &Value, which: &BTreeSet<(String, String)>) -> Map<String, Value> {
    let mut components = Map::new();
    for (section, name) in which {
        let held = document.get("components").and_then(|all| all.get(section)?.get(name));
        if let (Some(held), Value::Object(into)) =
            (held, components.entry(section.clone()).or_insert_with(|| json!({})))
        {
            into.insert(name.clone(), held.clone());
        }
    }
    components
}

/// A schema as a document of its own, with the components that it needs, as it counts for a request: what is only read is
/// not asked for.
pub(crate) fn standalone(document: &Value, schema: &Value, needs: &BTreeSet<(String, String)>) -> Value {
    let mut own = json!({"$ref": "#/davit", "davit": schema, "components": taken(document, needs)});
    let mut forgive = |kind: Kind, value: &mut Value| {
        if kind == Kind::Schema {
            forgive_read_only(document, value);
        }
    };
    if let Some(schema) = own.get_mut("davit") {
        change(Kind::Schema, schema, &mut forgive);
    }
    if let Some(components) = own.get_mut("components") {
        change(Kind::Components, components, &mut forgive);
    }
    own
}

/// `readOnly` properties that are required are so of answers only (OpenAPI 3.0.3, schema object; common practice since).
fn forgive_read_only(document: &Value, schema: &mut Value) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let read_only = |property: &Value| {
        let target = reference(property).and_then(pointer_of).and_then(|target| document.pointer(&target));
        [Some(property), target]
            .into_iter()
            .flatten()
            .any(|one| one.get("readOnly") == Some(&Value::Bool(true)))
    };
    let forgiven: BTreeSet<String> =
        properties.iter().filter(|(_, value)| read_only(value)).map(|(name, _)| name.clone()).collect();
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| !name.as_str().is_some_and(|name| forgiven.contains(name)));
    }
}
