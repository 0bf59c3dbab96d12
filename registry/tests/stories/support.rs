//! A function in a few words.

use davit_api::{Digest, FunctionKind, FunctionName, NamespaceName, NewVersion, VersionSpec, VersionView};
use davit_registry::testing::TestDatabase;
use davit_registry::{Registry, RegistryError};
use sha2::Digest as _;

pub(crate) const IMAGE: &str = "sha256:1234";

pub(crate) fn ns() -> NamespaceName {
    "shop".parse().unwrap()
}

pub(crate) fn name(text: &str) -> FunctionName {
    text.parse().unwrap()
}

pub(crate) fn spec() -> VersionSpec {
    VersionSpec {
        handler: "app.handler".into(),
        ..VersionSpec::new("python3.13".parse().unwrap(), FunctionKind::Handler)
    }
}

pub(crate) fn digest_of(content: &[u8]) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(content).into())
}

pub(crate) async fn fresh() -> TestDatabase {
    let db = TestDatabase::new().await;
    db.registry().as_davit("test").ensure_namespace(&ns()).await.unwrap();
    db
}

pub(crate) async fn stored(registry: &Registry, content: &'static [u8]) -> Digest {
    let digest = digest_of(content);
    registry.put_artifact_bytes(digest, content.into()).await.unwrap();
    digest
}

/// Accepts a version and carries it to `starting`.
pub(crate) async fn built(
    registry: &Registry,
    function: &str,
    spec: &VersionSpec,
    source: &'static [u8],
) -> VersionView {
    let digest = stored(registry, source).await;
    let version = registry
        .as_davit("test")
        .create_version(&ns(), &name(function), &NewVersion::of(spec.clone(), digest))
        .await
        .unwrap()
        .version;
    let job = registry.claim_build(uuid::Uuid::new_v4()).await.unwrap().unwrap();
    assert_eq!(job.version_id, version.id);
    registry.finish_build(version.id, digest, source.len() as u64, IMAGE).await.unwrap();
    version
}

pub(crate) async fn deployed(
    registry: &Registry,
    function: &str,
    spec: &VersionSpec,
    source: &'static [u8],
) -> VersionView {
    let version = built(registry, function, spec, source).await;
    registry.version_ready_and_live(version.id).await.unwrap()
}

pub(crate) async fn function_id(registry: &Registry, function: &str) -> davit_api::FunctionId {
    registry.function_detail(&ns(), &name(function)).await.unwrap().summary.id
}

pub(crate) fn code<T: std::fmt::Debug>(outcome: Result<T, RegistryError>) -> davit_api::ErrorCode {
    outcome.unwrap_err().into_api().code
}
