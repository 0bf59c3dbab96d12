//! What is wanted, and what is there, in one form: each object with its settings, a path to a value each. Pure.

use std::collections::BTreeMap;

use davit_api::{
    AliasSettings, AliasView, CanaryState, Digest, FunctionDetail, FunctionName, LIVE, NewSource,
    NewSubscription, ProjectObject, ScheduleName, ScheduleSpec, SourceView, SubscriptionView, VersionSpec,
    VersionView,
};
use serde::Serialize;
use serde_json::Value;

/// A path such as `memory_mb` or `schedules.nightly.cron`, and the value.
pub(super) type Settings = BTreeMap<String, Value>;
/// Objects with their settings.
pub(super) type Objects = BTreeMap<ProjectObject, Settings>;

/// Where the versions are that calls of a function go to, when it is not one alone.
const SHARES: &str = "live";

/// Lays a value out: objects by their keys, everything else as it is.
fn lay_out(prefix: &str, value: Value, into: &mut Settings) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                lay_out(&path, value, into);
            }
        }
        Value::Null => {}
        value => drop(into.insert(prefix.to_owned(), value)),
    }
}

fn of(value: &impl Serialize) -> Settings {
    let mut settings = Settings::new();
    lay_out("", serde_json::to_value(value).unwrap_or_default(), &mut settings);
    settings
}

/// A function as its folder has it.
pub(super) struct Wanted {
    pub(super) spec: VersionSpec,
    pub(super) source: Digest,
    pub(super) schedules: BTreeMap<ScheduleName, ScheduleSpec>,
}

impl Wanted {
    pub(super) fn settings(&self) -> Settings {
        function(&self.spec, &self.source, &self.schedules)
    }
}

fn function(
    spec: &VersionSpec,
    source: &Digest,
    schedules: &BTreeMap<ScheduleName, ScheduleSpec>,
) -> Settings {
    let mut settings = of(&VersionSpec { openapi: None, ..spec.clone() });
    let parts = spec.openapi.iter().flat_map(|document| document.parts());
    settings.extend(parts.map(|(path, part)| (path, part.clone())));
    settings.insert("source".into(), source.to_string().into());
    for (name, spec) in schedules {
        lay_out(&format!("schedules.{name}"), serde_json::to_value(spec).unwrap_or_default(), &mut settings);
    }
    settings
}

/// A function as it is; none when no version of it was ever live.
pub(super) fn function_there(detail: &FunctionDetail, wanted: Option<&Wanted>) -> Option<Settings> {
    let version = in_force(detail)?;
    let theirs = detail.schedules.iter().filter(|view| view.from_manifest);
    let schedules = theirs.map(|view| {
        let told = wanted.and_then(|w| w.schedules.get(&view.name));
        // A pause or its end by hand is nobody's change of the settings, and a deployment leaves it alone.
        let enabled = told.map_or(view.spec.enabled, |told| told.enabled);
        (view.name.clone(), ScheduleSpec { enabled, ..view.spec.clone() })
    });
    let mut settings = function(&version.spec, &version.source, &schedules.collect());
    if !is_moving(detail)
        && let Some(live) =
            detail.aliases.iter().find(|alias| alias.name.as_str() == LIVE && alias.versions.len() > 1)
    {
        let shares: Vec<String> =
            live.versions.iter().map(|v| format!("{} {}%", v.version, v.weight)).collect();
        settings.insert(SHARES.into(), shares.join(", ").into());
    }
    Some(settings)
}

fn is_moving(detail: &FunctionDetail) -> bool {
    detail.canary.as_ref().is_some_and(|canary| canary.state == CanaryState::Running)
}

/// The version that calls go to, or are on their way to in steps.
fn in_force(detail: &FunctionDetail) -> Option<&VersionView> {
    let coming = detail.canary.as_ref().filter(|_| is_moving(detail)).map(|canary| canary.version);
    detail.latest.as_ref().filter(|latest| Some(latest.number) == coming).or(detail.live.as_ref())
}

/// A secret whose value is compared where it lies: what is wanted is always the value that was given.
pub(super) fn secret(is_the_given_one: bool) -> Settings {
    of(&serde_json::json!({"value": if is_the_given_one { "as given" } else { "another" }}))
}

/// A topic has nothing but its name.
pub(super) fn topic() -> Settings {
    Settings::new()
}

pub(super) fn subscription(new: &NewSubscription) -> Settings {
    of(&serde_json::json!({"to": new.to, "settings": new.settings}))
}

pub(super) fn subscription_there(view: &SubscriptionView) -> Settings {
    of(&serde_json::json!({"to": view.to, "settings": view.settings}))
}

pub(super) fn source(new: &NewSource) -> Settings {
    source_of(&new.function, new.paused, &new.spec)
}

pub(super) fn source_there(view: &SourceView) -> Settings {
    source_of(&view.function, view.paused, &view.spec)
}

fn source_of(function: &FunctionName, paused: bool, spec: &impl Serialize) -> Settings {
    let mut settings = of(spec);
    settings.insert("function".into(), function.as_str().into());
    settings.insert("paused".into(), paused.into());
    settings
}

pub(super) fn alias(settings: &AliasSettings) -> Settings {
    of(settings)
}

pub(super) fn alias_there(view: &AliasView) -> Settings {
    let AliasView { versions, description, sticky, public, .. } = view.clone();
    of(&AliasSettings { versions, description, sticky, public })
}
