//! Reads what is to be applied: the project's file, the functions' folders, the values of secrets. Nothing is asked of
//! davit here, and what is wrong is said with the file and, where there is one, the line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use davit_api::{
    FunctionName, Manifest, NamespaceName, ProjectFile, ProjectSecret, SecretName, limits, line_naming,
};
use ignore::WalkBuilder;

use crate::failure::{Failure, Result};
use crate::openapi::attach;
use crate::pack::{Packed, pack};
use crate::prompt::without_line_end;

/// The file that makes a folder a function.
pub(crate) const MANIFEST: &str = "davit.toml";
/// How far below the project's folder functions are looked for.
const DEPTH: usize = 8;
/// Functions of one project; they are packed in memory, one after the other.
const FUNCTIONS: usize = 500;
/// Folders that are never somebody's functions.
const NEVER: [&str; 4] = ["node_modules", "target", "vendor", "__pycache__"];

/// One function's folder.
pub(crate) struct Folder {
    /// Where it is, as the user would say it.
    pub(crate) path: PathBuf,
    /// Its `davit.toml`, as text and as what it means.
    pub(crate) text: String,
    pub(crate) manifest: Manifest,
}

impl Folder {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = path.join(MANIFEST);
        let text = manifest_text(&file)?;
        let place = file.display().to_string();
        let manifest = Manifest::parse(&text).map_err(|error| Failure::Usage(error.in_file(&place)))?;
        let manifest = attach(path, &place, &text, manifest)?;
        Ok(Self { path: path.to_owned(), text, manifest })
    }

    /// Its archive; what is wrong with a file is said with the folder.
    pub(crate) fn pack(&self) -> Result<Packed> {
        pack(&self.path, &self.manifest).map_err(|failure| failure.at(self.path.display()))
    }

    /// The place in its `davit.toml` that says this name.
    pub(crate) fn place(&self, name: &str) -> String {
        place(&self.path.join(MANIFEST), &self.text, name)
    }
}

/// The text of a `davit.toml`.
pub(crate) fn manifest_text(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "; `davit init` makes a new function",
            _ => "",
        };
        Failure::Usage(format!("{}: {error}{hint}", file.display()))
    })
}

fn place(file: &Path, text: &str, name: &str) -> String {
    match line_naming(text, name) {
        Some(line) => format!("{}, line {line}", file.display()),
        None => file.display().to_string(),
    }
}

/// A project's file.
pub(crate) struct Project {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) file: ProjectFile,
}

impl Project {
    /// The place in the file that says this name.
    pub(crate) fn place(&self, name: &str) -> String {
        place(&self.path, &self.text, name)
    }
}

/// Everything that was given.
pub(crate) struct Given {
    /// The folder that all of it is below.
    pub(crate) root: PathBuf,
    pub(crate) project: Option<Project>,
    /// By name.
    pub(crate) functions: BTreeMap<FunctionName, Folder>,
    /// The project's secrets whose values are given here.
    pub(crate) secrets: BTreeMap<SecretName, String>,
    /// Those whose values come from a place that is empty, with that place.
    pub(crate) not_given: BTreeMap<SecretName, String>,
}

