//! What a runtime image says about its own build program: for which sources that program only packs what it was
//! given, so that the controller may do it without a container of its own. It comes as the image's label, made
//! from the `[direct]` table of `runtime-images/<runtime>/runtime.toml`; an image without it always gets a builder.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use serde::Deserialize;

use crate::backend::ImageId;
use crate::world::World;

/// Label with the text of the image's `runtime.toml`.
pub(crate) const LABEL: &str = "davit.runtime-toml";
/// Longest label that is read, in bytes.
const LABEL_BYTES: usize = 64 * 1024;
/// Images that are remembered.
const IMAGES: usize = 64;
/// A program's first line is looked at so far, in bytes; the build program looks no further either.
const FIRST_LINE: usize = 64;

/// When an image's build program packs and does nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    /// Files in the source's top folder that the build program installs something for.
    #[serde(default)]
    unless: Vec<String>,
    /// Names, at any depth, that the build program treats in a way of its own.
    #[serde(default)]
    unless_anywhere: Vec<String>,
    /// Endings of names, at any depth, of files that the build program compiles.
    #[serde(default)]
    unless_ending: Vec<String>,
    /// JSON files in the top folder that matter only when they have one of these keys.
    #[serde(default)]
    unless_keys: BTreeMap<String, Vec<String>>,
    /// Files in the top folder that have to be executable, and whose first line must not end in a carriage return.
    #[serde(default)]
    programs: Vec<String>,
    /// What a warm container of the image adds to the source.
    pub(super) prepare: Option<Prepare>,
}

/// A handler in the image that gets some of the source's files and answers with files to add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prepare {
    /// Its name, as a function's handler is named.
    pub(super) handler: String,
    /// Environment that lets the runtime find it.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Ending of the files that it gets; without such a file it is not called.
    pub(super) ending: String,
}

/// As much of a file as the rules look at.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Whether it is a folder.
    pub(super) folder: bool,
    /// Whether it may be executed.
    pub(super) executable: bool,
    /// Its content, for files that [`Recipe::looks_into`] names.
    pub(super) content: Vec<u8>,
}

/// The recipes of the images seen so far: an image's content never changes, so neither does its label.
#[derive(Debug, Default)]
pub(crate) struct Recipes(Mutex<HashMap<ImageId, Option<Recipe>>>);

impl Recipes {
    /// An image's recipe; `None` where a builder is always needed.
    pub(super) async fn of(&self, world: &World, image: &ImageId) -> Option<Recipe> {
        if let Some(known) = self.0.lock().get(image) {
            return known.clone();
        }
        // An engine that does not answer costs a builder, not the build.
        let label = world.backend.image_label(image, LABEL).await.ok()?;
        let recipe = label.as_deref().and_then(Recipe::parse);
        let mut known = self.0.lock();
        if known.len() >= IMAGES {
            known.clear();
        }
        known.insert(image.clone(), recipe.clone());
        recipe
    }
}

#[derive(Deserialize)]
struct RuntimeToml {
    direct: Option<Recipe>,
    /// Nothing that the runtime does before it gets its function depends on how much memory and CPU there is.
    #[serde(default)]
    resizable: bool,
}

impl RuntimeToml {
    /// What a label says. One that cannot be read says nothing: a newer image may say more than this davit knows.
    fn parse(label: &str) -> Option<Self> {
        (label.len() <= LABEL_BYTES).then(|| toml::from_str(label).ok())?
    }
}

/// Whether a waiting instance of an image with this label may be given another size.
pub(crate) fn is_resizable(label: &str) -> bool {
    RuntimeToml::parse(label).is_some_and(|toml| toml.resizable)
}

impl Recipe {
    /// The recipe in a label, if it has one.
    pub(super) fn parse(label: &str) -> Option<Self> {
        RuntimeToml::parse(label)?.direct
    }

    /// Whether [`Self::needs_builder`] wants to see the content of this file.
    pub(super) fn looks_into(&self, path: &str) -> bool {
        self.unless_keys.contains_key(path) || self.programs.iter().any(|name| name == path)
    }

