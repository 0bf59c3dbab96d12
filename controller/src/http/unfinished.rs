//! Uploads that broke off: what has arrived is kept for a while, so that the client sends only the rest.
//!
//! In nameless files, which end with this process at the latest: after a restart, or at another controller, an upload
//! begins anew.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use davit_api::{Digest, NamespaceName};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

/// How long what has arrived is kept.
const KEPT: Duration = Duration::from_secs(15 * 60);
/// Uploads that are kept at a time; the oldest goes first. Each is at most as large as an archive may be.
const MOST: usize = 8;
/// How long the question how much has arrived waits for an upload whose connection is just ending.
const ENDING: Duration = Duration::from_secs(2);

type Key = (NamespaceName, Digest);

/// What has arrived of an archive.
pub(super) struct Part {
    file: Arc<File>,
    hash: Sha256,
    size: u64,
}

impl Part {
    /// Nothing yet.
    pub(super) fn new(file: File) -> Self {
        Self { file: Arc::new(file), hash: Sha256::new(), size: 0 }
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Appends a piece. What is under way when this is dropped does not count, and is written over.
    pub(super) async fn append(&mut self, piece: Bytes) -> io::Result<()> {
        let (file, at, bytes) = (self.file.clone(), self.size, piece.clone());
        let written = tokio::task::spawn_blocking(move || file.write_all_at(&bytes, at)).await;
        written.map_err(io::Error::other)??;
        self.hash.update(&piece);
        self.size += piece.len() as u64;
        Ok(())
    }

    /// The file, to be read from its beginning, and the digest of what is in it.
    pub(super) fn finish(self) -> io::Result<(File, Digest)> {
        let file = self.file.try_clone()?;
        Ok((file, Digest::from_bytes(self.hash.finalize().into())))
    }
}

struct Kept {
    key: Key,
    at: Instant,
    /// None while it is being received.
    part: Option<Part>,
}

/// The uploads that are under way or broke off.
#[derive(Default)]
pub(super) struct Unfinished {
    kept: Mutex<Vec<Kept>>,
    ended: Notify,
}

/// Why an upload cannot go on from there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// So many bytes are here.
    At(u64),
    /// Another request sends it at this moment.
    Busy,
}

impl Unfinished {
    /// A new upload; what was kept of an earlier one is forgotten. `fresh` is empty.
    pub(super) fn begin(self: &Arc<Self>, key: Key, fresh: Part) -> Receiving {
        let mut kept = self.kept.lock();
        prune(&mut kept);
        // Of two at a time, one is kept should it break off.
        let of = match kept.iter_mut().find(|one| one.key == key) {
            Some(Kept { part: None, .. }) => None,
            Some(one) => {
                (one.part, one.at) = (None, Instant::now());
                Some((self.clone(), key))
            }
            None => {
                kept.push(Kept { key: key.clone(), at: Instant::now(), part: None });
                Some((self.clone(), key))
            }
        };
        Receiving { of, part: Some(fresh) }
    }

    /// Goes on with one of which exactly so many bytes are here.
    pub(super) fn go_on(self: &Arc<Self>, key: Key, offset: u64) -> Result<Receiving, Elsewhere> {
        let mut kept = self.kept.lock();
        prune(&mut kept);
        let one = kept.iter_mut().find(|one| one.key == key).ok_or(Elsewhere::At(0))?;
        match one.part.take() {
            None => Err(Elsewhere::Busy),
            Some(part) if part.size != offset => {
                let size = part.size;
                one.part = Some(part);
                Err(Elsewhere::At(size))
            }
            part => Ok(Receiving { of: Some((self.clone(), key)), part }),
        }
    }

    /// How much of an archive is here, in bytes.
    pub(super) async fn received(&self, key: &Key) -> u64 {
        let settled = async {
            loop {
                let ended = self.ended.notified();
                match self.look(key) {
                    Some(size) => return size,
                    None => ended.await,
                }
            }
        };
        tokio::time::timeout(ENDING, settled).await.unwrap_or(0)
    }

    /// None while it is being received.
    fn look(&self, key: &Key) -> Option<u64> {
        let mut kept = self.kept.lock();
        prune(&mut kept);
        kept.iter().find(|one| one.key == *key).map_or(Some(0), |one| one.part.as_ref().map(Part::size))
    }

