//! What checking a value by a schema may cost, known before it is done.
//!
//! A schema and all that it refers to are a graph. Some edges stay at the same value (`allOf`, `$ref`), some lead to a value
//! within it (`properties`, `items`). From that follows how many schemas at most look at one value that lies so many
//! levels deep: in a schema that refers to itself twice, twice as many with each level. Times the values that a body has
//! on each level, it bounds the work for that body, however the two were made to go together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use crate::place::{Problem, below, component, pointer_of};

/// Schemas that one schema may consist of.
const SCHEMAS: usize = 5_000;
/// Levels of a JSON body that are looked at: serde_json reads no more.
const LEVELS: usize = 129;
/// Keywords that change what references mean, or that are not of draft 2020-12.
const REFUSED: [&str; 8] = [
    "$id",
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
    "dependencies",
];
/// Dialects that are the one that schemas are read as.
pub(crate) const DIALECTS: [&str; 2] =
    ["https://spec.openapis.org/oas/3.1/dialect/base", "https://json-schema.org/draft/2020-12/schema"];

/// JSON's types, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Types(u8);

impl Types {
    pub(crate) const NULL: Self = Self(1);
    pub(crate) const BOOLEAN: Self = Self(2);
    pub(crate) const NUMBER: Self = Self(4);
    pub(crate) const STRING: Self = Self(8);
    pub(crate) const ARRAY: Self = Self(16);
    pub(crate) const OBJECT: Self = Self(32);
    /// What no type was said of.
    pub(crate) const SCALAR: Self = Self(1 | 2 | 4 | 8);

    pub(crate) fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }
    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
    fn named(word: &str) -> Self {
        match word {
            "null" => Self::NULL,
            "boolean" => Self::BOOLEAN,
            "integer" | "number" => Self::NUMBER,
            "string" => Self::STRING,
            "array" => Self::ARRAY,
            "object" => Self::OBJECT,
            _ => Self::default(),
        }
    }
    fn of(value: &Value) -> Self {
        Self::named(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        })
    }
}

/// One schema.
#[derive(Default)]
struct Node {
    place: String,
    /// What one look at a value costs.
    weight: u64,
    /// Schemas that look at the same value.
    same: Vec<usize>,
    /// Those of them that say what the value may be.
    says: Vec<usize>,
    /// Schemas of which one looks at each value within.
    one_of: Vec<usize>,
    /// Schemas that look at each value within, besides.
    each: Vec<usize>,
    /// `unevaluated…` goes through everything twice.
    twice: bool,
    types: Types,
    items: Option<usize>,
    properties: Vec<(String, usize)>,
}

/// A schema with all that it refers to; it is the first of the nodes.
pub(crate) struct Graph {
    nodes: Vec<Node>,
    /// The components that are needed for it.
    pub(crate) components: BTreeSet<(String, String)>,
}

/// A graph in the making.
struct Growing<'d> {
    document: &'d Value,
    graph: Graph,
    known: HashMap<*const Value, usize>,
    todo: Vec<(usize, &'d Value)>,
}

impl Graph {
    /// The graph of a schema of the document. Refuses what could not be bounded.
    pub(crate) fn of(document: &Value, schema: &Value, pointer: &str) -> Result<Self, Problem> {
        let graph = Self { nodes: Vec::new(), components: BTreeSet::new() };
        let mut growing = Growing { document, graph, known: HashMap::new(), todo: Vec::new() };
        growing.node(schema, pointer)?;
        while let Some((index, schema)) = growing.todo.pop() {
            growing.look(index, schema)?;
        }
        Ok(growing.graph)
    }

    /// How many schemas it consists of.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// What values may be by it; nothing is everything.
    pub(crate) fn types(&self, from: usize) -> Types {
        let mut types = Types::default();
        self.through(from, |node| types.add(node.types));
        types
    }

    /// What its items may be.
    pub(crate) fn item_types(&self) -> Types {
        let mut items = Vec::new();
        self.through(0, |node| items.extend(node.items));
        let mut types = Types::default();
        items.into_iter().for_each(|item| types.add(self.types(item)));
        types
    }

