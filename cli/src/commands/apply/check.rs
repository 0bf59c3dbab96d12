//! Whether everything that is named is there or will be: a name that leads nowhere is found before anything is changed. Pure,
//! but for the look at who says it.

use std::collections::BTreeSet;

use davit_api::{Destination, Destinations, FunctionName, ProjectObject, SecretName, TopicName, Webhook};

use super::load::{Folder, Given};
use crate::failure::{Failure, Result};

/// The objects that can be named: those that are there, and those that will be made.
pub(super) struct Known(pub(super) BTreeSet<ProjectObject>);

impl Known {
    fn function(&self, name: &FunctionName) -> Result<(), String> {
        let known = self.0.contains(&ProjectObject::Function(name.clone()));
        if known { Ok(()) } else { Err(format!("there is no function {name}, neither here nor in davit")) }
    }

    fn topic(&self, name: &TopicName) -> Result<(), String> {
        let known = self.0.contains(&ProjectObject::Topic(name.clone()));
        let text = format!("there is no topic {name}, neither in the project's file nor in davit");
        if known { Ok(()) } else { Err(text) }
    }

    fn secret(&self, name: &SecretName, given: &Given) -> Result<(), String> {
        if self.0.contains(&ProjectObject::Secret(name.clone())) {
            return Ok(());
        }
        Err(match given.not_given.get(name) {
            Some(place) => format!(
                "the secret {name} is not set, and neither is {place}, from where its value would come"
            ),
            None => format!("the secret {name} is not set: davit secret set {name}"),
        })
    }

    fn destination(&self, to: &Destination, given: &Given) -> Result<(), (String, String)> {
        match to {
            Destination::Function(name) => self.function(name).map_err(|e| (name.to_string(), e)),
            Destination::Topic(name) => self.topic(name).map_err(|e| (name.to_string(), e)),
            Destination::Webhook(hook) => self.webhook(hook, given),
        }
    }

    fn destinations(&self, to: &Destinations, given: &Given) -> Result<(), (String, String)> {
        [&to.on_success, &to.on_failure].into_iter().flatten().try_for_each(|to| self.destination(to, given))
    }

    fn webhook(&self, hook: &Webhook, given: &Given) -> Result<(), (String, String)> {
        hook.secret.iter().try_for_each(|name| self.secret(name, given).map_err(|e| (name.to_string(), e)))
    }

    fn folder(&self, folder: &Folder, given: &Given) -> Result<(), (String, String)> {
        let manifest = &folder.manifest;
        for secret in manifest.secrets.values().chain(manifest.secret_files.values()) {
            self.secret(secret, given).map_err(|e| (secret.to_string(), e))?;
        }
        self.destinations(&manifest.destinations, given)?;
        for one in &manifest.subscriptions {
            // Alone, a function's deployment makes the topic; in a project a name that nobody else says is a slip.
            if given.project.is_some() {
                self.topic(&one.topic).map_err(|e| (one.topic.to_string(), e))?;
            }
            self.destinations(&one.destinations, given)?;
        }
        Ok(())
    }

    fn project(&self, given: &Given) -> Result<(), (String, String)> {
        let Some(project) = given.project.as_ref().map(|p| &p.file) else { return Ok(()) };
        for name in project.secrets.keys() {
            self.secret(name, given).map_err(|e| (name.to_string(), e))?;
        }
        for one in project.topics.iter().flat_map(|topic| &topic.subscriptions) {
            match (&one.function, &one.webhook) {
                (Some(name), _) => self.function(name).map_err(|e| (name.to_string(), e))?,
                (None, Some(hook)) => self.webhook(hook, given)?,
                (None, None) => {}
            }
            self.destinations(&one.settings.destinations, given)?;
        }
        for source in &project.sources {
            self.function(&source.function).map_err(|e| (source.function.to_string(), e))?;
            if let Some(secret) = source.spec.secret() {
                self.secret(secret, given).map_err(|e| (secret.to_string(), e))?;
            }
        }
        for alias in &project.aliases {
            self.function(&alias.function).map_err(|e| (alias.function.to_string(), e))?;
        }
        Ok(())
    }
}

/// Refuses the first name that leads nowhere, with the file and the line that says it.
pub(super) fn names(given: &Given, known: &Known) -> Result<()> {
    for folder in given.functions.values() {
        known
            .folder(folder, given)
            .map_err(|(name, text)| Failure::Usage(format!("{}: {text}", folder.place(&name))))?;
    }
    let Some(project) = &given.project else { return Ok(()) };
    known.project(given).map_err(|(name, text)| Failure::Usage(format!("{}: {text}", project.place(&name))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_api::ProjectFile;

    fn refused(project: &str, function: &str, known: &[&str]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let head = "name = \"a\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n";
        std::fs::write(dir.path().join("a/davit.toml"), format!("{head}{function}")).unwrap();
        std::fs::write(dir.path().join(ProjectFile::NAME), format!("name = \"p\"\n{project}")).unwrap();
        let given = Given::read(dir.path()).unwrap();
        let known = Known(known.iter().map(|o| o.parse().unwrap()).collect());
        let root = format!("{}/", dir.path().display());
        names(&given, &known).err().map(|failure| failure.to_string().replace(&root, ""))
    }

    #[test]
    fn a_name_that_leads_nowhere_is_said_with_file_and_line() {
        let all = ["function/a", "topic/t", "secret/s"];
        let subscribed = "[[subscriptions]]\ntopic = \"t\"\n[secrets]\nS = \"s\"\n";
        assert_eq!(refused("", subscribed, &all), None);
        let text = refused("", subscribed, &["function/a", "secret/s"]).unwrap();
        assert!(text.starts_with("a/davit.toml, line 5: there is no topic t"), "{text}");
        let text = refused("", subscribed, &["function/a", "topic/t"]).unwrap();
        assert!(
            text.starts_with("a/davit.toml, line 7: the secret s is not set: davit secret set s"),
            "{text}"
        );
        let text = refused("[secrets]\ns = { env = \"DAVIT_NO_SUCH\" }\n", "", &["function/a"]).unwrap();
        assert!(text.starts_with("davit.project.toml, line 3: the secret s is not set, and neither is the environment variable DAVIT_NO_SUCH"), "{text}");
        let text = refused("", "[destinations]\non_failure = { function = \"gone\" }\n", &all).unwrap();
        assert!(text.starts_with("a/davit.toml, line 5: there is no function gone"), "{text}");
        let source = "[[sources]]\nname = \"x\"\nfunction = \"b\"\nkind = \"webhook\"\nverify = \"none\"\n";
        let text = refused(source, "", &all).unwrap();
        assert!(text.starts_with("davit.project.toml, line 4: there is no function b"), "{text}");
    }
}
