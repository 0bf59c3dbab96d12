//! The agent from outside: a real process in namespaces of its own, spoken to over the link.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{Instance, bundle, head, request, soon};
use davit_link::{Debugger, FailureKind, InitRequest, Kind, LinkError};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A runtime in Python's standard library that does what the event says.
const RUNTIME: &str = r#"#!/usr/bin/env python3
import http.client, json, os, sys, time
api = "/2018-06-01/runtime"
def work(worker):
    c = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    def call(method, path, body=None, headers={}):
        c.request(method, api + path, body, headers)
        answer = c.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    while True:
        status, headers, event = call("GET", "/invocation/next")
        assert headers["Content-Type"] == "application/json", headers
        rid = headers["Lambda-Runtime-Aws-Request-Id"]
        e = json.loads(event) if len(event) < 100000 else {"echo": True}
        path = "/invocation/%s/" % rid
        if "print" in e: print(e["print"], flush=True)
        if "sleep" in e: time.sleep(e["sleep"])
        if "exit" in e: os._exit(e["exit"])
        if "kill" in e: os.kill(os.getpid(), e["kill"]); time.sleep(9)
        if "size" in e: call("POST", path + "response", b"x" * e["size"]); continue
        if "error" in e:
            call("POST", path + "error", json.dumps({"errorMessage": e["error"], "errorType": "ValueError"}),
                 {"Lambda-Runtime-Function-XRay-Error-Cause": "x" * 1000000})
            continue
        if "stream" in e:
            c.putrequest("POST", api + path + "response")
            for k, v in (("Transfer-Encoding", "chunked"), ("Lambda-Runtime-Function-Response-Mode", "streaming"),
                         ("Content-Type", "application/vnd.awslambda.http-integration-response"),
                         ("Trailer", "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body")):
                c.putheader(k, v)
            c.endheaders()
            end = b"" if e["stream"] == "good" else (b"Lambda-Runtime-Function-Error-Type: Error\r\n"
                b"Lambda-Runtime-Function-Error-Body: eyJlcnJvck1lc3NhZ2UiOiJtaWQiLCJlcnJvclR5cGUiOiJFcnJvciJ9\r\n")
            c.send(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n" + end + b"\r\n")
            assert c.getresponse().read()
            continue
        answer = {"event": e, "headers": headers, "env": dict(os.environ), "worker": worker, "pid": os.getpid(),
                  "files": sorted(os.listdir("/var/task"))}
        status, _, body = call("POST", path + "response", event if e.get("echo") else json.dumps(answer))
        assert (status, json.loads(body)) == (202, {"status": "OK"}), (status, body)
        status, _, body = call("POST", path + "response", "again")
        assert status == 400 and json.loads(body)["errorType"] == "InvalidRequestID", body
import threading
n = int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1"))
threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
for t in threads: t.start()
for t in threads: t.join()
os._exit(9)
"#;

async fn running() -> Instance {
    let instance = Instance::start(None).await;
    instance.init(request(Kind::Handler), &[("bootstrap", RUNTIME)]).await.unwrap();
    instance
}

fn failure<T: std::fmt::Debug>(result: Result<T, LinkError>) -> davit_link::Failure {
    match result {
        Err(LinkError::Failure(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

/// As [`RUNTIME`] on the outside; inside it has something that listens where a debugger would, and answers in capitals.
const DEBUGGED: &str = r#"#!/usr/bin/env python3
import http.client, os, socket, threading
def answer(listener):
    while True:
        other, _ = listener.accept()
        other.sendall(other.recv(99).upper())
listener = socket.create_server(("127.0.0.1", 5678))
threading.Thread(target=answer, args=(listener,), daemon=True).start()
c = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
c.request("GET", "/2018-06-01/runtime/invocation/next")
c.getresponse()
"#;

#[tokio::test]
async fn a_debugger_is_reached_where_the_init_names_one_and_nowhere_else() {
    for debugger in
        [None, Some(Debugger { port: 5678, wait: false }), Some(Debugger { port: 5679, wait: false })]
    {
        let instance = Instance::start(None).await;
        assert!(instance.link().takes_debugger());
        let early = failure(instance.link().open_debugger(soon()).await);
        assert_eq!(early.message, "this version is not deployed for debugging", "there is no version yet");
        let request = InitRequest { debugger, ..request(Kind::Handler) };
        instance.init(request, &[("bootstrap", DEBUGGED)]).await.unwrap();
        let opened = instance.link().open_debugger(soon()).await;
        match debugger.map(|debugger| debugger.port) {
            Some(5678) => {
                let mut opened = opened.unwrap();
                opened.set_nonblocking(false).unwrap();
                opened.write_all(b"stopped").unwrap();
                let mut answer = [0; 7];
                opened.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"STOPPED");
            }
            Some(port) => {
                let said = failure(opened).message;
                let begin = format!("the debugger does not accept connections on port {port}");
                assert!(said.starts_with(&begin), "{said}");
            }
            None => assert_eq!(failure(opened).message, "this version is not deployed for debugging"),
        }
        // It was a question, not the end.
        instance.link().ping(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn code_that_was_mounted_elsewhere_is_unpacked_after_all() {
    let instance = Instance::start(None).await;
    assert!(instance.link().takes_mounted_code());
    let command = vec!["./run".into()];
    let request = InitRequest { command, code_mounted: true, ..request(Kind::Server) };
    let program = "#!/usr/bin/env python3\nimport os, http.server\n\
        http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.BaseHTTPRequestHandler).serve_forever()";
    let done = instance.init(request, &[("run", program)]).await.unwrap();
    assert!(!done.code_mounted);
}

#[tokio::test]
async fn secrets_become_files_that_only_the_function_reads_and_no_second_time() {
    let instance = Instance::start(None).await;
    let long = "\u{1}\n\"é".repeat(10_000);
    let files = [("tls.key", "-----BEGIN\n"), ("long", long.as_str()), ("empty", "")];
    instance.link().give_secret_files(files).unwrap();
    let runtime = RUNTIME.replace(
        "answer = {",
        "s = '/run/secrets/'\n        answer = {'secrets': {n: [oct(os.stat(s + n).st_mode), open(s + n, newline='').read()] for n in os.listdir(s)}, 'folder': oct(os.stat(s).st_mode), ",
    );
    instance.init(request(Kind::Handler), &[("bootstrap", &runtime)]).await.unwrap();
    let result = instance.invoke("r1", "{}", SECONDS(5)).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&result.body).unwrap();
    assert_eq!(answer["folder"], "0o40700");
    assert_eq!(answer["secrets"].as_object().unwrap().len(), 3);
    for (name, contents) in files {
        assert_eq!(answer["secrets"][name], serde_json::json!(["0o100400", contents]), "{name}");
    }
    assert!(!answer["env"].to_string().contains("BEGIN"), "in no variable");
    // A second delivery would be somebody else's: the instance ends.
    let mut instance = instance;
    instance.link().give_secret_files([("late", "x")]).unwrap();
    instance.gone().await;
}

#[tokio::test]
async fn a_secret_that_cannot_become_a_file_is_a_start_that_failed() {
    let instance = Instance::start(None).await;
    instance.link().give_secret_files([("twice", "one"), ("twice", "two")]).unwrap();
    let failed = failure(instance.init(request(Kind::Handler), &[("bootstrap", RUNTIME)]).await);
    assert_eq!(failed.kind, FailureKind::InitFailed);
    assert!(failed.message.contains("/run/secrets/twice") && !failed.message.contains("two"), "{failed}");
}

#[tokio::test]
async fn a_call_reaches_the_runtime_and_its_answer_comes_back() {
    let mut instance = running().await;
    let result = instance.invoke("r1", r#"{"print":"hello"}"#, SECONDS(5)).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&result.body).unwrap();
    assert_eq!(answer["event"]["print"], "hello");
    assert_eq!(answer["headers"]["Lambda-Runtime-Client-Context"], "{\"x\":\"y\"}");
    assert_eq!(answer["env"]["COLOUR"], "blue");
    assert_eq!(answer["env"]["_HANDLER"], "app.handler");
    assert_eq!(answer["env"]["AWS_LAMBDA_FUNCTION_NAME"], "test");
    assert_eq!(answer["files"], serde_json::json!(["bootstrap"]));
    // The answer without its newline arrives byte for byte, whatever it is.
    let result = instance.invoke("r2", r#"{"echo":true,"x":NaN}"#, SECONDS(5)).await.unwrap();
    assert_eq!(&result.body[..], br#"{"echo":true,"x":NaN}"#);
    assert!(!instance.socket().exists());
    instance.link = None;
    let (lines, _) = instance.rest().await;
    assert_eq!(lines[0].line, "hello");
    assert_eq!(lines[0].request_id.as_deref(), Some("r1"));
    instance.gone().await;
}

#[tokio::test]
async fn big_events_and_results_pass_and_bigger_ones_are_named() {
    let instance = running().await;
    let big = format!("{{\"echo\":true,\"x\":\"{}\"}}", "y".repeat(6_000_000));
    let result = instance.invoke("r1", &big, SECONDS(10)).await.unwrap();
    assert_eq!(result.body.len(), big.len());
    let failed = failure(instance.invoke("r2", r#"{"size":6291557}"#, SECONDS(10)).await);
    assert_eq!(failed.kind, FailureKind::ResponseTooLarge);
    assert!(failed.error.unwrap().get().contains("Function.ResponseSizeTooLarge"));
    assert!(instance.invoke("r3", r#"{"size":6291556}"#, SECONDS(10)).await.is_ok());
}

#[tokio::test]
async fn errors_and_streams_keep_their_documents() {
    let instance = running().await;
    let failed = failure(instance.invoke("r1", r#"{"error":"boom"}"#, SECONDS(5)).await);
    assert_eq!((failed.kind, failed.message.as_str()), (FailureKind::FunctionError, "boom"));
    let result = instance.invoke("r2", r#"{"stream":"good"}"#, SECONDS(5)).await.unwrap();
    assert_eq!(&result.body[..], b"abcdef");
    assert_eq!(result.content_type, "application/vnd.awslambda.http-integration-response");
    let failed = failure(instance.invoke("r3", r#"{"stream":"bad"}"#, SECONDS(5)).await);
    assert_eq!((failed.kind, failed.message.as_str()), (FailureKind::FunctionError, "mid"));
}

#[tokio::test]
async fn concurrent_calls_run_side_by_side_and_are_never_crossed() {
    let instance = Instance::start(None).await;
    let request = InitRequest { concurrency: 4, ..request(Kind::Handler) };
    instance.init(request, &[("bootstrap", RUNTIME)]).await.unwrap();
    let begun = Instant::now();
    let calls = (0..8).map(|i| {
        let link = instance.link().clone();
        tokio::spawn(async move {
            let event = format!("{{\"sleep\":0.3,\"n\":{i}}}");
            let result = link.invoke(head(&format!("r{i}"), SECONDS(9)), event.into(), soon()).await.unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&result.body).unwrap();
            assert_eq!(answer["event"]["n"], i);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(1800), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_deadline_ends_the_call_and_the_instance() {
    let mut instance = running().await;
    let begun = Instant::now();
    let failed =
        failure(instance.invoke("r1", r#"{"print":"last","sleep":60}"#, Duration::from_millis(300)).await);
    assert!(begun.elapsed() < SECONDS(2));
    assert_eq!(failed.kind, FailureKind::Timeout);
    assert_eq!(failed.message, "RequestId: r1 Error: Task timed out after 1.00 seconds");
    let (lines, why) = instance.rest().await;
    assert_eq!(lines[0].line, "last");
    assert_eq!(why.unwrap().kind, FailureKind::Timeout);
    instance.gone().await;
}

#[tokio::test]
async fn an_exit_and_a_signal_are_told_apart() {
    let mut instance = running().await;
    let failed = failure(instance.invoke("r1", r#"{"exit":7}"#, SECONDS(5)).await);
    assert_eq!((failed.kind, failed.exit_code), (FailureKind::Exited, Some(7)));
    assert_eq!(failed.message, "RequestId: r1 Error: Runtime exited with error: exit status 7");
    instance.gone().await;
    let instance = running().await;
    let failed = failure(instance.invoke("r1", r#"{"kill":11}"#, SECONDS(5)).await);
    assert_eq!((failed.kind, failed.signal), (FailureKind::Exited, Some(11)));
}

#[tokio::test]
async fn a_cancelled_call_spends_the_instance() {
    let mut instance = running().await;
    let call = instance.invoke("r1", r#"{"sleep":60}"#, SECONDS(60));
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    instance.gone().await;
    assert_eq!(instance.rest().await.1.unwrap().kind, FailureKind::Exited);
}

#[tokio::test]
async fn frozen_processes_stand_still_and_a_call_wakes_them() {
    let instance = Instance::start(None).await;
    let ticking = "#!/bin/sh\n(while :; do echo x >> /run/davit/ticks; sleep 0.01; done) &\nexec python3 ./runtime.py\n";
    instance.init(request(Kind::Handler), &[("bootstrap", ticking), ("runtime.py", RUNTIME)]).await.unwrap();
    let ticks = || std::fs::metadata(instance.socket().with_file_name("ticks")).map_or(0, |m| m.len());
    while ticks() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    instance.link().freeze().await.unwrap();
    let before = ticks();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ticks(), before);
    instance.link().thaw().await.unwrap();
    instance.invoke("r1", "{}", SECONDS(5)).await.unwrap();
    while ticks() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    instance.link().freeze().await.unwrap();
    instance.invoke("r2", "{}", SECONDS(5)).await.unwrap();
    instance.link().ping(soon()).await.unwrap();
}

#[tokio::test]
async fn failed_starts_say_why() {
    let instance = Instance::start(None).await;
    let failed = failure(instance.init(request(Kind::Handler), &[("x", "")]).await);
    assert!(failed.error.unwrap().get().contains("Runtime.InvalidEntrypoint"));

    let mut instance = Instance::start(None).await;
    let failed = failure(
        instance.init(request(Kind::Handler), &[("bootstrap", "#!/bin/sh\necho bad luck\nexit 3\n")]).await,
    );
    assert_eq!((failed.kind, failed.exit_code), (FailureKind::InitFailed, Some(3)));
    assert_eq!(instance.rest().await.0[0].line, "bad luck");

    let instance = Instance::start(None).await;
    let slow = InitRequest { init_timeout_ms: 300, ..request(Kind::Handler) };
    let failed = failure(instance.init(slow, &[("bootstrap", "#!/bin/sh\nsleep 60\n")]).await);
    assert!(failed.message.contains("not ready after 0.30 seconds"), "{failed}");

    let instance = Instance::start(None).await;
    let post = "#!/bin/sh\nexec python3 -c 'import urllib.request as u
u.urlopen(u.Request(\"http://127.0.0.1:9001/2018-06-01/runtime/init/error\", b\"{\\\"errorMessage\\\":\\\"no module\\\",\\\"errorType\\\":\\\"Runtime.ImportModuleError\\\"}\"))'\n";
    let failed = failure(instance.init(request(Kind::Handler), &[("bootstrap", post)]).await);
    assert_eq!((failed.kind, failed.message.as_str()), (FailureKind::InitFailed, "no module"));
}

#[tokio::test]
async fn init_works_once() {
    let mut instance = running().await;
    let (again, size) = bundle(&[("bootstrap", RUNTIME)]);
    let request = InitRequest { bundle_size: size, ..request(Kind::Handler) };
    assert!(instance.link().init(request, again, soon()).await.is_err());
    instance.gone().await;
}

/// Starts before its function is known, then answers one call.
const WARM: &str = r#"
import http.client, json, os, time
c = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def call(method, path, body=None):
    c.request(method, path, body); a = c.getresponse(); return a.status, dict(a.getheaders()), a.read()
time.sleep(0.2)
status, _, body = call("GET", "/davit/init")
assert call("GET", "/davit/init")[0] == 403
while True:
    _, headers, event = call("GET", "/2018-06-01/runtime/invocation/next")
    call("POST", "/2018-06-01/runtime/invocation/%s/response" % headers["Lambda-Runtime-Aws-Request-Id"], body)
"#;

#[tokio::test]
async fn a_warm_runtime_learns_what_it_is() {
    let instance = Instance::start(Some(&["python3", "-c", WARM])).await;
    instance.init(request(Kind::Handler), &[("app.py", "")]).await.unwrap();
    let result = instance.invoke("r1", "{}", SECONDS(5)).await.unwrap();
    let described: InitRequest = serde_json::from_slice(&result.body).unwrap();
    assert_eq!(described.env["COLOUR"], "blue");
    assert_eq!(described.handler, "app.handler");
}

#[tokio::test]
async fn nobody_gets_in_before_the_runtime_is_warm() {
    let mut instance = Instance::start_unlinked(Some(&["sh", "-c", "exit 5"]));
    instance.gone().await;
    assert!(!instance.socket().exists());
}

#[tokio::test]
async fn a_server_hands_its_connections_over() {
    let instance = Instance::start(Some(&["python3", "-c", WARM])).await;
    let command = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "8080"].map(String::from).to_vec();
    let request = InitRequest { command, ..request(Kind::Server) };
    instance.init(request, &[("hello.txt", "hello")]).await.unwrap();
    let mut stream = instance.link().open(soon()).await.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.write_all(b"GET /hello.txt HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_flood_of_output_is_bounded_and_holds_nothing_up() {
    let mut instance = Instance::start(None).await;
    let flood =
        "#!/bin/sh\n(yes 0123456789 | head -c 60000000; echo; echo end) >&2 &\nexec python3 ./runtime.py\n";
    instance.init(request(Kind::Handler), &[("bootstrap", flood), ("runtime.py", RUNTIME)]).await.unwrap();
    for i in 0..20 {
        instance.invoke(&format!("r{i}"), "{}", SECONDS(5)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    instance.link = None;
    let (lines, _) = instance.rest().await;
    let bytes: usize = lines.iter().map(|line| line.line.len()).sum();
    assert!(bytes < 10_000_000, "{bytes}");
}
