//! The engine's archive interface speaks tar in both directions: files go in wrapped in one, and come out
//! wrapped in one.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::BackendError;

const CHUNK: usize = 256 * 1024;
const OWNER: u64 = 993;

/// A file to put in.
pub(super) enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// A tar stream with directory `davit/`, `davit/out/` and the given files in the first, all owned by the
/// container's user. Read as it is sent, so no file is in memory as a whole.
pub(super) fn wrap(
    files: Vec<(&'static str, Content)>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(4);
    tokio::spawn(async move {
        if let Err(error) = send_all(files, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    futures_util::stream::poll_fn(move |context| receiver.poll_recv(context))
}

async fn send_all(
    files: Vec<(&'static str, Content)>,
    to: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    for dir in ["davit/", "davit/out/"] {
        to.send(Ok(header(dir, 0, tar::EntryType::Directory, 0o755)?)).await.map_err(gone)?;
    }
    for (name, content) in files {
        let path = format!("davit/{name}");
        let size = match &content {
            Content::File(file) => tokio::fs::metadata(file).await?.len(),
            Content::Bytes(bytes) => bytes.len() as u64,
        };
        to.send(Ok(header(&path, size, tar::EntryType::Regular, 0o644)?)).await.map_err(gone)?;
        match content {
            Content::Bytes(bytes) => to.send(Ok(bytes.into())).await.map_err(gone)?,
            Content::File(file) => {
                let mut file = tokio::fs::File::open(file).await?.take(size);
                loop {
                    let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
                    if file.read_buf(&mut chunk).await? == 0 {
                        break;
                    }
                    to.send(Ok(chunk.freeze())).await.map_err(gone)?;
                }
                if file.limit() != 0 {
                    return Err(io::Error::other("file shrank while it was sent"));
                }
            }
        }
        let padding = (512 - size % 512) % 512;
        to.send(Ok(vec![0; padding as usize].into())).await.map_err(gone)?;
    }
    to.send(Ok(vec![0; 1024].into())).await.map_err(gone)
}

fn header(path: &str, size: u64, kind: tar::EntryType, mode: u32) -> io::Result<Bytes> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(OWNER);
    header.set_gid(OWNER);
    header.set_mtime(0);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

/// Takes the one regular file out of the tar stream that the engine sends for it, into `target`.
/// More than `limit` bytes, or anything but a file, is an error; nothing larger is ever written.
pub(super) async fn unwrap_file<E: std::fmt::Display>(
    stream: impl Stream<Item = Result<Bytes, E>>,
    target: &Path,
    limit: u64,
    item: std::time::Duration,
) -> Result<(), BackendError> {
    let wrapped = tempfile::NamedTempFile::new_in(target.parent().unwrap_or(Path::new("/"))).map_err(host)?;
    let mut file = tokio::fs::File::from_std(wrapped.reopen().map_err(host)?);
    let mut stream = std::pin::pin!(stream);
    let mut total = 0;
    loop {
        let next = tokio::time::timeout(item, stream.next()).await;
        let Some(chunk) = next.map_err(|_| BackendError::Deadline("fetching a file from the builder"))?
        else {
            break;
        };
        let chunk = chunk.map_err(|e| BackendError::BadOutput(e.to_string()))?;
        total += chunk.len() as u64;
        if total > limit + 64 * 1024 {
            return Err(BackendError::BadOutput(format!("the build left more than {limit} bytes")));
        }
        tokio::io::AsyncWriteExt::write_all(&mut file, &chunk).await.map_err(host)?;
    }
    tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(host)?;
    let target = target.to_owned();
    let copied = tokio::task::spawn_blocking(move || copy_only_entry(wrapped.path(), &target));
    copied.await.map_err(|e| BackendError::Host(e.to_string()))?
}

fn copy_only_entry(wrapped: &Path, target: &Path) -> Result<(), BackendError> {
    let mut archive = tar::Archive::new(std::fs::File::open(wrapped).map_err(host)?);
    let mut entries = archive.entries().map_err(host)?;
    let first = entries.next().ok_or_else(|| BackendError::BadOutput("the build left nothing".into()))?;
    let mut entry = first.map_err(host)?;
    if entry.header().entry_type() != tar::EntryType::Regular {
        return Err(BackendError::BadOutput("the build left something that is not a file".into()));
    }
    let mut out = std::fs::File::create(target).map_err(host)?;
    io::copy(&mut entry, &mut out).map_err(host)?;
    Ok(())
}

fn host(error: io::Error) -> BackendError {
    BackendError::Host(error.to_string())
}
