//! From an operation to its rules.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use super::parameter::{Form, Parameter, Place};
use super::{Rules, body};
use crate::cost::{Graph, Types};
use crate::place::{Problem, below, resolved};
use crate::settings::Settings;
use crate::subset::standalone;

/// Size of a compiled regular expression, in bytes. What is searched with it costs at most that, times the text's length.
const PATTERN_BYTES: usize = 256 * 1024;

/// A schema, ready to check values.
pub(super) struct Schema {
    pub(super) validator: Validator,
    /// What a value on each level costs at most.
    pub(super) levels: Box<[u64]>,
}

/// Compiles operations of one document.
pub(super) struct Compiler<'d> {
    document: &'d Value,
    schemas: usize,
}

impl<'d> Compiler<'d> {
    pub(super) fn new(document: &'d Value) -> Self {
        Self { document, schemas: 0 }
    }

    /// How many schemas those compiled so far consist of.
    pub(super) fn schemas(&self) -> usize {
        self.schemas
    }

    /// The rules of an operation, if it has any.
    pub(super) fn rules(&mut self, name: &str) -> Result<Option<Rules>, Problem> {
        let found = name.split_once(' ').and_then(|(method, path)| {
            let (method, item) = (method.to_ascii_lowercase(), self.document.get("paths")?.get(path)?);
            let operation = item.get(&method).filter(|operation| operation.is_object())?;
            Some((path, item, operation, below(&below("/paths", path), &method)))
        });
        let Some((path, item, operation, pointer)) = found else {
            return Err(Problem::at("/paths", "there is no such operation").of(name));
        };
        self.compile(path, item, operation, &pointer).map_err(|problem| problem.of(name))
    }

    fn compile(
        &mut self,
        path: &str,
        item: &'d Value,
        operation: &'d Value,
        pointer: &str,
    ) -> Result<Option<Rules>, Problem> {
        if !Settings::of([self.document, item], operation, pointer)?.validate {
            return Ok(None);
        }
        let mut parameters = Vec::<Parameter>::new();
        // An operation's own take the place of its path's.
        for (owner, place) in [(operation, pointer.to_owned()), (item, below("/paths", path))] {
            let place = below(&place, "parameters");
            let given = match owner.get("parameters") {
                None => continue,
                Some(Value::Array(given)) => given,
                Some(_) => return Err(Problem::at(&place, "must be a list")),
            };
            for (index, given) in given.iter().enumerate() {
                let (given, place) = resolved(self.document, given, &below(&place, &index.to_string()))?;
                if let Some(parameter) = self.parameter(path, given, &place)?
                    && !parameters.iter().any(|known| known.is(&parameter))
                {
                    parameters.push(parameter);
                }
            }
        }
        let body = match operation.get("requestBody") {
            None => None,
            Some(given) => {
                let (given, place) = resolved(self.document, given, &below(pointer, "requestBody"))?;
                Some(body::Rule::compile(self, given, &place)?)
            }
        };
        if parameters.is_empty() && body.is_none() {
            return Ok(None);
        }
        Ok(Some(Rules { parameters: parameters.into(), body }))
    }

