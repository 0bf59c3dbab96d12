//! The key under which a build's dependencies are cached: the image and every file that says which they are. Two uploads
//! with the same key install the same packages, so the second need not; it may be another namespace's, so a build program keeps
//! only what it made without the upload's other files.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::backend::ImageId;

const LOCK_FILES: &[&str] = &[
    "requirements.txt",
    "pyproject.toml",
    "uv.lock",
    "poetry.lock",
    "package.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "pnpm-lock.yaml",
    "go.mod",
    "go.sum",
    "Cargo.toml",
    "Cargo.lock",
    "pom.xml",
    "build.gradle",
    "settings.gradle",
    "gradle.properties",
    "Gemfile",
    "Gemfile.lock",
    "composer.json",
    "composer.lock",
];

/// The key for a source archive; `None` when it names no dependencies.
pub(super) fn key(image: &ImageId, source: &Path) -> std::io::Result<Option<String>> {
    let mut archive = tar::Archive::new(std::fs::File::open(source)?);
    let mut found = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let path = path.strip_prefix("./").unwrap_or(&path);
        let name = path.to_str().unwrap_or_default();
        if let Some(lock) = LOCK_FILES.iter().find(|lock| **lock == name) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            found.insert(*lock, content);
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    hash.update(image.0.as_bytes());
    for (name, content) in &found {
        // Lengths keep the pieces apart: moving bytes from one file to the next must change the key.
        hash.update(format!("\n{name} {}\n", content.len()));
        hash.update(content);
    }
    let digest = davit_api::Digest::from_bytes(hash.finalize().into());
    Ok(Some(format!("deps-{}", digest.hex())))
}

#[cfg(test)]
mod tests {
    use super::super::testing::source;
    use super::*;

    fn key_of(files: &[(&str, &str)], image: &str) -> Option<String> {
        key(&ImageId(image.into()), source(files).path()).unwrap()
    }

    #[test]
    fn only_lock_files_and_the_image_make_the_key() {
        let base = key_of(&[("requirements.txt", "boto3"), ("a.py", "1")], "i");
        assert!(base.is_some());
        assert_eq!(base, key_of(&[("requirements.txt", "boto3"), ("a.py", "2")], "i"));
        assert_ne!(base, key_of(&[("requirements.txt", "boto3==1")], "i"));
        assert_ne!(base, key_of(&[("requirements.txt", "boto3")], "j"));
        assert_eq!(key_of(&[("a.py", "1"), ("sub/requirements.txt", "x")], "i"), None);
    }
}
