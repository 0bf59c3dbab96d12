//! From what is wanted and what is there to what is to be done. Pure: the same two give the same plan.

use std::collections::{BTreeMap, BTreeSet};

use davit_api::{Change, ProjectObject};
use serde::Serialize;
use serde_json::Value;

use super::settings::{Objects, Settings};

/// What is to be done with one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verb {
    /// It is not there.
    Create,
    /// It is different.
    Update,
    /// It is different in what cannot be changed: it is removed and made again.
    Replace,
    /// It is as it should be, and becomes this project's.
    TakeOver,
    /// It is this project's, and no longer wanted.
    Remove,
}

/// One object that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    /// What it is.
    pub(super) object: ProjectObject,
    /// What is done with it.
    pub(super) action: Verb,
    /// The settings that differ, of an update or a replacement.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<Change>,
}

/// What is to be done, in order: what others need comes first, and is removed last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Plan {
    /// What is not as it should be.
    pub(super) steps: Vec<Step>,
    /// What is.
    pub(super) unchanged: Vec<ProjectObject>,
    /// What is this project's, is no longer wanted, and stays, since nobody asked for its removal.
    pub(super) left: Vec<ProjectObject>,
    /// Why it cannot be carried out.
    pub(super) refused: Vec<String>,
}

/// What earlier applies have written down.
#[derive(Debug, Clone, Default)]
pub(super) struct Owners {
    /// What is this project's; none where there is no project and nothing is written down.
    pub(super) own: Option<BTreeSet<ProjectObject>>,
    /// What is others', with their names.
    pub(super) others: BTreeMap<ProjectObject, String>,
}

impl Plan {
    /// Compares. `there` has everything that is wanted or owned, if it is there. Only what is owned is ever removed, and
    /// that only with `prune`.
    pub(super) fn of(wanted: &Objects, there: &Objects, owners: &Owners, prune: bool) -> Self {
        let mut plan = Self::default();
        for (object, settings) in wanted {
            if let Some(other) = owners.others.get(object) {
                plan.refused.push(format!("{object} is the project {other}'s"));
                continue;
            }
            let step = |action, changes| Step { object: object.clone(), action, changes };
            match there.get(object).map(|is| differences(object, is, settings)) {
                None => plan.steps.push(step(Verb::Create, Vec::new())),
                Some(changes) if changes.is_empty() => {
                    if owners.own.as_ref().is_none_or(|own| own.contains(object)) {
                        plan.unchanged.push(object.clone());
                    } else {
                        plan.steps.push(step(Verb::TakeOver, changes));
                    }
                }
                Some(changes) => match how(object, &there[object], &changes) {
                    Ok(action) => plan.steps.push(step(action, changes)),
                    Err(why) => plan.refused.push(format!("{object}: {why}")),
                },
            }
        }
        let own = owners.own.iter().flatten();
        let mut gone: Vec<&ProjectObject> =
            own.filter(|object| !wanted.contains_key(*object) && there.contains_key(*object)).collect();
        gone.sort();
        if prune {
            let step = |object: &&ProjectObject| Step {
                object: (*object).clone(),
                action: Verb::Remove,
                changes: Vec::new(),
            };
            plan.steps.extend(gone.iter().rev().map(step));
        } else {
            plan.left.extend(gone.into_iter().cloned());
        }
        plan
    }

    /// What is this project's when the plan is carried out.
    pub(super) fn owned(&self, wanted: &Objects) -> BTreeSet<ProjectObject> {
        wanted.keys().chain(&self.left).cloned().collect()
    }

    /// Whether everything is as it should be.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

fn how(object: &ProjectObject, is: &Settings, changes: &[Change]) -> Result<Verb, &'static str> {
    let ProjectObject::Source(_) = object else { return Ok(Verb::Update) };
    if changes.iter().all(|change| change.setting == "paused") {
        return Ok(Verb::Update);
    }
    // Events that were not fetched would be lost with it.
    if is.get("kind").and_then(Value::as_str) == Some("postgres") {
        return Err(
            "a source of table changes cannot be changed in place; delete it with `davit source delete` when it has delivered everything, and apply again",
        );
    }
    Ok(Verb::Replace)
}

