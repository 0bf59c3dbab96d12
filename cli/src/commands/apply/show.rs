//! A plan as people read it.

use std::io::IsTerminal;

use davit_api::{Change, NamespaceName, ProjectObject};

use super::load::Given;
use super::plan::{Plan, Verb};
use crate::escape::visible;
use crate::output::{Colour, line, note, paint};

/// Settings of one object that are shown; more are counted.
const CHANGES: usize = 12;

/// Prints it.
pub(super) fn plan(plan: &Plan, given: &Given, namespace: &NamespaceName, prune: bool) {
    let terminal = std::io::stdout().is_terminal();
    let what = match &given.project {
        Some(project) => format!("project {}", project.file.name),
        None => format!("{} functions", given.functions.len()),
    };
    note(format!("{what} in namespace {namespace}"));
    for step in &plan.steps {
        let (sign, colour, word) = match step.action {
            Verb::Create => ("+", Colour::Green, "is new"),
            Verb::Update => ("~", Colour::Dim, "changes"),
            Verb::Replace => ("±", Colour::Red, "is removed and made anew"),
            Verb::TakeOver => ("=", Colour::Dim, "is there as it should be, and becomes this project's"),
            Verb::Remove => ("-", Colour::Red, "is removed"),
        };
        line(format!("{} {} {word}", paint(colour, sign, terminal), step.object));
        for change in step.changes.iter().take(CHANGES) {
            line(format!("    {}", visible(&said(change))));
        }
        if step.changes.len() > CHANGES {
            line(format!("    and {} more", step.changes.len() - CHANGES));
        }
    }
    for (name, place) in &given.not_given {
        note(format!("secret/{name} stays as it is: {place} is not set"));
    }
    if !plan.left.is_empty() {
        let names: Vec<String> = plan.left.iter().map(ToString::to_string).collect();
        let text = format!("no longer in the project, and left alone: {}", names.join(", "));
        note(if prune { text } else { format!("{text} (--prune removes them)") });
    }
}

/// What is to be done, in numbers.
pub(super) fn sum(plan: &Plan) -> String {
    let count = |verbs: &[Verb]| plan.steps.iter().filter(|step| verbs.contains(&step.action)).count();
    let parts = [
        (count(&[Verb::Create]), "new"),
        (count(&[Verb::Update, Verb::Replace]), "changed"),
        (count(&[Verb::TakeOver]), "taken over"),
        (count(&[Verb::Remove]), "removed"),
        (plan.unchanged.len(), "unchanged"),
    ];
    let said: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if said.is_empty() { "nothing".into() } else { said.join(", ") }
}

fn said(Change { setting, old, new }: &Change) -> String {
    let short = |text: &String| {
        // A digest says as much by its beginning.
        let text = match text.strip_prefix("sha256:") {
            Some(digest) => digest.get(..12).unwrap_or(digest),
            None => text,
        };
        let cut: String = text.chars().take(60).collect();
        if cut.len() < text.len() { format!("{cut}…") } else { cut }
    };
    match (old, new) {
        (Some(old), Some(new)) if old == new => format!("{setting}: another value"),
        (old, new) => {
            let side = |side: &Option<String>| side.as_ref().map_or_else(|| "-".to_owned(), short);
            format!("{setting}: {} → {}", side(old), side(new))
        }
    }
}

/// Names of objects in a sentence.
pub(super) fn removed(plan: &Plan) -> Vec<&ProjectObject> {
    plan.steps.iter().filter(|step| step.action == Verb::Remove).map(|step| &step.object).collect()
}
