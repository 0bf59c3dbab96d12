//! What the files want, as objects with settings.

use std::collections::BTreeMap;

use davit_api::{FunctionName, NewSource, ProjectObject, ProjectSource};

use super::load::Given;
use super::settings::{self, Objects, Wanted};
use crate::failure::{Failure, Result};

/// Everything that the files name. A secret is among it when it has a place for its value, which may be empty here: then it
/// stays as it is.
pub(super) fn objects(given: &Given, functions: &BTreeMap<FunctionName, Wanted>) -> Result<Objects> {
    let mut objects = Objects::new();
    for (name, wanted) in functions {
        objects.insert(ProjectObject::Function(name.clone()), wanted.settings());
    }
    let Some(project) = &given.project else { return Ok(objects) };
    for name in given.secrets.keys().chain(given.not_given.keys()) {
        objects.insert(ProjectObject::Secret(name.clone()), settings::secret(true));
    }
    for topic in &project.file.topics {
        objects.insert(ProjectObject::Topic(topic.name.clone()), settings::topic());
        for one in &topic.subscriptions {
            let new = one.body().map_err(|text| Failure::Usage(text).at(project.place(one.name.as_str())))?;
            let object = ProjectObject::Subscription(topic.name.clone(), one.name.clone());
            objects.insert(object, settings::subscription(&new));
        }
    }
    for one in &project.file.sources {
        objects.insert(ProjectObject::Source(one.name.clone()), settings::source(&source(one)));
    }
    for alias in &project.file.aliases {
        let object = ProjectObject::Alias(alias.function.clone(), alias.name.clone());
        objects.insert(object, settings::alias(&alias.settings()));
    }
    Ok(objects)
}

/// A source as the API takes it.
pub(super) fn source(one: &ProjectSource) -> NewSource {
    NewSource {
        name: one.name.clone(),
        function: one.function.clone(),
        spec: one.spec.clone(),
        paused: one.paused,
    }
}