    /// What its properties may be.
    pub(crate) fn property_types(&self) -> BTreeMap<String, Types> {
        let mut all = BTreeMap::new();
        self.through(0, |node| all.extend(node.properties.iter().cloned()));
        all.into_iter().map(|(name, index)| (name, self.types(index))).collect()
    }

    /// Goes through what says what a value may be.
    fn through(&self, from: usize, mut look: impl FnMut(&Node)) {
        let (mut seen, mut todo) = (BTreeSet::from([from]), vec![from]);
        while let Some(node) = todo.pop().map(|index| &self.nodes[index]) {
            look(node);
            todo.extend(node.says.iter().filter(|index| seen.insert(**index)));
        }
    }

    /// For each level, the most that one value there can cost.
    pub(crate) fn levels(&self) -> Result<Box<[u64]>, Problem> {
        let order = self.inside_first()?;
        let mut before: Vec<u64> = vec![0; self.nodes.len()];
        let mut levels = Vec::with_capacity(LEVELS);
        for level in 0..LEVELS {
            let mut now = vec![0_u64; self.nodes.len()];
            for index in &order {
                let node = &self.nodes[*index];
                let sum =
                    |of: &[u64], which: &[usize]| which.iter().fold(0_u64, |s, i| s.saturating_add(of[*i]));
                let within = sum(&before, &node.each)
                    .saturating_add(node.one_of.iter().map(|i| before[*i]).max().unwrap_or(0));
                let own = if level == 0 { node.weight } else { within };
                let all = own.saturating_add(sum(&now, &node.same));
                now[*index] = if node.twice { all.saturating_mul(2) } else { all };
            }
            levels.push(now[0]);
            before = now;
        }
        // Mostly there are few levels.
        let used = levels.iter().rposition(|cost| *cost > 0).map_or(0, |last| last + 1);
        levels.truncate(used);
        Ok(levels.into())
    }

    /// The schemas in such an order that those which look at the same value come before the one they belong to.
    fn inside_first(&self) -> Result<Vec<usize>, Problem> {
        let mut order = Vec::with_capacity(self.nodes.len());
        // 0: not yet; 1: begun; 2: done.
        let mut state = vec![0_u8; self.nodes.len()];
        for start in 0..self.nodes.len() {
            let mut stack = vec![(start, 0)];
            while let Some((index, next)) = stack.pop() {
                if next == 0 {
                    if state[index] == 2 {
                        continue;
                    }
                    state[index] = 1;
                }
                match self.nodes[index].same.get(next) {
                    None => {
                        state[index] = 2;
                        order.push(index);
                    }
                    Some(inner) => {
                        stack.push((index, next + 1));
                        if state[*inner] == 1 {
                            let place = &self.nodes[*inner].place;
                            return Err(Problem::at(place, "the schema is defined by itself"));
                        }
                        if state[*inner] == 0 {
                            stack.push((*inner, 0));
                        }
                    }
                }
            }
        }
        Ok(order)
    }
}

impl<'d> Growing<'d> {
    fn node(&mut self, schema: &'d Value, place: &str) -> Result<usize, Problem> {
        if let Some(known) = self.known.get(&std::ptr::from_ref(schema)) {
            return Ok(*known);
        }
        let index = self.graph.nodes.len();
        if index >= SCHEMAS {
            return Err(Problem::at(place, format!("consists of more than {SCHEMAS} schemas")));
        }
        self.graph.nodes.push(Node { place: place.to_owned(), weight: 1, ..Node::default() });
        self.known.insert(std::ptr::from_ref(schema), index);
        self.todo.push((index, schema));
        Ok(index)
    }

    fn look(&mut self, index: usize, schema: &'d Value) -> Result<(), Problem> {
        let place = std::mem::take(&mut self.graph.nodes[index].place);
        let mut node = Node { weight: 1, ..Node::default() };
        match schema {
            Value::Bool(_) => {}
            Value::Object(schema) => self.fill(&mut node, schema, &place)?,
            _ => return Err(Problem::at(&place, "a schema is an object, or true or false")),
        }
        node.place = place;
        self.graph.nodes[index] = node;
        Ok(())
    }

