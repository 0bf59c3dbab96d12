//! The express way beside the usual one: nobody can tell them apart, and what misbehaves is bounded alike.

use std::collections::BTreeSet;
use std::time::Duration;

use davit_api::{FunctionKind, InstanceId};
use davit_gateway::instances::Standing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::until;
use crate::{Door, body, door, public, server, serving, status};

/// A harmless header that the express way leaves to the usual one.
const USUAL: &str = "te: trailers\r\n";

/// Header lines in any order and case, without those that differ from call to call.
fn lines(head: &str) -> BTreeSet<String> {
    let own = ["date:", "x-davit-invocation-id:", "x-davit-request-id:"];
    let lines = head.lines().skip(1).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some(format!("{}:{}", name.to_ascii_lowercase(), value.trim()))
    });
    lines.filter(|line| !own.iter().any(|name| line.starts_with(name))).collect()
}

/// What a client saw: status, headers, body. The echoed request in the body is compared by its lines, too.
fn seen(answer: &str) -> (u16, BTreeSet<String>, String, BTreeSet<String>, String) {
    let (head, told) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let mut headers = lines(head);
    // An echo is as long as the names in it, and the usual way writes them in small letters.
    headers.retain(|line| !line.starts_with("content-length:") || told.is_empty());
    let (first, rest) = told.split_once("\r\n").unwrap_or((told, ""));
    let (echoed, sent) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
    (status(answer), headers, first.to_owned(), lines(echoed), sent.to_owned())
}

async fn by(door: &Door, method: &str, path: &str, headers: &str, body: &str) -> String {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: X.example.com:80\r\nconnection: close\r\n{headers}\r\n{body}"
    );
    door.raw(request.as_bytes()).await
}

#[tokio::test]
async fn functions_and_clients_cannot_tell_it_from_the_usual_way() {
    let (door, _, _) = serving().await;
    for (method, path, headers, body) in [
        ("GET", "/shop/orders", "", ""),
        ("GET", "/shop/orders/a%20b/?x=%2F&y", "Accept: */*\r\nX-Many: a\r\nX-Many: b\r\n", ""),
        (
            "GET",
            "/shop/orders/a?",
            "X-Forwarded-For: 9.9.9.9\r\nX-Davit-Anything: 1\r\nForwarded: for=x\r\n",
            "",
        ),
        ("GET", "/shop/orders/a", "Authorization: Bearer dvt_shop\r\nCookie: a=b\r\n", ""),
        (
            "GET",
            "/shop/orders/a",
            "Authorization: Basic abc\r\nProxy-Authorization: x\r\nKeep-Alive: 5\r\n",
            "",
        ),
        ("HEAD", "/shop/orders/a", "", ""),
        ("DELETE", "/shop/orders/a", "", ""),
        ("POST", "/shop/orders/a", "Content-Length: 5\r\nContent-Type: text/plain\r\n", "hello"),
        ("PUT", "/shop/orders/a", "content-length: 0\r\n", ""),
        ("GET", "/shop/orders/drip", "", ""),
        ("GET", "/shop/orders/until-close", "", ""),
        ("GET", "/shop/orders/once", "", ""),
    ] {
        let express = by(&door, method, path, headers, body).await;
        let usual = by(&door, method, path, &format!("{headers}{USUAL}"), body).await;
        assert_eq!(seen(&express), seen(&usual), "{method} {path} {headers:?}\n{express}\n{usual}");
        assert!(express.contains("x-davit-invocation-id: "), "{express}");
    }
}