impl Given {
    /// Reads a folder with functions in it, a function's folder, or a project's file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let (root, project) = root_of(path)?;
        let listed = project.as_ref().and_then(|p| p.file.functions.as_ref());
        let folders = match listed {
            Some(listed) => listed.iter().map(|folder| root.join(folder)).collect(),
            None => find(&root)?,
        };
        let mut functions = BTreeMap::<FunctionName, Folder>::new();
        for path in folders {
            let folder = Folder::read(&path)?;
            let name = folder.manifest.name.clone();
            if let Some(other) = functions.get(&name) {
                return Err(Failure::Usage(format!(
                    "{}: {name} is the name of the function in {}, too; give one of them another name",
                    folder.place(name.as_str()),
                    other.path.join(MANIFEST).display()
                )));
            }
            functions.insert(name, folder);
        }
        let mut given =
            Self { root, project, functions, secrets: BTreeMap::new(), not_given: BTreeMap::new() };
        given.read_secrets()?;
        if given.functions.is_empty() && given.project.is_none() {
            return Err(Failure::Usage(format!(
                "{}: there is no {MANIFEST} in or below it, and no {}",
                given.root.display(),
                ProjectFile::NAME
            )));
        }
        Ok(given)
    }

    fn read_secrets(&mut self) -> Result<()> {
        let Some(project) = &self.project else { return Ok(()) };
        for (name, from) in &project.file.secrets {
            let value = match from {
                ProjectSecret { env: Some(variable), .. } => {
                    std::env::var(variable).map_err(|_| format!("the environment variable {variable}"))
                }
                ProjectSecret { file: Some(file), .. } => {
                    let file = self.root.join(file);
                    std::fs::read_to_string(&file)
                        .map(without_line_end)
                        .map_err(|e| format!("{} ({e})", file.display()))
                }
                ProjectSecret { env: None, file: None } => continue,
            };
            match value {
                Ok(value) if value.is_empty() || value.len() > limits::SECRET_BYTES => {
                    let text = format!("{name}: a secret has 1 to {} bytes", limits::SECRET_BYTES);
                    return Err(Failure::Usage(text).at(project.place(name.as_str())));
                }
                Ok(value) => drop(self.secrets.insert(name.clone(), value)),
                Err(place) => drop(self.not_given.insert(name.clone(), place)),
            }
        }
        Ok(())
    }

    /// The namespace: what the command line says, else the project's file, else what the functions agree on.
    pub(crate) fn namespace(&self, told: Option<&NamespaceName>) -> Result<Option<NamespaceName>> {
        if let Some(told) = told {
            return Ok(Some(told.clone()));
        }
        let fixed = self.project.as_ref().and_then(|p| p.file.namespace.as_ref());
        let mut found = fixed.cloned();
        for (n, folder) in self.functions.values().enumerate() {
            let own = folder.manifest.namespace.as_ref();
            let agrees = match fixed {
                Some(fixed) => own.is_none_or(|own| own == fixed),
                None => n == 0 || own == found.as_ref(),
            };
            if !agrees {
                let here = own.map_or("default", NamespaceName::as_str);
                let there = found.as_ref().map_or("default", NamespaceName::as_str);
                let text = format!(
                    "namespace: {here}, and {there} elsewhere; one project is in one namespace (--namespace says which)"
                );
                return Err(Failure::Usage(text).at(folder.place(here)));
            }
            if fixed.is_none() {
                found = own.cloned();
            }
        }
        Ok(found)
    }
}

