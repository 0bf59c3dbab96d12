//! Tells when something below a folder has changed. It looks again and again instead of being told by the system: that works on every
//! system and on folders that are shared into a machine, needs no watch a folder, and what it costs is bounded by how often it looks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ignore::WalkBuilder;

use crate::output::note;

/// Between two looks, while these are quick.
const PAUSE: Duration = Duration::from_millis(80);
/// Looks take at most this part of the time.
const SHARE: u32 = 20;
/// Folders whose changes mean nothing to a function's source.
const NEVER: [&str; 6] = [".git", "__pycache__", ".venv", "node_modules", "target", ".idea"];
/// Files that are looked at; beyond, changes of some are not seen.
const FILES: usize = 20_000;

/// What shows that a file is another one.
type Marks = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// A folder that is watched.
pub(super) struct Watch {
    root: PathBuf,
    seen: Marks,
}

impl Watch {
    pub(super) fn start(root: &Path) -> Self {
        let seen = look(root);
        if seen.len() >= FILES {
            let folder = root.display();
            note(format!(
                "{folder} has {FILES} files and more: changes of some are not seen; name a folder with fewer"
            ));
        }
        Self { root: root.to_owned(), seen }
    }

    /// Returns when something has changed since the last time and nothing has for a moment: editors write a file in several steps.
    pub(super) async fn changed(&mut self) {
        let mut before: Option<Marks> = None;
        loop {
            let begun = Instant::now();
            let now = look(&self.root);
            let pause = PAUSE.max(begun.elapsed() * SHARE);
            if now != self.seen && before.as_ref() == Some(&now) {
                self.seen = now;
                return;
            }
            let changing = now != self.seen;
            before = changing.then_some(now);
            // Two looks that are the same say that it is settled; the second one may come soon.
            tokio::time::sleep(if changing { pause / 4 } else { pause }).await;
        }
    }
}

fn look(root: &Path) -> Marks {
    let walk = WalkBuilder::new(root)
        .standard_filters(false)
        .filter_entry(|entry| entry.depth() == 0 || NEVER.iter().all(|never| entry.file_name() != *never))
        .build();
    let files =
        walk.filter_map(Result::ok).filter(|entry| entry.file_type().is_some_and(|kind| !kind.is_dir()));
    let marks = files.take(FILES).map(|entry| {
        // Of a link, what it leads to: that is what is packed.
        let meta = std::fs::metadata(entry.path()).ok();
        let mark = meta.map_or((None, 0), |meta| (meta.modified().ok(), meta.len()));
        (entry.into_path(), mark)
    });
    marks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_told_once_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("deep/node_modules")).unwrap();
        std::fs::write(root.join("deep/app.py"), "1").unwrap();
        let mut watch = Watch::start(root);
        std::fs::write(root.join("deep/node_modules/x.js"), "x").unwrap();
        assert_eq!(look(root), watch.seen, "not of interest");
        for n in 0..20 {
            std::fs::write(root.join("deep/app.py"), "x".repeat(n + 2)).unwrap();
        }
        watch.changed().await;
        assert_eq!(look(root), watch.seen, "all of them were one");
        std::fs::rename(root.join("deep/app.py"), root.join("app.py")).unwrap();
        watch.changed().await;
        std::fs::remove_file(root.join("app.py")).unwrap();
        watch.changed().await;
        assert!(watch.seen.is_empty());
    }
}