    fn parameter(&mut self, path: &str, given: &'d Value, place: &str) -> Result<Option<Parameter>, Problem> {
        let text = |key: &str| given.get(key).and_then(Value::as_str);
        let flag = |key: &str| given.get(key) == Some(&Value::Bool(true));
        let Some(name) = text("name").filter(|name| !name.is_empty()) else {
            return Err(Problem::at(place, "a parameter has a name"));
        };
        let wrong = |why: &str| Err(Problem::at(place, format!("{name}: {why}")));
        let within = match text("in") {
            Some("path") => match position(path, name) {
                Some(index) => Place::Path(index),
                None => return wrong("the path has no such parameter"),
            },
            Some("query") => Place::Query,
            Some("cookie") => Place::Cookie,
            Some("header") => match name.to_ascii_lowercase().parse::<http::HeaderName>() {
                // These are described elsewhere (OpenAPI 3.1.1, section 4.8.12.1).
                Ok(http::header::ACCEPT | http::header::CONTENT_TYPE | http::header::AUTHORIZATION) => {
                    return Ok(None);
                }
                Ok(name) => Place::Header(name),
                Err(_) => return wrong("is no header's name"),
            },
            _ => return wrong("`in` must be path, query, header or cookie"),
        };
        let content = given.get("content").and_then(Value::as_object).and_then(|all| all.iter().next());
        let (schema, place_of) = match (given.get("schema"), content) {
            (Some(schema), _) => (Some(schema), below(place, "schema")),
            (None, Some((media, content))) if body::is_json(media) => {
                (content.get("schema"), below(&below(&below(place, "content"), media), "schema"))
            }
            (None, _) => (None, String::new()),
        };
        let plain = given.get("schema").is_some() || content.is_none();
        let compiled = schema.map(|schema| self.schema(schema, &place_of)).transpose()?;
        let form = match &compiled {
            Some((_, graph)) if plain => match form(&within, graph, text("style"), given.get("explode")) {
                Ok(form) => form,
                Err(why) => return wrong(why),
            },
            None if plain => Form::Text(Types::SCALAR),
            _ => Form::Json,
        };
        Ok(Some(Parameter {
            required: flag("required") || matches!(within, Place::Path(_)),
            may_be_empty: flag("allowEmptyValue"),
            place: within,
            name: name.into(),
            form,
            schema: compiled.map(|(schema, _)| schema),
        }))
    }

    /// Compiles a schema of the document.
    pub(super) fn schema(&mut self, schema: &'d Value, place: &str) -> Result<(Schema, Graph), Problem> {
        let graph = Graph::of(self.document, schema, place)?;
        self.schemas += graph.len();
        let levels = graph.levels()?;
        let own = standalone(self.document, schema, &graph.components);
        // Linear in the text whatever the pattern is; and what a caller sends is never compiled as one.
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(patterns)
            .should_validate_formats(true)
            .should_ignore_unknown_formats(true)
            .with_format("regex", |_: &str| true)
            .offline()
            .build(&own);
        match validator {
            Ok(validator) => Ok((Schema { validator, levels }, graph)),
            Err(error) => {
                let inner = error.instance_path().as_str().to_owned();
                let place = match inner.strip_prefix("/davit") {
                    Some(rest) => format!("{place}{rest}"),
                    None if inner.starts_with("/components/") => inner,
                    None => place.to_owned(),
                };
                Err(Problem::at(&place, error.to_string()))
            }
        }
    }
}

/// Which of a path's parameters has this name.
fn position(path: &str, name: &str) -> Option<usize> {
    let names = path.split('/').filter_map(|step| step.strip_prefix('{')?.strip_suffix('}'));
    let bare = |name: &str| name.strip_suffix('+').unwrap_or(name).to_owned();
    names.map(bare).position(|known| known == bare(name))
}

/// How a parameter's value is written.
fn form(
    place: &Place,
    graph: &Graph,
    style: Option<&str>,
    explode: Option<&Value>,
) -> Result<Form, &'static str> {
    let types = graph.types(0);
    let query = *place == Place::Query;
    if types.has(Types::OBJECT) && !types.has(Types::STRING) {
        if style == Some("deepObject") && query {
            return Ok(Form::Deep(graph.property_types().into_iter().collect()));
        }
        return Err("of objects only those of style deepObject in the query are known; \
             `x-davit: {validate: false}` leaves the operation's requests unchecked");
    }
    let separator = match (place, style) {
        (Place::Query, None | Some("form")) if explode != Some(&Value::Bool(false)) => None,
        (Place::Query | Place::Cookie, None | Some("form")) => Some(','),
        (Place::Query, Some("spaceDelimited")) => Some(' '),
        (Place::Query, Some("pipeDelimited")) => Some('|'),
        (Place::Path(_) | Place::Header(_), None | Some("simple")) => Some(','),
        _ => {
            return Err("this style is not known here; form and simple are, for arrays in the query also \
             spaceDelimited and pipeDelimited");
        }
    };
    if types.has(Types::ARRAY) {
        let of = graph.item_types();
        return Ok(Form::List { separator, of: if of == Types::default() { Types::SCALAR } else { of } });
    }
    Ok(Form::Text(if types == Types::default() { Types::SCALAR } else { types }))
}
