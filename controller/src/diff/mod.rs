//! What is different between two versions: settings and files. Pure but for reading the archives.

mod files;
mod settings;

use davit_api::{ApiError, Change, Digest, ErrorCode, VersionDiff, VersionView};
use davit_registry::{Registry, RegistryError};

/// Compares two versions of a function. `lines`: with the lines of text files that differ.
pub(crate) async fn compare(
    registry: &Registry,
    from: VersionView,
    to: VersionView,
    lines: bool,
) -> Result<VersionDiff, RegistryError> {
    let old = registry.schedules_of_version(from.id).await?;
    let new = registry.schedules_of_version(to.id).await?;
    let mut settings = settings::changes(&(from.spec, old), &(to.spec, new));
    if from.image_id != to.image_id {
        settings.push(Change { setting: "image_id".into(), old: from.image_id, new: to.image_id });
    }
    let mut diff = VersionDiff { from: from.number, to: to.number, settings, files: Vec::new(), cut: false };
    if from.source == to.source {
        return Ok(diff);
    }
    let (old, new) = (archive(registry, from.source).await?, archive(registry, to.source).await?);
    let compared = tokio::task::spawn_blocking(move || files::changes(&old, &new, lines)).await;
    let compared = compared.map_err(|e| {
        RegistryError::Refused(ApiError::new(ErrorCode::Internal, format!("comparing ended: {e}")))
    })?;
    (diff.files, diff.cut) = compared.map_err(|e| RegistryError::Damaged(format!("source archive: {e}")))?;
    Ok(diff)
}

/// A source archive, at most [`davit_api::limits::SOURCE_BYTES`].
async fn archive(registry: &Registry, digest: Digest) -> Result<Vec<u8>, RegistryError> {
    registry.open_artifact(digest).await?.read_all().await
}
