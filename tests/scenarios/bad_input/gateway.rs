//! The gateway: events, sizes, names and heads that no function should have to see.

use davit_e2e::Answer;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{davit_and_stranger, refused, state};

const INVOKE: &str = "/v1/namespaces/default/functions/echo/invocations";

#[tokio::test]
async fn calls_that_make_no_sense_are_refused_before_the_function_runs() {
    let (davit, _) = davit_and_stranger().await;
    let (api, before) = (davit.api(), state(&davit).await);
    let post = async |path: &str, body: Vec<u8>| {
        api.send(api.http.post(format!("{}{path}", api.gateway)).body(body)).await
    };
    for (what, path, body) in [
        ("half an object", INVOKE.to_owned(), b"{".to_vec()),
        ("two values", INVOKE.to_owned(), b"{}{}".to_vec()),
        ("not a number", INVOKE.to_owned(), b"NaN".to_vec()),
        ("not UTF-8", INVOKE.to_owned(), b"\"\xff\"".to_vec()),
        ("seven MiB", INVOKE.to_owned(), vec![b' '; 7 << 20]),
        ("two MiB for later", format!("{INVOKE}?async=true"), vec![b' '; 2 << 20]),
        ("an unclear wish", format!("{INVOKE}?async=maybe"), b"{}".to_vec()),
        ("an unknown wish", format!("{INVOKE}?version=1"), b"{}".to_vec()),
        ("no such function", INVOKE.replace("echo", "nothing"), b"{}".to_vec()),
        ("a name in upper case", INVOKE.replace("echo", "ECHO"), b"{}".to_vec()),
        ("no such namespace", INVOKE.replace("default", "nowhere"), b"{}".to_vec()),
        ("a namespace that is none", INVOKE.replace("default", "de_fault"), b"{}".to_vec()),
        ("a very long name", INVOKE.replace("echo", &"e".repeat(5_000)), b"{}".to_vec()),
        ("an unknown place", "/v1/namespaces/default/functions/echo".to_owned(), b"{}".to_vec()),
        ("seven MiB to its address", "/default/echo".to_owned(), vec![b'x'; 7 << 20]),
    ] {
        refused(what, &post(&path, body).await);
    }
    for path in [
        INVOKE,
        "/v1/namespaces/default/invocations/forged",
        "/v1/namespaces/default/invocations/00000000-0000-7000-8000-000000000000",
        "/nowhere/echo",
        "/default/nothing",
    ] {
        refused(path, &api.send(api.http.get(format!("{}{path}", api.gateway))).await);
    }
    for (what, head) in [
        ("seventy KiB of headers", format!("Host: x\r\nX: {}", "a".repeat(70_000))),
        ("two hosts", "Host: x\r\nHost: y".to_owned()),
        ("no host", "X: y".to_owned()),
        ("a host that is none", "Host: a@b/c".to_owned()),
        ("a trace", "Host: x".to_owned()),
    ] {
        let verb = if what == "a trace" { "TRACE" } else { "GET" };
        let answer = raw(&davit.address(), &format!("{verb} /default/echo HTTP/1.1\r\n{head}")).await;
        // A head that is not read to its end may end the connection before the answer is seen.
        let closed = answer.status == 0 && head.len() > 65_536;
        assert!(closed || (400..500).contains(&answer.status), "{what}: {answer:?}");
    }
    let log = davit.cli().run(&["logs", "echo"]).await.stdout;
    assert_eq!(state(&davit).await, before);
    assert!(!log.contains("START"), "none of them got as far as the function: {log}");
}

/// Sends a head and reads the answer; a head that is too large may be refused without a word of JSON.
async fn raw(address: &str, head: &str) -> Answer {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the gateway listens");
    let _ = stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), read).await.expect("it is closed");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
    Answer { status, body: Value::String(text) }
}
