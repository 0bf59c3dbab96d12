//! Two versions' settings as paths and values. Pure.

use std::collections::{BTreeMap, BTreeSet};

use davit_api::{Change, ScheduleName, ScheduleSpec, VersionSpec};
use serde_json::Value;

/// Longest value that is shown, in characters.
const SHOWN: usize = 200;

/// How a version runs, and when.
pub(super) type Settings = (VersionSpec, Vec<(ScheduleName, ScheduleSpec)>);

/// What is not the same, by path.
pub(super) fn changes(old: &Settings, new: &Settings) -> Vec<Change> {
    let (old, new) = (flat(old), flat(new));
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = paths.into_iter().filter(|path| old.get(*path) != new.get(*path));
    differ
        .map(|path| {
            let shown = |value: Option<&String>| value.map(|value| show(path, value));
            Change { setting: path.clone(), old: shown(old.get(path)), new: shown(new.get(path)) }
        })
        .collect()
}

/// Values of the environment may be secrets that somebody put into the wrong table.
fn show(path: &str, value: &str) -> String {
    if path.starts_with("env.") {
        return "(not shown)".to_owned();
    }
    let mut text: String = value.chars().take(SHOWN).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    text
}

/// Paths and values. What is a list of named things is known by their names, so that another order is no change.
fn flat((spec, schedules): &Settings) -> BTreeMap<String, String> {
    let mut into = BTreeMap::new();
    let mut tree = serde_json::to_value(spec).unwrap_or_default();
    if let Value::Object(fields) = &mut tree {
        // Written out below.
        fields.remove("routes");
        fields.remove("subscriptions");
        fields.remove("openapi");
    }
    walk("", &tree, &mut into);
    for route in &spec.routes {
        let host = route.host.as_ref().map_or("", |host| host.as_str());
        let path = format!("routes[{} {host}{}]", route.method, route.path.as_str());
        let mut rest = serde_json::to_value(route).unwrap_or_default();
        if let Value::Object(fields) = &mut rest {
            fields.retain(|name, _| !matches!(name.as_str(), "host" | "method" | "path" | "payload"));
        }
        let more = rest.as_object().filter(|fields| !fields.is_empty()).map(|_| format!(", {rest}"));
        into.insert(path, format!("payload {}{}", text(&route.payload), more.unwrap_or_default()));
    }
    for (path, part) in spec.openapi.iter().flat_map(|document| document.parts()) {
        into.insert(path, part.to_string());
    }
    for one in &spec.subscriptions {
        into.insert(format!("subscriptions[{}]", one.topic), text(one));
    }
    for (name, schedule) in schedules {
        walk(&format!("schedules.{name}"), &serde_json::to_value(schedule).unwrap_or_default(), &mut into);
    }
    into
}

fn text(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn walk(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(&path, value, into);
            }
        }
        // The same as nothing.
        Value::Null => {}
        Value::String(text) => drop(into.insert(path.to_owned(), text.clone())),
        other => drop(into.insert(path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_api::FunctionKind;
    use serde_json::json;

    fn spec(change: impl FnOnce(&mut Value)) -> VersionSpec {
        let spec = VersionSpec::new("python3.13".parse().unwrap(), FunctionKind::Handler);
        let mut value = serde_json::to_value(spec).unwrap();
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_changed_is_told_and_no_value_of_the_environment() {
        let old = spec(|s| {
            s["env"] = json!({"STAGE": "test", "GONE": "x"});
            s["routes"] = json!([{"method": "GET", "path": "/a"}, {"method": "GET", "path": "/b"}]);
        });
        let new = spec(|s| {
            s["memory_mb"] = json!(512);
            s["env"] = json!({"STAGE": "hush", "KEY": "y"});
            s["routes"] = json!([{"method": "GET", "path": "/b"}, {"method": "POST", "path": "/a"}]);
        });
        let every: ScheduleSpec = serde_json::from_value(json!({"cron": "0 3 * * *"})).unwrap();
        let found = changes(&(old.clone(), vec![]), &(new, vec![("nightly".parse().unwrap(), every)]));
        let line = |c: &Change| {
            format!("{} {} {}", c.setting, c.old.as_deref().unwrap_or("-"), c.new.as_deref().unwrap_or("-"))
        };
        let lines: Vec<_> = found.iter().map(line).collect();
        for wanted in [
            "env.GONE (not shown) -",
            "env.KEY - (not shown)",
            "env.STAGE (not shown) (not shown)",
            "memory_mb 256 512",
            "schedules.nightly.cron - 0 3 * * *",
        ] {
            assert!(lines.iter().any(|l| l == wanted), "{wanted} {lines:#?}");
        }
        assert!(lines.iter().any(|l| l.starts_with("routes[GET /a] payload")));
        assert!(!lines.iter().any(|l| l.contains("/b") || l.contains("hush")), "{lines:#?}");
        assert_eq!(changes(&(old.clone(), vec![]), &(old, vec![])), []);
    }
}
