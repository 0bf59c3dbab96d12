//! Archives that were made for AWS Lambda: a function's zip and its layers, turned into a source archive that is deployed as it
//! is. Layers go below [`LAYERS`], merged in their order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use davit_api::{FunctionName, LAYER_PARTS, LAYERS, Manifest, RuntimeName, limits};
use zip::ZipArchive;

use crate::failure::{Failure, Result};
use crate::pack::{AddError, Archive, Packed};

/// Links that lead to links, so far.
const LINKS: usize = 8;
/// Longest target of a link, in bytes.
const TARGET_BYTES: u64 = 4096;

/// What the command line says of the function.
pub(crate) struct Told<'a> {
    pub(crate) name: Option<&'a FunctionName>,
    pub(crate) runtime: Option<&'a RuntimeName>,
    pub(crate) handler: Option<&'a str>,
}

impl Told<'_> {
    /// The settings of a `davit.toml`, but for what was told.
    pub(crate) fn over(&self, mut manifest: Manifest) -> Result<Manifest> {
        manifest.name = self.name.cloned().unwrap_or(manifest.name);
        manifest.runtime = self.runtime.cloned().unwrap_or(manifest.runtime);
        manifest.handler = self.handler.map(str::to_owned).or(manifest.handler);
        self.checked(manifest)
    }

    /// Settings without a `davit.toml`; the function is called like the archive unless it was told.
    pub(crate) fn alone(&self, zip: &Path) -> Result<Manifest> {
        let Some(runtime) = self.runtime else {
            let shipped = RuntimeName::SHIPPED.join(", ");
            return Err(Failure::Usage(format!(
                "--runtime is needed, since there is no davit.toml that says it: {shipped}"
            )));
        };
        let name = match self.name {
            Some(name) => name.to_string(),
            None => zip.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        };
        let text = format!(
            "name = {name:?}\nruntime = {:?}\nhandler = {:?}\n",
            runtime.as_str(),
            self.handler.unwrap_or_default()
        );
        Manifest::parse(&text)
            .map_err(|error| Failure::Usage(format!("{error} (--name, --runtime and --handler say it)")))
    }

    fn checked(&self, manifest: Manifest) -> Result<Manifest> {
        let checked = manifest.runtime.check_handler(manifest.handler.as_deref().unwrap_or_default());
        match manifest.kind {
            None | Some(davit_api::FunctionKind::Handler) => {
                checked.map_err(|problem| Failure::Usage(format!("handler: {problem}")))?;
            }
            Some(davit_api::FunctionKind::Server) => {}
        }
        Ok(manifest)
    }
}

/// Where an entry's content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Which archive: 0 is the function's, then the layers.
    archive: usize,
    /// Which entry of it.
    index: usize,
    executable: bool,
    size: u64,
}

/// Packs a function's archive with its layers. `left_out` is told what of a layer no function would find.
pub(crate) fn pack(zip: &Path, layers: &[PathBuf], left_out: impl Fn(&str)) -> Result<Packed> {
    if layers.len() > limits::LAYERS {
        return Err(Failure::Usage(format!(
            "--layer: {} layers; the limit is {}",
            layers.len(),
            limits::LAYERS
        )));
    }
    let mut archives = Vec::new();
    let mut files = BTreeMap::new();
    for (number, path) in std::iter::once(zip).chain(layers.iter().map(PathBuf::as_path)).enumerate() {
        let mut archive = open(path)?;
        let found = list(path, number, &mut archive)?;
        if number == 0 {
            if found.keys().any(|name| first(name) == LAYERS) {
                return Err(problem(path, LAYERS, "is where the layers go; give them with --layer"));
            }
            files.extend(found);
        } else {
            add_layer(path, found, &mut files, &left_out)?;
        }
        archives.push((path, archive));
    }
    let mut packed = Archive::new("the archive", ", layers included");
    for (name, place) in &files {
        let (path, archive) = &mut archives[place.archive];
        let failed =
            |error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {name}: {error}", path.display()));
        let entry = archive.by_index(place.index).map_err(|e| failed(&e))?;
        let mut content = Vec::new();
        entry.take(place.size).read_to_end(&mut content).map_err(|e| failed(&e))?;
        if content.len() as u64 != place.size {
            return Err(failed(&"shorter than the archive says"));
        }
        packed.add(name, place.executable, place.size, content.as_slice()).map_err(|error| match error {
            AddError::Io(error) => failed(&error),
            AddError::TooLarge(failure) => failure,
        })?;
    }
    packed.finish()
}

