//! The gateway's end against agents that a test plays.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use davit_link::frame::{FIRST_ASK, Frame, FrameKind, HEADER_BYTES, body_frames};
use davit_link::socket::{self, Inbox, Outbox, Wire};
use davit_link::{
    InitRequest, InvokeHead, Kind, Limits, Link, LinkError, LinkEvent, Place, RESULT_WINDOW, Reply,
};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn json(kind: FrameKind, stream: u32, body: &str) -> Frame {
    Frame { kind, stream, body: Bytes::copy_from_slice(body.as_bytes()) }
}

fn head(id: &str) -> InvokeHead {
    let arn = String::new();
    InvokeHead {
        request_id: id.into(),
        deadline_unix_ms: 0,
        arn,
        trace_id: String::new(),
        client_context: None,
        timeout_seconds: None,
        result_window: 0,
    }
}

async fn pair() -> (Link, mpsc::Receiver<LinkEvent>, Outbox, Inbox) {
    let folder = tempfile::tempdir().unwrap();
    // Longer than a socket address can be.
    let deep = folder.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let path = deep.join("agent.sock");
    let connecting = tokio::spawn({
        let path = path.clone();
        async move { Link::connect(&Place::Socket(path), soon()).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    // Bound under a short name, then moved to where it is looked for.
    let short = folder.path().join("s");
    let listener = UnixListener::bind(&short).unwrap();
    std::fs::rename(&short, &path).unwrap();
    let (outbox, inbox) = socket::split(Wire::Unix(listener.accept().await.unwrap().0));
    tokio::spawn(outbox.clone().drive());
    outbox.send([json(FrameKind::Hello, 0, r#"{"protocol":1,"runtime":"test"}"#)]);
    let (link, events) = connecting.await.unwrap().unwrap();
    assert_eq!(link.runtime(), "test");
    (link, events, outbox, inbox)
}

async fn expect(inbox: &mut Inbox, kind: FrameKind) -> (Frame, Option<OwnedFd>) {
    let (frame, fd) = inbox.next().await.unwrap().unwrap();
    assert_eq!(frame.kind, kind);
    (frame, fd)
}

#[tokio::test]
async fn secret_files_go_only_to_agents_that_take_them_and_the_others_are_named() {
    // The agent of `pair` says nothing of them, as older ones do.
    let (link, _events, _outbox, _inbox) = pair().await;
    assert!(link.give_secret_files([]).is_ok(), "a function without any starts there as ever");
    match link.give_secret_files([("a", "hunter2")]) {
        Err(LinkError::Failure(failure)) => {
            assert_eq!(failure.kind, davit_link::FailureKind::InitFailed);
            assert!(failure.message.contains("too old") && !failure.message.contains("hunter2"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn calls_are_answered_in_any_order() {
    let (link, _events, outbox, mut inbox) = pair().await;
    let call = |id: &'static str| {
        let link = link.clone();
        tokio::spawn(async move { link.invoke(head(id), Bytes::from(vec![1; 1_000_000]), soon()).await })
    };
    let (one, two) = (call("one"), call("two"));
    let mut streams = Vec::new();
    let mut bytes = 0;
    while streams.len() < 2 || bytes < 2_000_000 {
        let (frame, _) = inbox.next().await.unwrap().unwrap();
        match frame.kind {
            FrameKind::Invoke => {
                let head: InvokeHead = serde_json::from_slice(&frame.body).unwrap();
                streams.push((frame.stream, head.request_id));
            }
            _ => bytes += frame.body.len(),
        }
    }
    for (stream, id) in streams.into_iter().rev() {
        outbox.send([json(FrameKind::Result, stream, r#"{"content_type":"text/plain"}"#)]);
        outbox.send(body_frames(stream, Bytes::from(id.repeat(200_000))));
    }
    assert_eq!(one.await.unwrap().unwrap().body, "one".repeat(200_000));
    assert_eq!(two.await.unwrap().unwrap().body, "two".repeat(200_000));
}

#[tokio::test]
async fn a_bundle_and_a_socket_travel_as_descriptors() {
    let (link, _events, outbox, mut inbox) = pair().await;
    let mut bundle = tempfile::tempfile().unwrap();
    bundle.write_all(b"bundle").unwrap();
    let request = InitRequest {
        function_name: "f".into(),
        version: "1".into(),
        namespace: "n".into(),
        kind: Kind::Server,
        handler: String::new(),
        command: vec![],
        env: BTreeMap::new(),
        memory_mb: 128,
        timeout_seconds: 3,
        concurrency: 1,
        init_timeout_ms: 1,
        arn: String::new(),
        log_group: String::new(),
        log_stream: String::new(),
        bundle_digest: String::new(),
        bundle_size: 6,
        code_mounted: false,
        answers_asks: false,
        debugger: None,
    };
    let agent = async {
        let (frame, fd) = expect(&mut inbox, FrameKind::Init).await;
        let mut file = std::fs::File::from(fd.unwrap());
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bundle");
        outbox.send([json(FrameKind::InitDone, frame.stream, r#"{"unpack_ms":1.0,"start_ms":2.0}"#)]);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (frame, _) = expect(&mut inbox, FrameKind::Open).await;
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        outbox.send_with_descriptor(Frame::empty(FrameKind::Opened, frame.stream), socket.into());
        listener.accept().unwrap().0.write_all(b"hi").unwrap();
        // Not a connected socket: a listener must not pass.
        let (frame, _) = expect(&mut inbox, FrameKind::Open).await;
        outbox.send_with_descriptor(Frame::empty(FrameKind::Opened, frame.stream), listener.into());
    };
    let gateway = async {
        assert_eq!(link.init(request, bundle, soon()).await.unwrap().start_ms, 2.0);
        let mut stream = link.open(soon()).await.unwrap();
        stream.set_nonblocking(false).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
        assert!(matches!(link.open(soon()).await, Err(LinkError::Protocol(_))));
    };
    tokio::join!(agent, gateway);
}

#[tokio::test]
async fn dropping_a_call_cancels_it_and_dropping_the_link_closes_it() {
    let (link, mut events, _outbox, mut inbox) = pair().await;
    let call = link.invoke(head("x"), Bytes::new(), soon());
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    let (invoke, _) = expect(&mut inbox, FrameKind::Invoke).await;
    expect(&mut inbox, FrameKind::End).await;
    assert_eq!(expect(&mut inbox, FrameKind::Cancel).await.0.stream, invoke.stream);
    drop(link);
    assert!(inbox.next().await.unwrap().is_none());
    assert!(matches!(events.recv().await, Some(LinkEvent::Closed)));
}

#[tokio::test]
async fn the_end_of_the_instance_reaches_every_caller() {
    let (link, mut events, outbox, mut inbox) = pair().await;
    let waiting = tokio::spawn({
        let link = link.clone();
        async move { link.invoke(head("x"), Bytes::new(), soon()).await }
    });
    expect(&mut inbox, FrameKind::Invoke).await;
    outbox.send([
        json(FrameKind::Log, 0, r#"[{"stream":"stdout","line":"bye","at_unix_us":1}]"#),
        json(FrameKind::Exited, 0, r#"{"kind":"OutOfMemory","message":"no"}"#),
    ]);
    outbox.flushed().await;
    outbox.close();
    assert!(matches!(waiting.await.unwrap(), Err(LinkError::Failure(_))));
    assert!(matches!(events.recv().await, Some(LinkEvent::Log(lines)) if lines[0].line == "bye"));
    assert!(matches!(events.recv().await, Some(LinkEvent::Exited(_))));
    assert!(matches!(events.recv().await, Some(LinkEvent::Closed)));
    assert!(link.is_closed());
    assert!(matches!(link.ping(soon()).await, Err(LinkError::Failure(_))));
}

#[tokio::test]
async fn an_agent_that_is_there_may_say_what_it_may_use() {
    let (link, _events, outbox, mut inbox) = pair().await;
    let agent = async {
        let (old, _) = expect(&mut inbox, FrameKind::Ping).await;
        outbox.send([Frame::empty(FrameKind::Pong, old.stream)]);
        let (new, _) = expect(&mut inbox, FrameKind::Ping).await;
        outbox.send([json(FrameKind::Pong, new.stream, r#"{"memory_bytes":1024,"cpu_millis":50}"#)]);
        let (bad, _) = expect(&mut inbox, FrameKind::Ping).await;
        outbox.send([json(FrameKind::Pong, bad.stream, "[]")]);
    };
    let gateway = async {
        assert_eq!(link.limits(soon()).await.unwrap(), None);
        let said = Limits { memory_bytes: 1_024, cpu_millis: 50 };
        assert_eq!(link.limits(soon()).await.unwrap(), Some(said));
        assert!(matches!(link.ping(soon()).await, Err(LinkError::Protocol(_))));
    };
    tokio::join!(agent, gateway);
}

#[tokio::test]
async fn an_agent_whose_machine_wants_it_gone_says_so_and_stays_until_it_is_let_go() {
    let (link, mut events, outbox, _inbox) = pair().await;
    assert!(!link.is_leaving());
    outbox.send([Frame::empty(FrameKind::Leaving, 0)]);
    assert!(matches!(events.recv().await, Some(LinkEvent::Leaving)));
    assert!(link.is_leaving() && !link.is_closed());
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_nonsense_at_once() {
    let (link, _events, outbox, mut inbox) = pair().await;
    let short = Instant::now() + Duration::from_millis(30);
    assert!(matches!(link.ping(short).await, Err(LinkError::Deadline)));
    expect(&mut inbox, FrameKind::Ping).await;
    outbox.send([json(FrameKind::Invoke, 1, "{}")]);
    assert!(matches!(link.ping(soon()).await, Err(LinkError::Protocol(_))));
    let nowhere = Place::Socket("/nonexistent/agent.sock".into());
    assert!(matches!(
        Link::connect(&nowhere, Instant::now() + Duration::from_millis(20)).await,
        Err(LinkError::Deadline)
    ));
}

#[tokio::test]
async fn a_streamed_result_comes_piece_by_piece_and_credit_goes_back() {
    let (link, _events, outbox, mut inbox) = pair().await;
    let agent = async {
        let (frame, _) = expect(&mut inbox, FrameKind::Invoke).await;
        let asked: InvokeHead = serde_json::from_slice(&frame.body).unwrap();
        assert_eq!(asked.result_window, RESULT_WINDOW);
        expect(&mut inbox, FrameKind::End).await;
        outbox.send([json(
            FrameKind::Result,
            frame.stream,
            r#"{"content_type":"text/plain","streamed":true}"#,
        )]);
        // One window, exactly.
        let body = Bytes::from(vec![1; RESULT_WINDOW as usize / 2 - HEADER_BYTES]);
        for _ in 0..2 {
            outbox.send([Frame { kind: FrameKind::Data, stream: frame.stream, body: body.clone() }]);
        }
        for _ in 0..2 {
            let (credit, _) = expect(&mut inbox, FrameKind::Credit).await;
            assert_eq!(credit.stream, frame.stream);
            assert_eq!(credit.body, &(RESULT_WINDOW / 2).to_le_bytes()[..]);
        }
        outbox
            .send([json(FrameKind::Data, frame.stream, "more"), Frame::empty(FrameKind::End, frame.stream)]);
        inbox
    };
    let gateway = async {
        let Reply::Streamed(mut stream) = link.call(head("x"), Bytes::new(), soon()).await.unwrap() else {
            panic!("not streamed")
        };
        assert_eq!(stream.content_type(), "text/plain");
        let mut size = 0;
        while let Some(part) = stream.next().await {
            size += part.unwrap().len();
        }
        assert_eq!(size, RESULT_WINDOW as usize - 2 * HEADER_BYTES + 4);
        assert!(stream.next().await.is_none());
    };
    let (mut inbox, ()) = tokio::join!(agent, gateway);
    // It ended by itself, so nothing is cancelled.
    drop(link);
    assert!(inbox.next().await.unwrap().is_none());
}

#[tokio::test]
async fn an_agent_that_knows_no_streams_answers_whole() {
    let (link, _events, outbox, mut inbox) = pair().await;
    let agent = async {
        let (frame, _) = expect(&mut inbox, FrameKind::Invoke).await;
        outbox.send([json(FrameKind::Result, frame.stream, r#"{"content_type":"text/plain"}"#)]);
        outbox.send(body_frames(frame.stream, Bytes::from(vec![1; 2 * RESULT_WINDOW as usize])));
    };
    let (answer, ()) = tokio::join!(link.call(head("x"), Bytes::new(), soon()), agent);
    assert!(matches!(answer, Ok(Reply::Whole(result)) if result.body.len() == 2 * RESULT_WINDOW as usize));
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_cancelled_and_one_that_overruns_ends_the_link() {
    let (link, _events, outbox, mut inbox) = pair().await;
    for overrun in [false, true] {
        let agent = async {
            let (frame, _) = expect(&mut inbox, FrameKind::Invoke).await;
            expect(&mut inbox, FrameKind::End).await;
            let streamed = r#"{"content_type":"","streamed":true}"#;
            outbox.send([json(FrameKind::Result, frame.stream, streamed)]);
            frame.stream
        };
        let (answer, stream) = tokio::join!(link.call(head("x"), Bytes::new(), soon()), agent);
        let Ok(Reply::Streamed(mut result)) = answer else { panic!("not streamed") };
        if overrun {
            let body = Bytes::from(vec![1; RESULT_WINDOW as usize]);
            outbox.send([Frame { kind: FrameKind::Data, stream, body }]);
            assert!(matches!(result.next().await, Some(Err(LinkError::Protocol(_)))));
            assert!(link.is_closed());
        } else {
            drop(result);
            assert_eq!(expect(&mut inbox, FrameKind::Cancel).await.0.stream, stream);
        }
    }
}

fn ask(size: usize) -> Frame {
    let body = format!(r#"{{"method":"POST","target":"/v1/x","headers":[],"size":{size}}}"#);
    json(FrameKind::Ask, FIRST_ASK, &body)
}

async fn asked(events: &mut mpsc::Receiver<LinkEvent>) -> davit_link::Ask {
    match events.recv().await {
        Some(LinkEvent::Asked(ask)) => ask,
        other => panic!("nothing was asked: {other:?}"),
    }
}

#[tokio::test]
async fn what_a_function_asks_for_is_answered_and_long_bodies_come_when_they_are_wanted() {
    let (_link, mut events, outbox, mut inbox) = pair().await;
    let data = |bytes: usize| body_frames(FIRST_ASK, Bytes::from(vec![7; bytes]));
    outbox.send(std::iter::once(ask(3)).chain(data(3)));
    let small = asked(&mut events).await;
    assert_eq!((small.head.target.as_str(), small.body.whole().await.unwrap().len()), ("/v1/x", 3));
    let head = davit_link::AnswerHead { status: 200, headers: vec![("a".into(), "b".into())] };
    small.to.send(&head, Bytes::from_static(b"yes"));
    let (answer, _) = expect(&mut inbox, FrameKind::Answer).await;
    assert_eq!(
        (answer.stream, serde_json::from_slice::<davit_link::AnswerHead>(&answer.body).unwrap()),
        (FIRST_ASK, head)
    );
    assert_eq!(expect(&mut inbox, FrameKind::Data).await.0.body, "yes");
    expect(&mut inbox, FrameKind::End).await;

    outbox.send([ask(1_000_000)]);
    let large = asked(&mut events).await;
    let body = tokio::spawn(async move { (large.body.whole().await, large.to) });
    let (credit, _) = expect(&mut inbox, FrameKind::Credit).await;
    assert_eq!(credit.body[..], 1_000_000_u32.to_le_bytes());
    outbox.send(data(1_000_000));
    let (body, unanswered) = body.await.unwrap();
    assert_eq!(body.unwrap().len(), 1_000_000);
    drop(unanswered);
    expect(&mut inbox, FrameKind::Cancel).await;
}

#[tokio::test]
async fn who_takes_back_what_he_asked_for_is_noticed_and_so_is_the_end_of_the_link() {
    let (_link, mut events, outbox, inbox) = pair().await;
    outbox.send([ask(1_000_000)]);
    let mut first = asked(&mut events).await;
    outbox.send([Frame::empty(FrameKind::Cancel, FIRST_ASK)]);
    first.to.gone().await;
    assert!(first.body.whole().await.is_none());
    outbox.send([ask(1_000_000)]);
    let mut second = asked(&mut events).await;
    outbox.close();
    drop(inbox);
    second.to.gone().await;
}

#[tokio::test]
async fn an_agent_that_asks_for_more_than_it_may_ends_its_link() {
    let too_many =
        (0..=davit_link::ASKS as u32).map(|n| Frame { stream: FIRST_ASK + n, ..ask(1) }).collect::<Vec<_>>();
    let more_bytes = std::iter::once(ask(3)).chain(body_frames(FIRST_ASK, Bytes::from_static(b"four")));
    let fewer_bytes = std::iter::once(ask(3)).chain(body_frames(FIRST_ASK, Bytes::from_static(b"2b")));
    for frames in [too_many, vec![ask(7_000_000)], more_bytes.collect(), fewer_bytes.collect()] {
        let (link, mut events, outbox, _inbox) = pair().await;
        outbox.send(frames);
        // What is asked for is kept, or its place would be free again.
        let mut kept = Vec::new();
        loop {
            match events.recv().await {
                Some(LinkEvent::Asked(ask)) => kept.push(ask),
                Some(LinkEvent::Closed) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(link.is_closed() && kept.len() <= davit_link::ASKS);
    }
}