    fn put_back(&self, key: &Key, part: Option<Part>) {
        {
            let mut kept = self.kept.lock();
            match part.filter(|part| part.size > 0) {
                None => kept.retain(|one| one.key != *key),
                Some(part) => {
                    if let Some(one) = kept.iter_mut().find(|one| one.key == *key) {
                        (one.part, one.at) = (Some(part), Instant::now());
                    }
                }
            }
        }
        self.ended.notify_waiters();
    }
}

/// Forgets what is too old, and the oldest of too many; never what is being received.
fn prune(kept: &mut Vec<Kept>) {
    kept.retain(|one| one.part.is_none() || one.at.elapsed() < KEPT);
    while kept.iter().filter(|one| one.part.is_some()).count() > MOST {
        let idle = kept.iter().enumerate().filter(|(_, one)| one.part.is_some());
        let Some((oldest, _)) = idle.min_by_key(|(_, one)| one.at) else { return };
        kept.swap_remove(oldest);
    }
}

/// An upload that is being received. Dropped before its end, however that comes, it is kept.
pub(super) struct Receiving {
    of: Option<(Arc<Unfinished>, Key)>,
    part: Option<Part>,
}

impl Receiving {
    /// What has arrived.
    pub(super) fn part(&mut self) -> Option<&mut Part> {
        self.part.as_mut()
    }

    /// All has arrived: nothing is kept.
    pub(super) fn end(mut self) -> Option<Part> {
        self.part.take()
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some((of, key)) = self.of.take() {
            of.put_back(&key, self.part.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn key(n: u8) -> Key {
        ("own".parse().unwrap(), Digest::from_bytes([n; 32]))
    }

    fn fresh() -> Part {
        Part::new(tempfile::tempfile().unwrap())
    }

    async fn broken_off(all: &Arc<Unfinished>, n: u8, bytes: &'static [u8]) {
        let mut receiving = all.begin(key(n), fresh());
        receiving.part().unwrap().append(bytes.into()).await.unwrap();
    }

    #[tokio::test]
    async fn what_arrived_is_kept_and_completed() {
        let all = Arc::new(Unfinished::default());
        assert_eq!(all.received(&key(1)).await, 0);
        broken_off(&all, 1, b"one ").await;
        assert_eq!(all.received(&key(1)).await, 4);
        assert_eq!(all.go_on(key(1), 3).err(), Some(Elsewhere::At(4)));
        let mut rest = all.go_on(key(1), 4).ok().unwrap();
        assert_eq!(all.go_on(key(1), 4).err(), Some(Elsewhere::Busy));
        rest.part().unwrap().append(Bytes::from_static(b"two")).await.unwrap();
        let (mut file, digest) = rest.end().unwrap().finish().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(
            (text.as_str(), digest),
            ("one two", Digest::from_bytes(Sha256::digest("one two").into()))
        );
        assert_eq!(all.received(&key(1)).await, 0, "nothing is kept of a whole one");
        assert_eq!(all.go_on(key(1), 7).err(), Some(Elsewhere::At(0)));
    }

    #[tokio::test]
    async fn a_new_beginning_forgets_the_old_one_and_two_at_a_time_do_not_mix() {
        let all = Arc::new(Unfinished::default());
        broken_off(&all, 1, b"old").await;
        let mut first = all.begin(key(1), fresh());
        let mut second = all.begin(key(1), fresh());
        first.part().unwrap().append(Bytes::from_static(b"f")).await.unwrap();
        second.part().unwrap().append(Bytes::from_static(b"second")).await.unwrap();
        drop(second);
        drop(first);
        assert_eq!(all.received(&key(1)).await, 1);
    }

    #[tokio::test]
    async fn so_many_are_kept_and_the_oldest_goes_first() {
        let all = Arc::new(Unfinished::default());
        for n in 0..=MOST as u8 {
            broken_off(&all, n, b"x").await;
        }
        assert_eq!((all.received(&key(0)).await, all.received(&key(1)).await), (0, 1));
    }

    #[tokio::test]
    async fn the_question_waits_for_a_connection_that_is_ending() {
        let all = Arc::new(Unfinished::default());
        let mut receiving = all.begin(key(1), fresh());
        receiving.part().unwrap().append(Bytes::from_static(b"abc")).await.unwrap();
        let asked = key(1);
        let asking = all.received(&asked);
        let ending = async move {
            tokio::task::yield_now().await;
            drop(receiving);
        };
        assert_eq!(tokio::join!(asking, ending).0, 3);
    }
}