#[tokio::test]
async fn answers_that_could_be_read_two_ways_are_named_errors() {
    let (door, v, _) = serving().await;
    for path in ["lengths", "both", "number", "coding", "headers", "interim", "fold"] {
        let answer = by(&door, "GET", &format!("/shop/orders/bad/{path}"), "", "").await;
        assert_eq!(
            (status(&answer), body(&answer)["code"].as_str()),
            (502, Some("function_bad_response")),
            "{path}"
        );
    }
    until("every slot is back", || door.world.instances.fleet(&v).counts().in_use == 0).await;
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_turn_and_handlers_take_over_the_connection() {
    let (door, _, _) = serving().await;
    let request = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n");
    let all = [
        request("/shop/orders/1", ""),
        request("/shop/orders/more", ""),
        "POST /shop/orders/2 HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody".to_owned(),
        request("/healthz", ""),
        request("/shop/orders/3", "connection: close\r\n"),
        request("/shop/orders/4", ""),
    ];
    let answers = door.raw(all.concat().as_bytes()).await;
    let order = ["GET /1 ", "ok", "POST /2 ", "body", "ok\n", "GET /3 "];
    let mut at = 0;
    for part in order {
        at += answers[at..].find(part).unwrap_or_else(|| panic!("{part} is missing or too early: {answers}"));
    }
    assert!(!answers.contains("GET /4 "), "nothing follows the last: {answers}");
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let (door, _, _) = serving().await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request =
        b"POST /shop/orders/slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc";
    for byte in request {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(status(&answer) == 200 && answer.ends_with("\r\n\r\nabc"), "{answer}");
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_slot_and_a_cut_answer_is_cut() {
    let (door, v, _) = serving().await;
    let in_use = || door.world.instances.fleet(&v).counts().in_use;
    let mut gone = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        stream.write_all(b"GET /shop/orders/never HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        gone.push(stream);
    }
    until("all wait", || in_use() == 4).await;
    let abandoned = door.world.metrics.calls_abandoned.get();
    drop(gone);
    until("the slots are back", || in_use() == 0).await;
    // A call's slot comes back a moment before the call is counted off.
    until("they count as given up, not as too late", || {
        door.world.metrics.calls_abandoned.get() - abandoned == 4
    })
    .await;
    let answer = by(&door, "GET", "/shop/orders/cut", "", "").await;
    assert!(answer.contains("content-length: 9") && answer.ends_with("cut"), "{answer}");
}

#[tokio::test]
async fn what_a_server_asks_for_joins_its_callers_trace_by_either_way() {
    let v = public(|s| {
        s.kind = FunctionKind::Server;
        s.timeout_seconds = 30;
    });
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    let (instance, _) = door.world.instance(InstanceId::new(), &v, Some(server().await)).await;
    let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    for way in ["", USUAL] {
        for (sent, expected) in [(trace, Some(trace)), ("Root=1-$(reboot)", None)] {
            let mut client = TcpStream::connect(door.address).await.unwrap();
            let request =
                format!("GET /shop/orders/never HTTP/1.1\r\nhost: a\r\n{way}X-Amzn-Trace-Id: {sent}\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let has_it = || matches!(instance.ledger.standing(None), Standing::Call(_));
            until("the call is under way", has_it).await;
            let Standing::Call(call) = instance.ledger.standing(None) else { panic!("{way:?}") };
            assert_eq!(call.trace_id.as_deref(), expected, "{way:?} {sent}");
            drop(client);
            until("the call is over", || !has_it()).await;
        }
    }
}

/// Clients connect and then send; a door that shuts in between would fail a call that nobody could have known better of.
#[tokio::test]
async fn who_connected_before_the_end_has_one_call_and_who_lies_idle_has_none() {
    let (door, _, _) = serving().await;
    let mut idle = TcpStream::connect(door.address).await.unwrap();
    idle.write_all(b"GET /shop/orders HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 4096]).await.unwrap() > 0);
    let mut fresh = Vec::new();
    for _ in ["", USUAL] {
        fresh.push(TcpStream::connect(door.address).await.unwrap());
    }
    door.world.stop.cancel();
    idle.read_to_end(&mut Vec::new()).await.unwrap();
    for (mut client, header) in fresh.into_iter().zip(["", USUAL]) {
        let request = format!("GET /shop/orders HTTP/1.1\r\nHost: h\r\n{header}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    }
}
