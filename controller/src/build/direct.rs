//! A bundle made from the checked source without a builder, for sources that the image's build program would only
//! pack: the same bytes, since the version's digest is taken from them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::pack::{self, Kind};
use super::recipe::{Facts, Prepare, Recipe};

/// Largest sum of the files that a warm container prepares, in bytes: they travel as one event. More is work for a
/// builder, which has more processors.
const PREPARE_BYTES: u64 = 2 * 1024 * 1024;

/// A checked source that needs no builder, not packed yet.
#[derive(Debug)]
pub(super) struct Direct {
    source: PathBuf,
    entries: BTreeMap<String, Kind>,
    /// Where each file's content lies in the source archive.
    at: BTreeMap<String, u64>,
    /// What a warm container adds.
    added: BTreeMap<String, Vec<u8>>,
}

impl Direct {
    /// Looks at a clean source archive (`source::sanitise` made it); the error says why it needs a builder.
    pub(super) fn judge(recipe: &Recipe, source: &Path) -> io::Result<Result<Self, String>> {
        let mut direct = Self {
            source: source.to_owned(),
            entries: BTreeMap::new(),
            at: BTreeMap::new(),
            added: BTreeMap::new(),
        };
        let mut facts = BTreeMap::new();
        let mut archive = tar::Archive::new(io::BufReader::new(File::open(source)?));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().trim_end_matches('/').to_owned();
            let folder = entry.header().entry_type().is_dir();
            let executable = entry.header().mode()? & 0o100 != 0;
            let kind = if folder { Kind::Folder } else { Kind::File { executable, size: entry.size() } };
            direct.insert(&path, kind);
            if !folder {
                direct.at.insert(path.clone(), entry.raw_file_position());
            }
            let mut content = Vec::new();
            if recipe.looks_into(&path) {
                // More than this is no such file; what was cut off is no JSON, and goes to the builder.
                (&mut entry).take(1 << 20).read_to_end(&mut content)?;
            }
            facts.insert(path, Facts { folder, executable, content });
        }
        if let Some(path) = direct.entries.iter().find(|(path, kind)| !pack::fits(path, **kind)) {
            return Ok(Err(format!("{} is a long or unusual name", path.0)));
        }
        Ok(match recipe.needs_builder(&facts) {
            Some(why) => Err(why),
            None => Ok(direct),
        })
    }

    /// The folders above it come along: an archive need not list them, and a bundle does.
    fn insert(&mut self, path: &str, kind: Kind) {
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Kind::Folder);
        }
        self.entries.insert(path.to_owned(), kind);
    }

    /// The files that a warm container prepares, with their content; the error says why a builder has to.
    pub(super) fn to_prepare(
        &self,
        prepare: &Prepare,
    ) -> io::Result<Result<BTreeMap<String, Vec<u8>>, String>> {
        let wanted = self.entries.iter().filter_map(|(path, kind)| match kind {
            Kind::File { size, .. } if path.ends_with(&prepare.ending) => Some((path, *size)),
            _ => None,
        });
        let wanted: Vec<_> = wanted.collect();
        if wanted.iter().map(|(_, size)| size).sum::<u64>() > PREPARE_BYTES {
            return Ok(Err(format!("there is more than {} MiB to prepare", PREPARE_BYTES >> 20)));
        }
        let mut source = File::open(&self.source)?;
        let mut files = BTreeMap::new();
        for (path, size) in wanted {
            let mut content = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            source.seek(SeekFrom::Start(self.at[path]))?;
            source.read_exact(&mut content)?;
            files.insert(path.clone(), content);
        }
        Ok(Ok(files))
    }

    /// Takes over what a warm container made. It adds and never replaces; the error says what it got wrong.
    pub(super) fn add(&mut self, files: BTreeMap<String, Vec<u8>>) -> Result<(), String> {
        for (path, content) in files {
            let clean = crate::source::CleanPath::parse(&path).ok().flatten();
            if clean.is_none_or(|clean| clean.as_str() != path) || self.entries.contains_key(&path) {
                return Err(format!("{path} cannot be added"));
            }
            let kind = Kind::File { executable: false, size: content.len() as u64 };
            self.insert(&path, kind);
            self.added.insert(path, content);
        }
        let fits = self.entries.iter().find(|(path, kind)| !pack::fits(path, **kind));
        fits.map_or(Ok(()), |(path, _)| Err(format!("{path} is a long or unusual name")))
    }

    /// Writes the bundle.
    pub(super) fn write(&self, out: &Path) -> io::Result<()> {
        let mut source = File::open(&self.source)?;
        let content = |path: &str| -> io::Result<Box<dyn io::Read>> {
            if let Some(bytes) = self.added.get(path) {
                return Ok(Box::new(Cursor::new(bytes.clone())));
            }
            source.seek(SeekFrom::Start(self.at.get(path).copied().unwrap_or(u64::MAX >> 1)))?;
            Ok(Box::new(source.try_clone()?))
        };
        pack::write(&self.entries, content, io::BufWriter::new(File::create(out)?))
    }

    /// How many files it holds.
    pub(super) fn files(&self) -> usize {
        self.at.len() + self.added.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::source;
    use super::*;

    fn direct(files: &[(&str, &str)]) -> (Direct, tempfile::NamedTempFile) {
        let source = source(files);
        (Direct::judge(&Recipe::default(), source.path()).unwrap().unwrap(), source)
    }

    #[test]
    fn folders_that_an_archive_leaves_out_are_in_the_bundle() {
        let (mut direct, _source) = direct(&[("a/b/c.py", "1"), ("d", "22")]);
        direct.add(BTreeMap::from([("a/x/c.pyc".to_owned(), b"333".to_vec())])).unwrap();
        let out = tempfile::NamedTempFile::new().unwrap();
        direct.write(out.path()).unwrap();
        let mut archive = tar::Archive::new(File::open(out.path()).unwrap());
        let names = archive.entries().unwrap().map(|e| {
            let mut entry = e.unwrap();
            let mut text = entry.path().unwrap().display().to_string();
            entry.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(names.collect::<Vec<_>>(), ["a/", "a/b/", "a/b/c.py1", "a/x/", "a/x/c.pyc333", "d22"]);
        assert_eq!(direct.files(), 3);
    }

    #[test]
    fn what_is_prepared_only_adds() {
        for bad in ["d", "../e", "/e", "a//b", "", &"n".repeat(200)] {
            let (mut direct, _source) = direct(&[("d", "22")]);
            assert!(direct.add(BTreeMap::from([(bad.to_owned(), Vec::new())])).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_ends_so_is_prepared_and_not_too_much_of_it() {
        let prepare = Prepare { ending: ".py".into(), ..Default::default() };
        let (some, _source) = direct(&[("a.py", "1"), ("b.js", "2")]);
        let files = some.to_prepare(&prepare).unwrap().unwrap();
        assert_eq!(files, BTreeMap::from([("a.py".to_owned(), b"1".to_vec())]));
        let long = "x".repeat(PREPARE_BYTES as usize + 1);
        let (much, _source) = direct(&[("a.py", &long)]);
        assert!(much.to_prepare(&prepare).unwrap().is_err());
    }
}