fn root_of(path: &Path) -> Result<(PathBuf, Option<Project>)> {
    let failed = |e: std::io::Error| Failure::Usage(format!("{}: {e}", path.display()));
    let kind = std::fs::metadata(path).map_err(failed)?;
    let (root, file) = if kind.is_dir() {
        let file = path.join(ProjectFile::NAME);
        (path.to_owned(), file.exists().then_some(file))
    } else {
        let root = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let named = path.file_name().is_some_and(|name| name == MANIFEST);
        (root.to_owned(), (!named).then(|| path.to_owned()))
    };
    let Some(path) = file else { return Ok((root, None)) };
    let text =
        std::fs::read_to_string(&path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
    let file = ProjectFile::parse(&text)
        .map_err(|error| Failure::Usage(error.in_file(&path.display().to_string())))?;
    Ok((root, Some(Project { path, text, file })))
}

/// The folders in and below `root` that are functions, in order. A function's folder is not looked into, and links are not followed: they
/// may lead in circles.
pub(crate) fn find(root: &Path) -> Result<Vec<PathBuf>> {
    let walk = WalkBuilder::new(root)
        .standard_filters(false)
        .git_ignore(true)
        .require_git(false)
        .add_custom_ignore_filename(".davitignore")
        .max_depth(Some(DEPTH))
        .sort_by_file_name(Ord::cmp)
        .filter_entry(|entry| {
            if entry.depth() == 0 {
                return true;
            }
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            let name = entry.file_name().to_string_lossy();
            let above = entry.path().parent().is_some_and(|parent| parent.join(MANIFEST).exists());
            if is_folder {
                !above && !name.starts_with('.') && !NEVER.contains(&&*name)
            } else {
                name == MANIFEST
            }
        })
        .build();
    let mut found = Vec::new();
    for entry in walk {
        let entry = entry.map_err(|e| Failure::while_doing("reading the folder", e))?;
        if entry.file_name() == MANIFEST && entry.file_type().is_some_and(|kind| kind.is_file()) {
            found.extend(entry.path().parent().map(Path::to_owned));
        }
        if found.len() > FUNCTIONS {
            return Err(Failure::Usage(format!("{}: more than {FUNCTIONS} functions", root.display())));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn function(root: &Path, folder: &str, name: &str, more: &str) {
        let text = format!("name = \"{name}\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n{more}");
        write(root, &format!("{folder}/{MANIFEST}"), &text);
        write(root, &format!("{folder}/app.py"), "def handler(event, context): pass");
    }

    fn refused(root: &Path) -> String {
        match Given::read(root) {
            Ok(_) => panic!("taken"),
            Err(failure) => failure.to_string().replace(&root.display().to_string(), "."),
        }
    }

    #[test]
    fn functions_are_found_below_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        function(root, "a", "a", "");
        function(root, "deep/er/b", "b", "");
        function(root, "a/inside", "inside", "");
        function(root, "node_modules/x", "x", "");
        function(root, ".hidden", "hidden", "");
        std::os::unix::fs::symlink(root, root.join("deep/again")).unwrap();
        let given = Given::read(root).unwrap();
        assert_eq!(given.functions.keys().map(FunctionName::as_str).collect::<Vec<_>>(), ["a", "b"]);
        let one = Given::read(&root.join("a").join(MANIFEST)).unwrap();
        assert_eq!(one.functions.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(refused(root).starts_with(".: there is no davit.toml"), "{}", refused(root));
        function(root, "a", "same", "");
        function(root, "b", "same", "");
        assert!(
            refused(root)
                .starts_with("./b/davit.toml, line 1: same is the name of the function in ./a/davit.toml")
        );
        function(root, "b", "b", "memory_md = 1\n");
        assert!(refused(root).starts_with("./b/davit.toml, line 4: memory_md: unknown key"));
        function(root, "b", "b", "");
        write(root, ProjectFile::NAME, "name = \"p\"\nfunctions = [\"a\", \"nowhere\"]\n");
        assert!(refused(root).starts_with("./nowhere/davit.toml: "), "{}", refused(root));
    }

    #[test]
    fn a_link_in_a_function_that_leads_in_a_circle_is_named() {
        let dir = tempfile::tempdir().unwrap();
        function(dir.path(), "a", "a", "");
        std::os::unix::fs::symlink("around", dir.path().join("a/about")).unwrap();
        std::os::unix::fs::symlink("about", dir.path().join("a/around")).unwrap();
        let given = Given::read(dir.path()).unwrap();
        let Err(failure) = given.functions.values().next().unwrap().pack() else { panic!("packed") };
        let text = failure.to_string();
        assert!(text.contains("/a: ") && text.contains("dead link"), "{text}");
    }

    #[test]
    fn one_project_is_in_one_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let of = |told: Option<&str>| {
            let told = told.map(|t| t.parse().unwrap());
            let found = Given::read(root).unwrap().namespace(told.as_ref());
            found.map(|n| n.map(|n| n.to_string())).map_err(|f| f.to_string())
        };
        function(root, "a", "a", "");
        assert_eq!(of(None), Ok(None));
        function(root, "a", "a", "namespace = \"x\"\n");
        assert_eq!(of(None), Ok(Some("x".into())));
        function(root, "b", "b", "");
        assert!(of(None).unwrap_err().contains("b/davit.toml"));
        assert_eq!(of(Some("y")), Ok(Some("y".into())));
        write(root, ProjectFile::NAME, "name = \"p\"\nnamespace = \"x\"\n");
        assert_eq!(of(None), Ok(Some("x".into())), "a function that says nothing is where the project is");
        function(root, "b", "b", "namespace = \"z\"\n");
        assert!(of(None).unwrap_err().contains("b/davit.toml, line 4: namespace: z, and x elsewhere"));
    }

    #[test]
    fn values_of_secrets_come_from_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let file =
            "name = \"p\"\n[secrets]\na = { file = \"a.txt\" }\nb = { env = \"DAVIT_NO_SUCH\" }\nc = {}\n";
        write(root, ProjectFile::NAME, file);
        write(root, "a.txt", "hush\n");
        let given = Given::read(root).unwrap();
        assert_eq!(
            given.secrets.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(),
            [("a", "hush")]
        );
        assert_eq!(given.not_given.keys().map(SecretName::as_str).collect::<Vec<_>>(), ["b"]);
        write(root, "a.txt", "\n");
        assert!(refused(root).contains("line 3: a: a secret has 1 to"), "{}", refused(root));
    }
}
