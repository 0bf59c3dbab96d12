//! Content in an object store keeps the promises that it keeps in Postgres.

use std::path::PathBuf;

use bytes::Bytes;
use davit_api::Digest;
use davit_registry::testing::TestDatabase;
use davit_registry::{ContentStore, Registry};
use futures_util::stream;
use sqlx::Connection;

use crate::support::*;

/// A registry whose content goes to a folder.
struct World {
    db: TestDatabase,
    folder: tempfile::TempDir,
    registry: Registry,
}

impl World {
    async fn new() -> Self {
        let (db, folder) = (fresh().await, tempfile::tempdir().unwrap());
        let store: ContentStore = format!("file://{}", folder.path().display()).parse().unwrap();
        store.probe().await.unwrap();
        let registry = db.registry().clone().with_content_in(store);
        Self { db, folder, registry }
    }

    fn objects(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("artifacts"));
        entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }

    async fn sql(&self, statement: &'static str) {
        let mut raw = sqlx::PgConnection::connect(self.db.url()).await.unwrap();
        sqlx::raw_sql(statement).execute(&mut raw).await.unwrap();
    }

    async fn count(&self, statement: &'static str) -> i64 {
        let mut raw = sqlx::PgConnection::connect(self.db.url()).await.unwrap();
        sqlx::query_scalar(statement).fetch_one(&mut raw).await.unwrap()
    }
}

/// Larger than a part of an upload.
fn large() -> (Digest, Vec<u8>) {
    let content: Vec<u8> = (0..12_000_000_u32).map(|n| (n % 251) as u8).collect();
    (digest_of(&content), content)
}

async fn read(registry: &Registry, digest: Digest) -> davit_registry::Result<Vec<u8>> {
    registry.open_artifact(digest).await?.read_all().await
}

#[tokio::test]
async fn content_lies_in_the_store_and_comes_back_whole_or_not_at_all() {
    let world = World::new().await;
    let (digest, content) = large();
    let pieces: Vec<_> = content.chunks(300_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    world.registry.put_artifact(digest, stream::iter(pieces)).await.unwrap();
    world.registry.put_artifact_bytes(digest, content.clone().into()).await.unwrap();
    let empty = stored(&world.registry, b"").await;
    assert_eq!(world.objects().len(), 2, "what is there already is not kept twice");
    assert_eq!(world.count("select count(*) from artifact_chunks").await, 0);
    assert_eq!(read(&world.registry, digest).await.unwrap(), content);
    assert!(read(&world.registry, empty).await.unwrap().is_empty());

    let object = world.objects().into_iter().find(|o| o.metadata().unwrap().len() > 0).unwrap();
    for damaged in
        [&content[..content.len() - 1], &[b"x", &content[1..]].concat(), &[&content[..], b"x"].concat()]
    {
        std::fs::write(&object, damaged).unwrap();
        let error = read(&world.registry, digest).await.unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }
    std::fs::remove_file(&object).unwrap();
    let error = read(&world.registry, digest).await.unwrap_err().to_string();
    assert!(error.contains("is not in the object store"), "{error}");
}

#[tokio::test]
async fn what_breaks_off_or_is_something_else_leaves_nothing() {
    let world = World::new().await;
    let (digest, content) = large();
    let broken = [Ok(Bytes::from(content.clone())), Err(std::io::Error::other("gone"))];
    assert!(world.registry.put_artifact(digest, stream::iter(broken)).await.is_err());
    assert!(world.registry.put_artifact_bytes(digest, Bytes::from_static(b"other")).await.is_err());
    assert!(!world.registry.has_artifact(digest).await.unwrap());
    assert!(world.objects().is_empty(), "{:?}", world.objects());
    assert_eq!(world.count("select count(*) from artifact_uploads").await, 0);
}

#[tokio::test]
async fn content_from_before_stays_readable_and_an_unknown_store_is_named() {
    let world = World::new().await;
    let before = stored(world.db.registry(), b"in postgres").await;
    assert_eq!(read(&world.registry, before).await.unwrap(), b"in postgres");
    let after = stored(&world.registry, b"in the store").await;
    let error = read(world.db.registry(), after).await.unwrap_err().to_string();
    assert!(error.contains("DAVIT_ARTIFACTS_URL"), "{error}");
}

#[tokio::test]
async fn unused_objects_are_collected_and_used_ones_are_not() {
    let world = World::new().await;
    deployed(&world.registry, "f", &spec(), b"used").await;
    stored(&world.registry, b"unused").await;
    // One whose process was killed before its object was published.
    world
        .sql("insert into artifact_uploads (id, object) values ('00000000-0000-7000-8000-000000000001', 'artifacts/x')")
        .await;
    world.sql("update artifacts set touched_at = '2020-01-01'; update artifact_uploads set started_at = '2020-01-01'").await;
    // Without the store nothing that lies there is forgotten.
    assert_eq!(world.db.registry().gc_artifacts().await.unwrap().artifacts, 1);
    assert_eq!((world.objects().len(), world.count("select count(*) from artifact_uploads").await), (2, 3));
    assert_eq!(world.registry.gc_artifacts().await.unwrap().uploads, 2);
    assert_eq!((world.objects().len(), world.count("select count(*) from artifact_uploads").await), (1, 1));
    assert_eq!(read(&world.registry, digest_of(b"used")).await.unwrap(), b"used");
}