    /// Why this source needs the build program; `None` when packing is all there is to do.
    pub(super) fn needs_builder(&self, files: &BTreeMap<String, Facts>) -> Option<String> {
        if let Some(name) = self.unless.iter().find(|name| files.contains_key(*name)) {
            return Some(format!("{name} is there"));
        }
        let special =
            |path: &&String| path.split('/').any(|part| self.unless_anywhere.iter().any(|u| u == part));
        if let Some(path) = files.keys().find(special) {
            return Some(format!("{path} is there"));
        }
        let compiled = |path: &&String| self.unless_ending.iter().any(|ending| path.ends_with(ending));
        if let Some(path) = files.keys().find(compiled) {
            return Some(format!("{path} is there"));
        }
        for (name, keys) in &self.unless_keys {
            let Some(facts) = files.get(name) else { continue };
            let object: Result<serde_json::Map<String, serde_json::Value>, _> =
                serde_json::from_slice(&facts.content);
            match object {
                Ok(object) => {
                    if let Some(key) = keys.iter().find(|key| object.contains_key(*key)) {
                        return Some(format!("{name} has {key}"));
                    }
                }
                Err(_) => return Some(format!("{name} is not a JSON object")),
            }
        }
        let unfit = |name: &&String| {
            files.get(*name).is_some_and(|f| !f.folder && (!f.executable || ends_in_return(&f.content)))
        };
        self.programs.iter().find(unfit).map(|name| format!("{name} is not ready to be executed"))
    }
}

fn ends_in_return(content: &[u8]) -> bool {
    let head = content.get(..FIRST_LINE).unwrap_or(content);
    head.starts_with(b"#!") && head.split(|b| *b == b'\n').next().is_some_and(|line| line.contains(&b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(runtime: &str) -> Recipe {
        let path = format!("{}/../runtime-images/{runtime}/runtime.toml", env!("CARGO_MANIFEST_DIR"));
        Recipe::parse(&std::fs::read_to_string(path).unwrap()).expect("every shipped runtime has a recipe")
    }

    fn needs(runtime: &str, files: &[(&str, bool, &str)]) -> Option<String> {
        let facts = files.iter().map(|(path, executable, content)| {
            let facts =
                Facts { folder: false, executable: *executable, content: content.as_bytes().to_vec() };
            ((*path).to_owned(), facts)
        });
        shipped(runtime).needs_builder(&facts.collect())
    }

    #[test]
    fn code_alone_needs_no_builder() {
        assert_eq!(needs("python3.13", &[("app.py", false, ""), ("sub/requirements.txt", false, "")]), None);
        assert_eq!(needs("node20", &[("index.js", false, "")]), None);
        assert_eq!(
            needs("node20", &[("index.js", false, ""), ("package.json", false, "{\"type\":\"module\"}")]),
            None
        );
        assert_eq!(needs("provided", &[("bootstrap", true, "#!/bin/sh\n")]), None);
        assert_eq!(needs("provided", &[("server", false, "")]), None);
    }

    #[test]
    fn what_is_to_be_installed_or_mended_does() {
        for (runtime, path, content) in [
            ("python3.13", "requirements.txt", ""),
            ("python3.13", "uv.lock", ""),
            ("python3.13", "poetry.lock", ""),
            ("python3.13", "pyproject.toml", ""),
            ("python3.13", "sub/__pycache__/x.pyc", ""),
            ("node20", "package.json", "{\"dependencies\":{}}"),
            ("node20", "package.json", "{\"scripts\":{\"install\":\"make\"}}"),
            ("node20", "package.json", "no json"),
            ("node20", "package-lock.json", "{}"),
            ("node20", "pnpm-lock.yaml", ""),
            ("node20", "tsconfig.json", "{}"),
            ("node20", "src/app.ts", ""),
            ("provided", "bootstrap", "#!/bin/sh\n"),
        ] {
            assert!(
                needs(runtime, &[("a", false, ""), (path, false, content)]).is_some(),
                "{runtime} {path}"
            );
        }
        assert!(needs("provided", &[("bootstrap", true, "#!/bin/sh\r\n")]).is_some());
    }

    #[test]
    fn an_unknown_rule_means_a_builder() {
        assert_eq!(Recipe::parse("name = \"x\"\n"), None);
        assert_eq!(Recipe::parse("[direct]\nunless = []\nsomething_new = true\n"), None);
        assert!(Recipe::parse("name = \"x\"\n[direct]\n").is_some());
    }
}
