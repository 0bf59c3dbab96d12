//! What a runtime does to a source ahead of its first start, done by a warm container of the runtime: the files
//! travel there and back as one event and its answer, so nothing of the source is run.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use davit_link::{InitRequest, InvokeHead, Kind};
use davit_registry::BuildJob;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::pack;
use super::recipe::Prepare;
use super::warm::Warm;

/// For all of it; a builder is the way out.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Serialize)]
struct Event {
    files: BTreeMap<String, String>,
}

/// What came back.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prepared {
    files: BTreeMap<String, String>,
    note: Option<String>,
}

/// Lets `warm` prepare the files: those to add, and a line for the build's log. Whatever goes wrong, the error says
/// it, and a builder can do the same.
pub(super) async fn run(
    job: &BuildJob,
    prepare: &Prepare,
    mut warm: Warm,
    files: BTreeMap<String, Vec<u8>>,
) -> Result<(BTreeMap<String, Vec<u8>>, Option<String>), String> {
    let deadline = Instant::now() + LIMIT;
    // Its output is of no interest, and must not fill up.
    let mut events = warm.events.take();
    let drained = tokio::spawn(async move {
        while let Some(events) = &mut events
            && events.recv().await.is_some()
        {}
    });
    let (request, code) = request(job, prepare, warm.instance.to_string()).map_err(|e| e.to_string())?;
    warm.link.init(request, code, deadline).await.map_err(|e| e.to_string())?;
    let encoded = files.iter().map(|(path, content)| (path.clone(), BASE64.encode(content)));
    let event = serde_json::to_vec(&Event { files: encoded.collect() }).map_err(|e| e.to_string())?;
    let head = InvokeHead {
        request_id: uuid::Uuid::new_v4().to_string(),
        deadline_unix_ms: unix_ms(SystemTime::now() + LIMIT),
        arn: String::new(),
        trace_id: String::new(),
        client_context: None,
        timeout_seconds: None,
        result_window: 0,
    };
    let answer = warm.link.invoke(head, event.into(), deadline).await.map_err(|e| e.to_string())?;
    drop(warm);
    drained.abort();
    let prepared: Prepared = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
    let decoded = prepared.files.into_iter().map(|(path, text)| Ok((path, BASE64.decode(text)?)));
    let decoded: Result<_, base64::DecodeError> = decoded.collect();
    let note = prepared.note.map(|note| note.chars().filter(|c| !c.is_control()).take(200).collect());
    Ok((decoded.map_err(|e| e.to_string())?, note))
}

fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// The handler is part of the image, so the bundle that goes along is one empty folder.
fn request(job: &BuildJob, prepare: &Prepare, stream: String) -> io::Result<(InitRequest, std::fs::File)> {
    use std::io::{Seek as _, Write as _};
    let mut bundle = Vec::new();
    let empty = BTreeMap::from([("empty".to_owned(), pack::Kind::Folder)]);
    pack::write(&empty, |_| Ok(io::empty()), &mut bundle)?;
    let mut file = tempfile::tempfile()?;
    file.write_all(&bundle)?;
    file.rewind()?;
    let request = InitRequest {
        function_name: job.function.to_string(),
        version: job.number.to_string(),
        namespace: job.namespace.to_string(),
        kind: Kind::Handler,
        handler: prepare.handler.clone(),
        command: Vec::new(),
        env: prepare.env.clone(),
        memory_mb: job.spec.memory_mb,
        timeout_seconds: u32::try_from(LIMIT.as_secs()).unwrap_or(u32::MAX),
        concurrency: 1,
        init_timeout_ms: u64::try_from(LIMIT.as_millis()).unwrap_or(u64::MAX),
        arn: String::new(),
        log_group: "/davit/build".into(),
        log_stream: stream,
        bundle_digest: davit_api::Digest::from_bytes(Sha256::digest(&bundle).into()).to_string(),
        bundle_size: bundle.len() as u64,
        code_mounted: false,
        answers_asks: false,
        debugger: None,
    };
    Ok((request, file))
}
