//! Shared code with the kernel's real mounts. They need root; without it the tests that mount say so and pass,
//! unless `DAVIT_TEST_MOUNTS=required`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the report")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use davit_link::code::{Mounts, Trees};

/// A state directory that is free of mounts when it goes.
struct State(tempfile::TempDir);

impl State {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn trees(&self) -> Trees {
        Trees::open(self.path().join("bundles")).unwrap()
    }
    fn mounts(&self) -> Option<Mounts> {
        match Mounts::open(self.path()) {
            Ok(mounts) => Some(mounts),
            Err(why) => {
                assert_ne!(std::env::var("DAVIT_TEST_MOUNTS").as_deref(), Ok("required"), "{why}");
                eprintln!("skipped: {why}");
                None
            }
        }
    }
    /// Mounts below this directory.
    fn mounted(&self) -> usize {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        text.lines()
            .filter(|l| l.split(' ').nth(4).is_some_and(|at| Path::new(at).starts_with(self.path())))
            .count()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for name in Mounts::left(self.path()) {
            let _ = Mounts::remove_left(self.path(), &name);
        }
        if let Ok(mounts) = Mounts::open(self.path()) {
            let _ = mounts.close();
        }
    }
}

fn bundle(files: &[(&str, &str)]) -> (File, u64) {
    let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o4755);
        header.set_cksum();
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let file = builder.into_inner().unwrap();
    let size = file.metadata().unwrap().len();
    (file, size)
}

fn make(trees: &Trees, name: &str, files: &[(&str, &str)]) -> io::Result<()> {
    let (file, size) = bundle(files);
    trees.make(name, file, size)
}

#[test]
fn a_tree_is_there_whole_or_not_at_all() {
    let state = State::new();
    let trees = state.trees();
    make(&trees, "aa", &[("app.py", "a"), ("lib/x.py", "x")]).unwrap();
    let at = |name: &str| fs::metadata(state.path().join("bundles/aa").join(name)).unwrap();
    assert_eq!(
        (at("").mode() & 0o7777, at("lib").mode() & 0o7777, at("app.py").mode() & 0o7777),
        (0o755, 0o755, 0o755)
    );
    make(&trees, "aa", &[("other", "")]).unwrap();
    assert!(!state.path().join("bundles/aa/other").exists(), "a tree never changes");

    let (file, size) = bundle(&[("app.py", "a")]);
    assert!(trees.make("bb", file, size + 1).is_err());
    let (file, size) = bundle(&[("app.py", "a")]);
    file.set_len(size / 4).unwrap();
    assert!(trees.make("bb", file, size / 4).is_err(), "cut in the middle of its file");
    let names: Vec<_> =
        fs::read_dir(state.path().join("bundles")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names.len(), 2, "one tree and the boot's mark: {names:?}");
}

#[test]
fn trees_of_another_boot_are_forgotten() {
    let state = State::new();
    make(&state.trees(), "aa", &[("app.py", "a")]).unwrap();
    assert!(state.trees().has("aa"), "another process of the same boot");
    fs::write(state.path().join("bundles/boot"), "another").unwrap();
    assert!(!state.trees().has("aa"));
    make(&state.trees(), "aa", &[("app.py", "a")]).unwrap();
    assert!(state.trees().has("aa"));
}

#[test]
fn pruning_removes_what_is_old_and_unused_and_follows_no_link() {
    let state = State::new();
    let trees = state.trees();
    for name in ["used", "unused", "young", "x.1-1.part"] {
        make(&trees, name, &[("app.py", "a")]).unwrap();
        if name != "young" {
            let old = SystemTime::now() - Duration::from_secs(100);
            File::open(state.path().join("bundles").join(name)).unwrap().set_modified(old).unwrap();
        }
    }
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "").unwrap();
    let unused = state.path().join("bundles/unused");
    let old = fs::metadata(&unused).unwrap().modified().unwrap();
    symlink(outside.path(), unused.join("link")).unwrap();
    File::open(&unused).unwrap().set_modified(old).unwrap();
    trees.prune(|name| name != "used", Duration::from_secs(50)).unwrap();
    let left: Vec<bool> = ["used", "unused", "young", "x.1-1.part"].map(|name| trees.has(name)).into();
    assert_eq!(left, [true, false, true, false]);
    assert!(outside.path().join("kept").exists());
}