/// The settings that differ. Values of environment variables and secrets are not shown.
fn differences(object: &ProjectObject, is: &Settings, wanted: &Settings) -> Vec<Change> {
    let all: BTreeSet<&String> = is.keys().chain(wanted.keys()).collect();
    let hidden = |setting: &str| matches!(object, ProjectObject::Function(_)) && setting.starts_with("env.");
    let shown = |setting: &str, value: Option<&Value>| {
        value.map(|value| if hidden(setting) { "(a value)".into() } else { text(value) })
    };
    all.into_iter()
        .filter(|setting| is.get(*setting) != wanted.get(*setting))
        .map(|setting| Change {
            setting: setting.clone(),
            old: shown(setting, is.get(setting)),
            new: shown(setting, wanted.get(setting)),
        })
        .collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;

    fn object() -> impl Strategy<Value = ProjectObject> {
        let texts = [
            "secret/a",
            "topic/a",
            "topic/b",
            "function/a",
            "function/b",
            "subscription/a/a",
            "source/a",
            "alias/a/a",
        ];
        prop::sample::select(texts.to_vec()).prop_map(|text| text.parse().unwrap())
    }

    fn objects() -> impl Strategy<Value = Objects> {
        let settings = btree_map("[ab]|env\\.A|paused", (0..3).prop_map(Value::from), 0..3);
        btree_map(object(), settings, 0..6)
    }

    /// The world after the plan.
    fn carried_out(plan: &Plan, wanted: &Objects, there: &Objects) -> Objects {
        let mut world = there.clone();
        for step in &plan.steps {
            match step.action {
                Verb::Remove => drop(world.remove(&step.object)),
                _ => drop(world.insert(step.object.clone(), wanted[&step.object].clone())),
            }
        }
        world
    }

    proptest! {
        #[test]
        fn a_plan_that_is_carried_out_leaves_nothing_to_do(
            wanted in objects(), there in objects(), own in btree_set(object(), 0..4), prune: bool,
        ) {
            let owners = Owners { own: Some(own.clone()), others: BTreeMap::new() };
            let plan = Plan::of(&wanted, &there, &owners, prune);
            let world = carried_out(&plan, &wanted, &there);
            for (object, settings) in &wanted {
                prop_assert_eq!(world.get(object), Some(settings));
            }
            for (object, settings) in &there {
                let mine = wanted.contains_key(object) || (prune && own.contains(object));
                prop_assert!(mine || world.get(object) == Some(settings), "{} is not ours", object);
                prop_assert!(!(prune && own.contains(object) && !wanted.contains_key(object) && world.contains_key(object)));
            }
            let later = Owners { own: Some(plan.owned(&wanted)), others: BTreeMap::new() };
            let again = Plan::of(&wanted, &world, &later, prune);
            prop_assert!(again.is_empty(), "{:?}", again);
            prop_assert_eq!(again.owned(&wanted), plan.owned(&wanted));
        }

        #[test]
        fn what_is_others_is_never_touched(wanted in objects(), there in objects(), theirs in btree_set(object(), 0..4)) {
            let others: BTreeMap<_, _> = theirs.iter().map(|o| (o.clone(), "blog".to_owned())).collect();
            let plan = Plan::of(&wanted, &there, &Owners { own: Some(BTreeSet::new()), others }, true);
            for step in &plan.steps {
                prop_assert!(!theirs.contains(&step.object));
                prop_assert!(step.action != Verb::Remove);
            }
            prop_assert_eq!(plan.refused.len(), wanted.keys().filter(|o| theirs.contains(o)).count());
        }

        #[test]
        fn what_others_need_is_made_first_and_removed_last(wanted in objects(), there in objects(), own in btree_set(object(), 0..6)) {
            let plan = Plan::of(&wanted, &there, &Owners { own: Some(own), others: BTreeMap::new() }, true);
            let (removed, made): (Vec<_>, Vec<_>) = plan.steps.iter().partition(|s| s.action == Verb::Remove);
            prop_assert!(made.is_sorted_by(|a, b| a.object < b.object));
            prop_assert!(removed.is_sorted_by(|a, b| a.object > b.object));
            prop_assert!(plan.steps[..made.len()].iter().all(|s| s.action != Verb::Remove), "removals come last");
        }
    }

    fn one(object: &str, settings: Value) -> Objects {
        let mut laid_out = Settings::new();
        for (key, value) in settings.as_object().unwrap() {
            laid_out.insert(key.clone(), value.clone());
        }
        BTreeMap::from([(object.parse().unwrap(), laid_out)])
    }

    #[test]
    fn differences_name_the_setting_and_hide_values_of_the_environment() {
        let wanted = one("function/a", serde_json::json!({"memory_mb": 512, "env.KEY": "new"}));
        let there =
            one("function/a", serde_json::json!({"memory_mb": 256, "env.KEY": "old", "handler": "app.f"}));
        let plan = Plan::of(&wanted, &there, &Owners::default(), false);
        assert_eq!(plan.steps[0].action, Verb::Update);
        let said: Vec<String> = plan.steps[0]
            .changes
            .iter()
            .map(|c| format!("{} {:?} {:?}", c.setting, c.old.as_deref(), c.new.as_deref()))
            .collect();
        let hidden = "env.KEY Some(\"(a value)\") Some(\"(a value)\")";
        assert_eq!(said, [hidden, "handler Some(\"app.f\") None", "memory_mb Some(\"256\") Some(\"512\")"]);
    }

    #[test]
    fn a_source_is_paused_in_place_replaced_or_left_to_people() {
        let verb = |kind: &str, change: Value| {
            let there = one("source/a", serde_json::json!({"kind": kind, "paused": false, "header": "x"}));
            let mut wanted = there.clone();
            for (key, value) in change.as_object().unwrap() {
                wanted.values_mut().next().unwrap().insert(key.clone(), value.clone());
            }
            let plan = Plan::of(&wanted, &there, &Owners::default(), false);
            (plan.steps.first().map(|step| step.action), plan.refused.len())
        };
        assert_eq!(verb("postgres", serde_json::json!({"paused": true})), (Some(Verb::Update), 0));
        assert_eq!(verb("webhook", serde_json::json!({"header": "y"})), (Some(Verb::Replace), 0));
        assert_eq!(verb("postgres", serde_json::json!({"header": "y"})), (None, 1));
    }

    #[test]
    fn without_a_project_nothing_is_owned_or_removed() {
        let wanted = one("function/a", serde_json::json!({}));
        let there: Objects =
            [one("function/a", serde_json::json!({})), one("function/b", serde_json::json!({}))]
                .into_iter()
                .flatten()
                .collect();
        let plan = Plan::of(&wanted, &there, &Owners::default(), true);
        assert!(plan.is_empty() && plan.unchanged.len() == 1 && plan.left.is_empty());
    }
}
