//! Code that instances share, with real mounts and agents that speak the real protocol. Mounts need root; without it
//! these say so and pass, unless `DAVIT_TEST_MOUNTS=required`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test code")]

mod support;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use davit_api::{Digest, InstanceId};
use davit_gateway::instances::{Bundles, Sharing, Source};
use davit_gateway::version::LiveVersion;
use davit_link::code::{Mounts, Trees};
use futures_util::future::BoxFuture;
use serde_json::json;
use sha2::Digest as _;
use support::{Seen, World, version};

/// A gateway's data plane and the controller's half of sharing.
struct Shared {
    world: World,
    mounts: Mounts,
    state: PathBuf,
}

impl Shared {
    fn new() -> Option<Self> {
        let (mut mounts, mut state) = (None, PathBuf::new());
        let world = World::with_bundles(
            |_| {},
            |bundles, dir| {
                state = dir.to_owned();
                mounts = Mounts::open(dir).map_err(|why| eprintln!("skipped: {why}")).ok();
                bundles.shared(Sharing::open(dir))
            },
        );
        if mounts.is_none() {
            assert_ne!(std::env::var("DAVIT_TEST_MOUNTS").as_deref(), Ok("required"));
        }
        Some(Self { world, mounts: mounts?, state })
    }

    /// What the controller does before it starts a container, and a fake one.
    async fn container(&self, version: &LiveVersion, sees_mounts: bool) -> (Arc<Seen>, PathBuf) {
        let id = InstanceId::new();
        std::fs::create_dir_all(self.state.join("instances").join(id.to_string())).unwrap();
        let point = self.mounts.make(&id.to_string(), 1).unwrap();
        let seen = self.world.container_as(id, version, None).await;
        seen.sees_mounts.store(sees_mounts, SeqCst);
        (seen, point)
    }

    fn unpack(&self, version: &LiveVersion, text: &str) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&archive(text)).unwrap();
        let size = file.metadata().unwrap().len();
        Trees::open(self.state.join("bundles")).unwrap().make(&version.bundle.hex(), file, size).unwrap();
    }

    fn way(&self) -> String {
        self.world.instances.shared().bundles.way()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for name in Mounts::left(&self.state) {
            let _ = self.mounts.remove(&name);
        }
        let _ = self.mounts.close();
    }
}

fn archive(text: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, "app.py", text.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

struct Gives(Vec<u8>);
impl Source for Gives {
    fn fetch<'a>(&'a self, _: Digest, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { std::fs::write(to, &self.0) })
    }
}

fn file(point: &Path) -> Option<String> {
    std::fs::read_to_string(point.join("app.py")).ok()
}

#[tokio::test]
async fn a_cold_start_gets_its_code_by_a_mount_once_it_is_unpacked() {
    let Some(stage) = Shared::new() else { return };
    let (early, late) = (version(|_| {}), version(|_| {}));
    let (seen, point) = stage.container(&early, true).await;
    stage.world.call(&early, json!({})).await.unwrap();
    assert_eq!((seen.mounted.load(SeqCst), file(&point)), (0, None), "nobody waits for a tree");
    stage.unpack(&late, "code");
    let (seen, point) = stage.container(&late, true).await;
    stage.world.call(&late, json!({})).await.unwrap();
    assert_eq!((seen.mounted.load(SeqCst), file(&point).as_deref()), (1, Some("code")));
    assert_eq!(stage.way(), "shared");
}

#[tokio::test]
async fn a_live_version_is_unpacked_ahead_and_only_what_was_checked() {
    let Some(stage) = Shared::new() else { return };
    let bundles = |bytes: &[u8]| {
        let bundles = Bundles::new(stage.state.join("bundles"), Box::new(Gives(bytes.to_vec()))).unwrap();
        bundles.shared(Sharing::open(&stage.state))
    };
    let digest = Digest::from_bytes(sha2::Sha256::digest(archive("code")).into());
    let tree = stage.state.join("bundles").join(digest.hex());
    assert!(bundles(&archive("evil")).prepare(digest).await.is_err());
    assert!(!tree.exists());
    let good = bundles(&archive("code"));
    assert!(!good.is_prepared(digest));
    good.prepare(digest).await.unwrap();
    assert!(good.is_prepared(digest));
    assert_eq!(file(&tree).as_deref(), Some("code"));

    // What is no archive is fetched, and left to the instances, which say what is wrong with it.
    let digest = Digest::from_bytes(sha2::Sha256::digest(b"no archive").into());
    let bad = bundles(b"no archive");
    bad.prepare(digest).await.unwrap();
    assert!(bad.is_prepared(digest) && bad.has(digest), "it is not tried again all the time");
    assert!(!bad.give(InstanceId::new(), digest));
}

#[tokio::test]
async fn an_instance_without_a_mount_point_is_sent_its_bundle() {
    let Some(stage) = Shared::new() else { return };
    let v = version(|_| {});
    stage.unpack(&v, "code");
    let seen = stage.world.container(&v).await;
    stage.world.call(&v, json!({})).await.unwrap();
    assert_eq!((seen.mounted.load(SeqCst), seen.inits.load(SeqCst)), (0, 1));
    assert_eq!(stage.way(), "shared");
}

#[tokio::test]
async fn mounts_that_do_not_arrive_end_sharing_and_no_call_fails() {
    let Some(stage) = Shared::new() else { return };
    let (one, two) = (version(|_| {}), version(|_| {}));
    stage.unpack(&one, "code");
    let (seen, _) = stage.container(&one, false).await;
    stage.world.call(&one, json!({})).await.unwrap();
    assert_eq!(seen.mounted.load(SeqCst), 1);
    assert!(stage.way().contains("do not appear in containers"), "{}", stage.way());
    let (seen, _) = stage.container(&two, false).await;
    stage.world.call(&two, json!({})).await.unwrap();
    assert_eq!(seen.mounted.load(SeqCst), 0, "it is not tried again");
}
