//! What gets into an archive, and that it is always the same one.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn content(packed: &Packed) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.bytes.as_slice()));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), text)
    };
    archive.entries().unwrap().map(read).collect()
}

fn names(root: &TempDir) -> Vec<String> {
    content(&pack_files(root.path(), None).unwrap()).into_keys().collect()
}

#[test]
fn ignored_files_stay_at_home() {
    let root = folder(&[
        ("davit.toml", ""),
        ("app.py", ""),
        (".env.example", ""),
        (".gitignore", "secret.txt\nlogs/\n"),
        ("secret.txt", ""),
        ("logs/a.log", ""),
        (".davitignore", "*.md\n!KEEP.md\n"),
        ("README.md", ""),
        ("KEEP.md", ""),
        (".git/config", ""),
        ("__pycache__/app.pyc", ""),
        ("lib/.gitignore", "x\n"),
        ("lib/x", ""),
        ("lib/y", ""),
    ]);
    assert_eq!(
        names(&root),
        [".env.example", ".gitignore", "KEEP.md", "app.py", "davit.toml", "lib/.gitignore", "lib/y"]
    );
}

#[test]
fn a_repositorys_rules_reach_into_its_folders() {
    let root = folder(&[(".git/HEAD", ""), (".gitignore", "*.tmp\n"), ("fn/app.py", ""), ("fn/x.tmp", "")]);
    let packed = pack_files(&root.path().join("fn"), None).unwrap();
    assert_eq!(content(&packed).into_keys().collect::<Vec<_>>(), ["app.py"]);
}

#[test]
fn a_dockerfiles_folder_is_without_what_dockerignore_names() {
    let files = [
        (".dockerignore", "*\n!src\nsrc/**/*.tmp\n"),
        ("davit.toml", "name = \"a\"\n"),
        ("Dockerfile", "FROM scratch\n"),
        ("src/main.c", ""),
        ("src/deep/x.tmp", ""),
        ("notes.txt", ""),
    ];
    let root = folder(&files);
    let manifest = Manifest::parse(files[1].1).unwrap();
    let names =
        |root: &TempDir| content(&pack(root.path(), &manifest).unwrap()).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&root), ["Dockerfile", "davit.toml", "src/main.c"]);
    // The Dockerfile's own one counts instead of it.
    fs::write(root.path().join("Dockerfile.dockerignore"), "src\n*ignore\n").unwrap();
    assert_eq!(names(&root), ["Dockerfile", "davit.toml", "notes.txt"]);
    let runtime = Manifest::parse("name = \"a\"\nruntime = \"provided\"\n").unwrap();
    let all = content(&pack(root.path(), &runtime).unwrap());
    assert!(all.contains_key("notes.txt") && all.contains_key("src/deep/x.tmp"), "it is about images only");
}

#[test]
fn an_image_made_elsewhere_has_no_source_but_its_settings() {
    let text = "name = \"a\"\nimage = \"registry.example.com/app:1\"\n";
    let root = folder(&[("davit.toml", text), ("notes.txt", "")]);
    let packed = pack(root.path(), &Manifest::parse(text).unwrap()).unwrap();
    assert_eq!(content(&packed).into_keys().collect::<Vec<_>>(), ["davit.toml"]);
}

#[test]
fn links_become_files_or_are_refused() {
    let root = folder(&[("davit.toml", "x")]);
    symlink("davit.toml", root.path().join("alias")).unwrap();
    assert_eq!(content(&pack_files(root.path(), None).unwrap())["alias"], "x");
    symlink("/etc/passwd", root.path().join("outside")).unwrap();
    assert!(pack_files(root.path(), None).is_err());
}

#[test]
fn executables_stay_executable_and_an_empty_folder_is_an_error() {
    let root = folder(&[("bootstrap", "#!/bin/sh\n")]);
    fs::set_permissions(root.path().join("bootstrap"), fs::Permissions::from_mode(0o700)).unwrap();
    let packed = pack_files(root.path(), None).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.bytes.as_slice()));
    let modes: Vec<u32> = archive.entries().unwrap().map(|e| e.unwrap().header().mode().unwrap()).collect();
    assert_eq!(modes, [0o755]);
    assert!(pack_files(folder(&[]).path(), None).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_same_files_give_the_same_archive(
        files in proptest::collection::btree_map("[a-z]{1,8}(/[a-z]{1,120}){0,2}\\.txt", "\\PC{0,40}", 1..8),
    ) {
        let list: Vec<(&str, &str)> = files.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        let backwards: Vec<(&str, &str)> = list.iter().rev().copied().collect();
        let one = pack_files(folder(&list).path(), None).unwrap();
        let two = pack_files(folder(&backwards).path(), None).unwrap();
        prop_assert_eq!(one.digest, two.digest);
        prop_assert_eq!(&one.bytes, &two.bytes);
        prop_assert_eq!(one.files, files.len());
        prop_assert_eq!(content(&one), files);
    }
}