    fn fill(&mut self, node: &mut Node, schema: &'d Map<String, Value>, place: &str) -> Result<(), Problem> {
        if let Some(keyword) = REFUSED.iter().find(|keyword| schema.contains_key(**keyword)) {
            return Err(Problem::at(&below(place, keyword), "is not taken here"));
        }
        if let Some(dialect) = schema.get("$schema")
            && !dialect.as_str().is_some_and(|dialect| DIALECTS.contains(&dialect.trim_end_matches('#')))
        {
            return Err(Problem::at(&below(place, "$schema"), "only draft 2020-12 of JSON Schema is known"));
        }
        if let Some(reference) = schema.get("$ref") {
            let target = reference.as_str().and_then(pointer_of);
            let found = target
                .and_then(|target| Some((component(&target)?, self.document.pointer(&target)?, target)));
            let Some((name, value, target)) = found else {
                return Err(Problem::at(
                    place,
                    format!("{reference} leads nowhere within the document's components"),
                ));
            };
            self.graph.components.insert(name);
            let to = self.node(value, &target)?;
            node.same.push(to);
            node.says.push(to);
        }
        for (keyword, says) in [("allOf", true), ("anyOf", true), ("oneOf", true)] {
            let inner = self.list(schema, keyword, place)?;
            node.same.extend(&inner);
            node.says.extend(inner.into_iter().filter(|_| says));
        }
        for keyword in ["not", "if", "then", "else"] {
            node.same.extend(self.single(schema, keyword, place)?);
        }
        node.same.extend(self.map(schema, "dependentSchemas", place)?.into_iter().map(|(_, index)| index));
        node.properties = self.map(schema, "properties", place)?;
        node.items = self.single(schema, "items", place)?;
        node.one_of.extend(node.properties.iter().map(|(_, index)| *index));
        node.one_of.extend(node.items);
        node.one_of.extend(self.list(schema, "prefixItems", place)?);
        for keyword in ["additionalProperties", "unevaluatedProperties", "unevaluatedItems"] {
            node.one_of.extend(self.single(schema, keyword, place)?);
        }
        node.each.extend(self.map(schema, "patternProperties", place)?.into_iter().map(|(_, index)| index));
        for keyword in ["contains", "propertyNames"] {
            node.each.extend(self.single(schema, keyword, place)?);
        }
        node.twice = schema.contains_key("unevaluatedProperties") || schema.contains_key("unevaluatedItems");
        let long = |keyword: &str| {
            let value = schema.get(keyword);
            value.map_or(0, |v| v.as_array().map_or_else(|| v.as_object().map_or(0, Map::len), Vec::len))
        };
        let lists = long("enum") + long("required") + long("dependentRequired") + long("patternProperties");
        node.weight = 1 + (lists / 4) as u64;
        match schema.get("type") {
            Some(Value::String(one)) => node.types.add(Types::named(one)),
            Some(Value::Array(all)) => {
                all.iter().filter_map(Value::as_str).for_each(|one| node.types.add(Types::named(one)));
            }
            _ => {
                let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
                values.chain(schema.get("const")).for_each(|value| node.types.add(Types::of(value)));
            }
        }
        Ok(())
    }

    fn single(
        &mut self,
        schema: &'d Map<String, Value>,
        keyword: &str,
        place: &str,
    ) -> Result<Option<usize>, Problem> {
        schema.get(keyword).map(|inner| self.node(inner, &below(place, keyword))).transpose()
    }

    fn list(
        &mut self,
        schema: &'d Map<String, Value>,
        keyword: &str,
        place: &str,
    ) -> Result<Vec<usize>, Problem> {
        let Some(inner) = schema.get(keyword) else { return Ok(Vec::new()) };
        let place = below(place, keyword);
        let Value::Array(inner) = inner else { return Err(Problem::at(&place, "must be a list of schemas")) };
        inner.iter().enumerate().map(|(n, one)| self.node(one, &below(&place, &n.to_string()))).collect()
    }

