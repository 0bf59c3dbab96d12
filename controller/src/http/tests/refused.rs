//! What a client sees that is refused while it still sends, over a real connection.

use davit_api::{Role, limits};
use davit_daemon::{Limits, listener};
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Api;
use crate::http::extract::JSON_BYTES;

/// Sends everything before it reads, as many clients do.
async fn send(address: std::net::SocketAddr, head: &str, size: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b' '; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let now = left.min(piece.len());
        stream.write_all(&piece[..now]).await.expect("the server takes what is sent");
        left -= now;
    }
    let mut answer = vec![0; 16];
    stream.read_exact(&mut answer).await.expect("an answer, not a reset");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn who_sends_too_much_gets_the_answer_that_says_so() {
    let api = Api::start().await;
    let token = api.token(Role::Admin, None).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let serving =
        tokio::spawn(listener::serve(listener, api.router.clone(), Limits::default(), stop.clone()));
    let digest = format!("sha256:{}", "0".repeat(64));
    let upload = format!("PUT /v1/namespaces/own/artifacts/{digest}");
    let add = "POST /v1/namespaces/own/functions/f/schedules".to_owned();
    for (line, token, size, wanted) in [
        (&upload, token.as_str(), limits::SOURCE_BYTES / 2, StatusCode::BAD_REQUEST),
        (&upload, &token, limits::SOURCE_BYTES + 1, StatusCode::PAYLOAD_TOO_LARGE),
        (&upload, "no such token", 8 << 20, StatusCode::UNAUTHORIZED),
        (&add, &token, JSON_BYTES + 1, StatusCode::PAYLOAD_TOO_LARGE),
        (&add, &token, 16 << 20, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let head = |framing: String| {
            format!(
                "{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n{framing}\r\n\r\n"
            )
        };
        let answer = send(address, &head(format!("content-length: {size}")), size).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {}", wanted.as_u16())),
            "{answer} to {size} bytes: {line}"
        );
    }
    stop.cancel();
    serving.await.unwrap();
}
