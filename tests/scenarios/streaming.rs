//! Handlers that stream, from a real runtime to a real client.

use std::time::Duration;

use davit_e2e::{Davit, eventually};
use reqwest::Response;

const SETTINGS: &str =
    "access = \"public\"\npayload = \"body\"\nmemory_mb = 128\ntimeout_seconds = 60\nmax_instances = 1";
const MIB: usize = 1024 * 1024;
/// More than the whole result of any other call may have.
const DOWNLOAD_MIB: usize = 60;

/// Writes as much as it is asked for, as fast as it can get rid of it, and fails where it is told to.
const DOWNLOAD: &str = "
const { once } = require('node:events');
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  const out = awslambda.HttpResponseStream.from(stream, { statusCode: 203, headers: { 'x-size': String(event.mib) }, cookies: ['seen=1'] });
  for (let i = 0; i < event.mib; i++) {
    if (i === event.fail_at) throw new Error('the disk is gone');
    if (i === event.exit_at) process.exit(7);
    if (!out.write(Buffer.alloc(1048576, 97 + (i % 26)))) await once(out, 'drain');
  }
  out.end();
});
";

async fn download(davit: &Davit, event: &str) -> Response {
    let request = davit.http.post(davit.url("/default/download")).body(event.to_owned());
    request.timeout(Duration::from_secs(60)).send().await.unwrap()
}

/// Reads an answer to its end; how many bytes came, and whether it was whole.
async fn rest(mut answer: Response) -> (usize, bool) {
    let mut size = 0;
    loop {
        match answer.chunk().await {
            Ok(Some(part)) => size += part.len(),
            Ok(None) => return (size, true),
            Err(_) => return (size, false),
        }
    }
}

/// A figure of the process in KiB, as the kernel has it.
fn memory_kib(davit: &Davit, name: &str) -> u64 {
    let path = format!("/proc/{}/status", davit.pid().as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn events_arrive_while_the_handler_still_works() {
    let davit = Davit::up().await;
    davit.cli().deploy_example("event-stream").await;
    let url = davit.url("/default/event-stream?pause_ms=700");
    let mut answer = davit.http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let first = answer.chunk().await.unwrap().unwrap();
    let first = String::from_utf8_lossy(&first);
    assert!(first.contains("fetching") && !first.contains("done"), "{first}");
    assert!(busy(&davit).await, "the handler is at it");
    let mut all = first.into_owned();
    while let Some(part) = answer.chunk().await.unwrap() {
        all.push_str(&String::from_utf8_lossy(&part));
    }
    assert_eq!(all.matches("event: progress\n").count(), 4, "{all}");
    assert!(all.ends_with("data: {\"step\":\"done\",\"of\":4}\n\n"), "{all}");
}

#[tokio::test]
async fn a_large_result_passes_at_the_clients_pace_and_davit_holds_little_of_it() {
    let davit = Davit::up().await;
    let toml =
        format!("name = \"download\"\nruntime = \"node20\"\nhandler = \"index.handler\"\n{SETTINGS}\n");
    davit.cli().deploy_files(&[("davit.toml", &toml), ("index.js", DOWNLOAD)]).await;
    assert_eq!(rest(download(&davit, r#"{"mib":1}"#).await).await, (MIB, true));

    let before = memory_kib(&davit, "VmHWM:");
    let answer = download(&davit, &format!("{{\"mib\":{DOWNLOAD_MIB}}}")).await;
    assert_eq!(answer.status(), 203);
    assert_eq!(answer.headers()["x-size"], "60");
    assert_eq!(answer.headers()["set-cookie"], "seen=1");
    // Not reading for a while: what is written meanwhile has to wait in the function.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(busy(&davit).await, "it cannot have got rid of all that");
    assert_eq!(rest(answer).await, (DOWNLOAD_MIB * MIB, true));
    let grown = memory_kib(&davit, "VmHWM:") - before;
    assert!(grown < 16 * 1024, "davit took {grown} KiB for it");

    // Doors that need a whole result say that this is too much of one.
    let refused = davit.api().invoke("download", &serde_json::json!({"mib": DOWNLOAD_MIB})).await;
    assert_eq!((refused.status, refused.code()), (502, "function_response_too_large"), "{refused:?}");
}

#[tokio::test]
async fn a_failure_in_the_middle_is_seen_and_costs_nobody_else_anything() {
    let davit = Davit::up().await;
    let toml =
        format!("name = \"download\"\nruntime = \"node20\"\nhandler = \"index.handler\"\n{SETTINGS}\n");
    davit.cli().deploy_files(&[("davit.toml", &toml), ("index.js", DOWNLOAD)]).await;
    let answer = download(&davit, r#"{"mib":9,"fail_at":3}"#).await;
    assert_eq!(answer.status(), 203);
    assert_eq!(rest(answer).await, (3 * MIB, false));
    // Whoever wants it whole is told the error itself.
    let told = davit.api().invoke("download", &serde_json::json!({"mib": 2, "fail_at": 1})).await;
    assert_eq!((told.status, told.code()), (502, "function_error"), "{told:?}");
    assert_eq!(told.body["function_error"]["errorMessage"], "the disk is gone");
    eventually("the error to be in the log", async || {
        let log = davit.cli().run(&["logs", "download"]).await;
        if log.stdout.contains("the disk is gone") { Ok(()) } else { Err(log) }
    })
    .await;
    let (size, whole) = rest(download(&davit, r#"{"mib":9,"exit_at":2}"#).await).await;
    assert!(size <= 2 * MIB && !whole);
    assert_eq!(rest(download(&davit, r#"{"mib":1}"#).await).await, (MIB, true));

    // A client that goes away ends the call and gives the only slot back.
    drop(download(&davit, r#"{"mib":190}"#).await);
    assert_eq!(rest(download(&davit, r#"{"mib":1}"#).await).await, (MIB, true));
    eventually(
        "every slot to be free",
        async || {
            if busy(&davit).await { Err(davit.status().await) } else { Ok(()) }
        },
    )
    .await;
}

async fn busy(davit: &Davit) -> bool {
    let status = davit.status().await;
    let fleets = status["gateway"]["fleets"].as_array().cloned().unwrap_or_default();
    fleets.iter().any(|fleet| fleet["in_use"] != 0)
}
