//! A server that costs as little as a server can: one thread, one answer, kept-alive connections. A request's body
//! is read over. `davit-bench` deploys it as a server function and runs it as nginx's upstream.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::ANSWER;

/// Longest request that is understood, header and body together.
const REQUEST_BYTES: usize = 256 * 1024;

/// Serves on 127.0.0.1 until it is killed. Each answer takes `pause`, in which nothing is done, as if it waited for
/// another service.
pub(crate) fn run(port: &str, pause: Duration) -> io::Result<()> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(connection(stream, pause));
        }
    })
}

async fn connection(mut stream: TcpStream, pause: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        while let Some(length) = request_length(&buffer) {
            buffer.drain(..length);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            stream.write_all(ANSWER).await?;
        }
        if buffer.len() > REQUEST_BYTES || stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Bytes of the first request in the buffer, once it is there as a whole. Bodies come with a length.
fn request_length(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]);
    let body = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .unwrap_or(0);
    (buffer.len() >= head + body).then_some(head + body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_after_its_body() {
        let request = b"POST /events HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET";
        assert_eq!(request_length(request), Some(request.len() - 3));
        assert_eq!(request_length(&request[..request.len() - 4]), None);
        assert_eq!(request_length(b"GET / HTTP/1.1\r\n\r\n"), Some(18));
        assert_eq!(request_length(b"GET / HTTP/1.1\r\n"), None);
    }
}