    fn map(
        &mut self,
        schema: &'d Map<String, Value>,
        keyword: &str,
        place: &str,
    ) -> Result<Vec<(String, usize)>, Problem> {
        let Some(inner) = schema.get(keyword) else { return Ok(Vec::new()) };
        let place = below(place, keyword);
        let Value::Object(inner) = inner else {
            return Err(Problem::at(&place, "must be an object of schemas"));
        };
        inner.iter().map(|(key, one)| Ok((key.clone(), self.node(one, &below(&place, key))?))).collect()
    }
}

/// What checking this value costs at most, by a schema with these levels.
pub(crate) fn of(levels: &[u64], value: &Value) -> u64 {
    let Some((here, deeper)) = levels.split_first() else { return 0 };
    let within = |values: &mut dyn Iterator<Item = &Value>| {
        values.fold(0_u64, |sum, value| sum.saturating_add(of(deeper, value)))
    };
    here.saturating_add(match value {
        Value::Array(items) => within(&mut items.iter()),
        Value::Object(fields) => within(&mut fields.values()),
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn levels(schemas: Value) -> Result<Vec<u64>, String> {
        let document = json!({"components": {"schemas": schemas}});
        let schema = json!({"$ref": "#/components/schemas/A"});
        let graph = Graph::of(&document, &schema, "").map_err(|problem| problem.to_string())?;
        graph.levels().map(Vec::from).map_err(|problem| problem.to_string())
    }

    #[test]
    fn what_refers_to_itself_costs_as_much_on_each_level_and_twice_as_much_if_it_does_so_twice() {
        let list =
            levels(json!({"A": {"properties": {"value": {}, "next": {"$ref": "#/components/schemas/A"}}}}));
        let list = list.unwrap();
        assert_eq!((list.len(), list[1] == list[2], list[128] < 5), (129, true, true));
        let same = |n: &str| json!({"properties": {n: {"$ref": "#/components/schemas/A"}}});
        let tree = levels(json!({"A": {"allOf": [same("x"), same("x")]}})).unwrap();
        assert_eq!(tree[3], 2 * tree[2]);
        assert_eq!(*tree.last().unwrap(), u64::MAX, "and never wraps");
        let flat =
            levels(json!({"A": {"properties": {"a": {}, "b": {"items": {"type": "string"}}}}})).unwrap();
        assert_eq!(flat, [2, 1, 1]);
    }

    #[test]
    fn schemas_that_multiply_at_one_value_are_counted() {
        let mut schemas = json!({"S30": {}});
        for n in 0..30 {
            let next = json!({"$ref": format!("#/components/schemas/S{}", n + 1)});
            schemas[format!("S{n}")] = json!({"allOf": [next, next]});
        }
        schemas["A"] = json!({"$ref": "#/components/schemas/S0"});
        assert!(levels(schemas).unwrap()[0] > 1 << 30);
    }

    #[test]
    fn what_cannot_be_bounded_or_found_is_refused_by_its_place() {
        for (schemas, said) in [
            (
                json!({"A": {"allOf": [{"$ref": "#/components/schemas/A"}]}}),
                "#/components/schemas/A: the schema is defined by itself",
            ),
            (
                json!({"A": {"items": {"$ref": "other.yaml#/B"}}}),
                "#/components/schemas/A/items: \"other.yaml#/B\" leads nowhere",
            ),
            (json!({"A": {"$ref": "#/components/schemas/B"}}), "leads nowhere"),
            (
                json!({"A": {"properties": {"a": {"$id": "x"}}}}),
                "#/components/schemas/A/properties/a/$id: is not taken",
            ),
            (json!({"A": {"properties": []}}), "#/components/schemas/A/properties: must be an object"),
            (json!({"A": {"items": "x"}}), "#/components/schemas/A/items: a schema is an object"),
        ] {
            let refused = levels(schemas.clone()).unwrap_err();
            assert!(refused.contains(said), "{schemas}: {refused}");
        }
    }

    #[test]
    fn a_value_costs_what_its_levels_do() {
        let value = json!({"a": [1, 2, 3], "b": {}});
        assert_eq!(of(&[5, 3, 2], &value), 5 + 2 * 3 + 3 * 2);
        assert_eq!(of(&[5], &value), 5);
        assert_eq!(of(&[u64::MAX, 1], &value), u64::MAX);
    }
}
