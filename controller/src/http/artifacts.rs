//! Source archives: received into a file, checked whole, and only then stored.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom, Write};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use davit_api::{ArtifactAccepted, Digest, ErrorCode, NamespaceName, limits};
use futures_util::StreamExt;
use http::header;
use sha2::{Digest as _, Sha256};
use tokio_util::io::ReaderStream;

use super::ApiState;
use super::error::{Answer, Failure};
use super::extract::{Changes, Path, next_piece, refuse_encoding};
use crate::source::{self, Checked};

/// Uploads a source archive: a gzip-compressed tar of plain files and folders, at most 64 MiB, named by the
/// SHA-256 of the bytes sent.
#[utoipa::path(put, path = "/v1/namespaces/{ns}/artifacts/{digest}",
    params(("ns" = NamespaceName, Path), ("digest" = Digest, Path)),
    request_body(content = Vec<u8>, content_type = "application/gzip"),
    responses((status = 200, body = ArtifactAccepted)))]
pub(super) async fn put(
    State(state): State<ApiState>,
    Changes(changes): Changes,
    Path((namespace, digest)): Path<(NamespaceName, Digest)>,
    request: Request,
) -> Answer<Json<ArtifactAccepted>> {
    let busy = || Failure::new(ErrorCode::Unavailable, "too many uploads at a time; try again");
    let _turn = state.uploads.try_acquire().map_err(|_| busy())?;
    state.registry.namespace_id(&namespace).await?;
    refuse_encoding(request.headers())?;
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > limits::SOURCE_BYTES as u64) {
        return Err(too_large());
    }
    let (file, found) = receive(request.into_body()).await?;
    if found != digest {
        return Err(Failure::invalid(format!("the body has the digest {found}, and the path says {digest}")));
    }
    let archive = state.settings.archive;
    let (file, checked) = blocking(move || {
        let mut reader = BufReader::new(file);
        let checked = source::check(&mut reader, archive).map_err(|e| Failure(e.into()))?;
        let mut file = reader.into_inner();
        file.seek(SeekFrom::Start(0)).map_err(storage)?;
        Ok((file, checked))
    })
    .await?;
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 256 * 1024).boxed();
    changes.put_artifact(digest, chunks).await?;
    let Checked { files, bytes } = checked;
    Ok(Json(ArtifactAccepted { digest, files: files as u64, bytes }))
}

/// Writes the body to a nameless file, which is gone with its descriptor however this ends.
async fn receive(mut body: Body) -> Answer<(File, Digest)> {
    let mut file = blocking(|| tempfile::tempfile().map_err(storage)).await?;
    let mut hash = Sha256::new();
    let mut size = 0;
    while let Some(piece) = next_piece(&mut body).await? {
        size += piece.len();
        if size > limits::SOURCE_BYTES {
            return Err(too_large());
        }
        hash.update(&piece);
        file = blocking(move || {
            file.write_all(&piece).map_err(storage)?;
            Ok(file)
        })
        .await?;
    }
    let file = blocking(move || {
        file.seek(SeekFrom::Start(0)).map_err(storage)?;
        Ok(file)
    })
    .await?;
    Ok((file, Digest::from_bytes(hash.finalize().into())))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Answer<T> + Send + 'static) -> Answer<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the work on an upload failed");
        Err(Failure::new(ErrorCode::Internal, "internal error"))
    })
}

fn storage(error: std::io::Error) -> Failure {
    tracing::error!(%error, "an upload could not be kept");
    Failure::new(ErrorCode::Unavailable, "the upload could not be kept: no space for it at the moment")
}

fn too_large() -> Failure {
    Failure::new(
        ErrorCode::TooLarge,
        format!(
            "the archive is larger than {} MiB; leave out what is not needed with .davitignore",
            limits::SOURCE_BYTES >> 20
        ),
    )
}