#[test]
fn an_instance_sees_one_tree_read_only_and_leaves_no_trace() {
    let state = State::new();
    let Some(mounts) = state.mounts() else { return };
    let trees = state.trees();
    make(&trees, "aa", &[("app.py", "a")]).unwrap();
    make(&trees, "bb", &[("app.py", "b")]).unwrap();
    let (one, two) = (mounts.make("one", 1).unwrap(), mounts.make("two", 1).unwrap());
    fs::write(one.join("unpacked"), "here").unwrap();
    assert_eq!(mounts.give("one", "cc").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(mounts.give("three", "aa").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(mounts.give("../one", "aa").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(mounts.give("one", "../aa").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    mounts.give("one", "aa").unwrap();
    mounts.give("two", "bb").unwrap();
    assert_eq!(fs::read_to_string(one.join("app.py")).unwrap(), "a");
    assert_eq!(fs::read_to_string(two.join("app.py")).unwrap(), "b");
    assert!(!one.join("unpacked").exists());
    // Root itself cannot write here.
    let refused = fs::write(one.join("app.py"), "changed").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    let refused = fs::set_permissions(one.join("app.py"), fs::Permissions::from_mode(0o4777)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    assert!(mounts.in_use("aa").unwrap() && !mounts.in_use("cc").unwrap());
    mounts.remove("one").unwrap();
    mounts.remove("one").unwrap();
    assert!(!one.exists() && !mounts.in_use("aa").unwrap());
    assert!(trees.has("aa") && state.path().join("bundles/aa/app.py").exists());
    mounts.close().unwrap();
    assert_eq!(fs::read_to_string(two.join("app.py")).unwrap(), "b", "not while an instance is left");
    mounts.remove("two").unwrap();
    mounts.close().unwrap();
    assert_eq!(state.mounted(), 0);
}

#[test]
fn what_a_killed_davit_left_is_cleaned_and_the_rest_stays() {
    let state = State::new();
    let Some(mounts) = state.mounts() else { return };
    make(&state.trees(), "aa", &[("app.py", "a")]).unwrap();
    for name in ["dead", "alive"] {
        mounts.make(name, 1).unwrap();
        mounts.give(name, "aa").unwrap();
    }
    fs::create_dir_all(state.path().join("instances/alive")).unwrap();
    let before = state.mounted();
    // The next process on the same state.
    let again = Mounts::open(state.path()).unwrap();
    assert_eq!(Mounts::left(state.path()), ["alive"]);
    assert_eq!(state.mounted(), before - 2, "nothing is mounted twice");
    assert!(state.path().join("tasks/alive/app.py").exists());
    // Somebody removed the bundles by hand: the trees that are made then are shown, not the old ones.
    again.remove("alive").unwrap();
    fs::remove_dir_all(state.path().join("bundles")).unwrap();
    let again = Mounts::open(state.path()).unwrap();
    make(&state.trees(), "aa", &[("app.py", "new")]).unwrap();
    again.make("next", 1).unwrap();
    again.give("next", "aa").unwrap();
    assert_eq!(fs::read_to_string(state.path().join("tasks/next/app.py")).unwrap(), "new");
}

#[test]
fn many_processes_may_open_one_state() {
    let state = State::new();
    if state.mounts().is_none() {
        return;
    }
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| Mounts::open(state.path()).map(drop))).collect();
        all.into_iter().for_each(|one| one.join().unwrap().unwrap());
    });
    assert_eq!(state.mounted(), 2, "the folder and the trees");
}