type Zip = ZipArchive<BufReader<File>>;

fn open(path: &Path) -> Result<Zip> {
    let file = File::open(path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
    let archive = ZipArchive::new(BufReader::new(file));
    let archive = archive.map_err(|e| Failure::Usage(format!("{}: no zip archive: {e}", path.display())))?;
    if archive.len() > limits::ARCHIVE_ENTRIES {
        let problem = format!("{} entries; the limit is {}", archive.len(), limits::ARCHIVE_ENTRIES);
        return Err(Failure::Usage(format!("{}: {problem}", path.display())));
    }
    Ok(archive)
}

fn problem(path: &Path, entry: &str, what: &str) -> Failure {
    Failure::Usage(format!("{}: {entry:?} {what}", path.display()))
}

fn first(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

/// The files of an archive by their clean names; links are what they lead to.
fn list(path: &Path, archive: usize, zip: &mut Zip) -> Result<BTreeMap<String, Place>> {
    let mut files = BTreeMap::new();
    let mut links = BTreeMap::new();
    for index in 0..zip.len() {
        let entry = zip.by_index(index).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
        let raw = entry.name().map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?.into_owned();
        if entry.is_dir() {
            continue;
        }
        let name = clean(&raw).ok_or_else(|| {
            problem(path, &raw, "is a name that leads out of the archive, or has odd characters")
        })?;
        if entry.is_symlink() {
            let mut target = String::new();
            let read = entry.take(TARGET_BYTES).read_to_string(&mut target);
            read.map_err(|_| problem(path, &raw, "is a link that cannot be read"))?;
            links.insert(name, target);
            continue;
        }
        // Archives made on other systems know no such bit; AWS wants it there, too, and says so less clearly.
        let executable =
            entry.unix_mode().map_or(name.contains("bin/"), |mode| mode & 0o111 != 0) || name == "bootstrap";
        let place = Place { archive, index, executable, size: entry.size() };
        if files.insert(name, place).is_some() {
            return Err(problem(path, &raw, "is there twice"));
        }
    }
    for name in links.keys() {
        let place = follow(name, &files, &links)
            .ok_or_else(|| problem(path, name, "is a link to no file of the archive"))?;
        files.insert(name.clone(), place);
    }
    Ok(files)
}

fn follow(name: &str, files: &BTreeMap<String, Place>, links: &BTreeMap<String, String>) -> Option<Place> {
    let mut at = name.to_owned();
    for _ in 0..LINKS {
        let Some(target) = links.get(&at) else { return files.get(&at).copied() };
        let folder = at.rsplit_once('/').map_or("", |(folder, _)| folder);
        at = join(folder, target)?;
    }
    None
}

/// `target` as seen from `folder`; `None` when it leads out.
fn join(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if target.starts_with('/') {
        return None;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// An entry's name, with the other kind of slash as some systems write it; `None` when it leads out or has control characters.
fn clean(raw: &str) -> Option<String> {
    let name = raw.replace('\\', "/");
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let good = !parts.is_empty()
        && !name.starts_with('/')
        && !parts.contains(&"..")
        && !name.contains(char::is_control);
    good.then(|| parts.join("/"))
}

/// Lays a layer over those before it.
fn add_layer(
    path: &Path,
    found: BTreeMap<String, Place>,
    files: &mut BTreeMap<String, Place>,
    left_out: &impl Fn(&str),
) -> Result<()> {
    let before = found.len();
    let (shown, other): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(name, _)| name.contains('/') && LAYER_PARTS.contains(&first(name)));
    if shown.is_empty() {
        let parts = LAYER_PARTS.join(", ");
        return Err(Failure::Usage(format!(
            "{}: none of its {before} files lies in a folder that functions look into: {parts}",
            path.display()
        )));
    }
    if let Some((name, _)) = other.first() {
        left_out(&format!(
            "note: {}: {} of {before} files are left out, such as {name}: of a layer only {} are shown below /opt",
            path.display(),
            other.len(),
            LAYER_PARTS.join(", ")
        ));
    }
    files.extend(shown.into_iter().map(|(name, place)| (format!("{LAYERS}/{name}"), place)));
    Ok(())
}

#[cfg(test)]
mod tests;
