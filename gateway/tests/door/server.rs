//! A server as a function would be one: echoes what it was sent, streams, misbehaves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server inside an instance: echoes the head, streams, or switches to an echo of bytes.
pub(crate) async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        let length = head_value(&head, "content-length").map_or(0, |n| n.parse().unwrap());
                        let mut body = vec![0; length];
                        if stream.read_exact(&mut body).await.is_err() {
                            return;
                        }
                        head.extend_from_slice(&body);
                        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                        if !answer(&mut stream, &text).await {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn answer(stream: &mut TcpStream, head: &str) -> bool {
    let path = head.split(' ').nth(1).unwrap();
    match path {
        "/ws" => {
            let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: k\r\n\r\n";
            stream.write_all(switch.as_bytes()).await.unwrap();
            let mut buffer = [0; 64];
            while let Ok(n) = stream.read(&mut buffer).await {
                if n == 0 || stream.write_all(&buffer[..n]).await.is_err() {
                    break;
                }
            }
            false
        }
        "/unasked" => {
            let switch =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.write_all(switch.as_bytes()).await.unwrap();
            false
        }
        "/drip" => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(150)).await;
            stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.is_ok()
        }
        "/never" => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            false
        }
        "/flood" => {
            let mut part = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            while stream.write_all(&part).await.is_ok() {
                part = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
            }
            false
        }
        "/until-close" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it").await.unwrap();
            false
        }
        "/more" => {
            // What follows the answer belongs to nobody.
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n")
                .await
                .is_ok()
        }
        "/cut" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut").await.unwrap();
            false
        }
        path if path.starts_with("/bad/") => {
            let head = match &path[5..] {
                "lengths" => "content-length: 2\r\ncontent-length: 3\r\n".to_owned(),
                "both" => "content-length: 2\r\ntransfer-encoding: chunked\r\n".into(),
                "number" => "content-length: 0x2\r\n".into(),
                "coding" => "transfer-encoding: gzip, chunked\r\n".into(),
                "headers" => (0..150).map(|n| format!("h{n}: x\r\n")).collect(),
                "interim" => "\r\n".to_owned() + &"HTTP/1.1 100 Continue\r\n\r\n".repeat(50),
                _ => "fold: a\r\n b\r\n".into(),
            };
            let status = if path.ends_with("interim") { "100 Continue" } else { "200 OK" };
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n{head}\r\nok").as_bytes()).await;
            false
        }
        "/once" => {
            let closing = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(closing.as_bytes()).await.unwrap();
            false
        }
        _ => {
            let response = format!(
                "HTTP/1.1 200 OK\r\nx-hop: 1\r\nconnection: x-hop\r\nx-mine: yes\r\ncontent-length: {}\r\n\r\n{head}",
                head.len()
            );
            stream.write_all(response.as_bytes()).await.is_ok()
        }
    }
}

/// The value of a header in the bytes of a head.
fn head_value(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head).into_owned();
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// A gRPC server as far as HTTP is concerned: echoes path and message, and says how it went in trailers.
pub(crate) async fn grpc_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.headers().get("te").unwrap(), "trailers");
                let said = format!("{} {:?}: ", request.uri().path(), request.version());
                let message = request.into_body().collect().await.unwrap().to_bytes();
                let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
                let body = Full::new(Bytes::from([said.as_bytes(), &message].concat()));
                let body = body.with_trailers(async move { Some(Ok::<_, Infallible>(trailers)) });
                Ok::<_, Infallible>(Response::new(body))
            });
            let connection = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}
