//! Source archives: received into a file, checked whole, and only then stored.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use davit_api::{ArtifactAccepted, ArtifactReceived, Digest, ErrorCode, NamespaceName, limits};
use futures_util::StreamExt;
use http::{HeaderMap, header};
use tokio_util::io::ReaderStream;

use super::ApiState;
use super::error::{Answer, Failure};
use super::extract::{Changes, Path, next_piece, refuse_encoding};
use super::unfinished::{Elsewhere, Part, Receiving};
use crate::source::{self, Checked};

/// Where the body's first byte belongs in the archive, when it is not the first of all: how much has arrived already.
/// The name is that of the IETF's resumable uploads (draft-ietf-httpbis-resumable-upload).
const OFFSET: &str = "upload-offset";

/// Uploads a source archive: a gzip-compressed tar of plain files and folders, at most 64 MiB, named by the
/// SHA-256 of the bytes sent. What has arrived of one that broke off is kept for a quarter of an hour; the rest may then
/// be sent with a header `Upload-Offset` that says how many bytes are there already. Another number is a conflict.
#[utoipa::path(put, path = "/v1/namespaces/{ns}/artifacts/{digest}",
    params(("ns" = NamespaceName, Path), ("digest" = Digest, Path), ("upload-offset" = Option<u64>, Header)),
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
    let offset = offset(request.headers())?;
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.unwrap_or(0).saturating_add(offset) > limits::SOURCE_BYTES as u64 {
        return Err(too_large());
    }
    let receiving = match offset {
        0 => {
            let file = blocking(|| tempfile::tempfile().map_err(storage)).await?;
            state.unfinished.begin((namespace, digest), Part::new(file))
        }
        offset => state.unfinished.go_on((namespace, digest), offset).map_err(elsewhere)?,
    };
    let (file, found) = receive(request.into_body(), receiving).await?;
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

/// How much has arrived of an upload that broke off.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/artifacts/{digest}",
    params(("ns" = NamespaceName, Path), ("digest" = Digest, Path)),
    responses((status = 200, body = ArtifactReceived)))]
pub(super) async fn received(
    State(state): State<ApiState>,
    Path((namespace, digest)): Path<(NamespaceName, Digest)>,
) -> Answer<Json<ArtifactReceived>> {
    state.registry.namespace_id(&namespace).await?;
    let received = state.unfinished.received(&(namespace, digest)).await;
    Ok(Json(ArtifactReceived { received }))
}

fn offset(headers: &HeaderMap) -> Answer<u64> {
    let Some(value) = headers.get(OFFSET) else { return Ok(0) };
    let number = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    number.and_then(|text| text.parse().ok()).ok_or_else(|| {
        Failure::invalid(format!("{OFFSET}: must be the number of bytes that are here already"))
    })
}

fn elsewhere(found: Elsewhere) -> Failure {
    let why = match found {
        Elsewhere::At(0) => "nothing of this archive is here; send all of it".to_owned(),
        Elsewhere::At(size) => format!("{size} bytes of this archive are here"),
        Elsewhere::Busy => "another request sends this archive at the moment".to_owned(),
    };
    Failure::new(ErrorCode::Conflict, format!("{OFFSET}: {why}"))
}

/// Takes the body up to its end. What has arrived when it breaks off is kept.
async fn receive(mut body: Body, mut receiving: Receiving) -> Answer<(File, Digest)> {
    while let Some(piece) = next_piece(&mut body).await? {
        let Some(part) = receiving.part() else { break };
        if part.size() + piece.len() as u64 > limits::SOURCE_BYTES as u64 {
            drop(receiving.end());
            return Err(too_large());
        }
        part.append(piece).await.map_err(storage)?;
    }
    let whole = receiving.end().ok_or_else(|| Failure::new(ErrorCode::Internal, "internal error"))?;
    let (mut file, digest) = whole.finish().map_err(storage)?;
    file.rewind().map_err(storage)?;
    Ok((file, digest))
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
