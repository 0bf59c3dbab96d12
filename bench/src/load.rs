//! A closed-loop HTTP/1.1 load: a fixed number of connections, each sending its next request when the last
//! answer is complete. Bounded in count; talks to loopback or a Unix socket only.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Where to send requests.
#[derive(Clone)]
pub(crate) enum Address {
    /// A port on 127.0.0.1.
    Port(u16),
    /// A Unix socket.
    Socket(PathBuf),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(address: &Address) -> crate::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Port(port) => {
            let stream = TcpStream::connect(("127.0.0.1", *port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Address::Socket(path) => Box::new(UnixStream::connect(path).await?),
    })
}

/// One GET on a connection; the answer must be 200 and carry a Content-Length.
async fn exchange(stream: &mut dyn Stream, request: &[u8], buffer: &mut Vec<u8>) -> crate::Result<()> {
    stream.write_all(request).await?;
    buffer.clear();
    let (head, length) = loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the connection was closed before the answer".into());
        }
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
            if !head.starts_with("http/1.1 200") {
                return Err(format!("not a 200: {}", String::from_utf8_lossy(buffer)).into());
            }
            let length =
                head.lines().find_map(|l| l.strip_prefix("content-length:")).ok_or("no content-length")?;
            break (end + 4, length.trim().parse::<usize>()?);
        }
    };
    while buffer.len() < head + length {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the connection was closed within the answer".into());
        }
    }
    Ok(())
}

/// Time of one request on a fresh connection.
pub(crate) async fn once(address: &Address, path: &str) -> crate::Result<Duration> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let start = Instant::now();
    let mut stream = connect(address).await?;
    exchange(&mut *stream, request.as_bytes(), &mut Vec::with_capacity(4096)).await?;
    Ok(start.elapsed())
}

/// Requests per second, and the median latency in milliseconds, of `count` requests over `connections`.
pub(crate) async fn closed_loop(
    address: &Address,
    path: &str,
    connections: usize,
    count: usize,
) -> crate::Result<(f64, f64)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(connect(address).await?);
    }
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut stream in streams {
        let (request, share) = (request.clone(), count / connections);
        tasks.spawn(async move {
            let mut buffer = Vec::with_capacity(4096);
            let mut times = Vec::with_capacity(share);
            for _ in 0..share {
                let sent = Instant::now();
                exchange(&mut *stream, request.as_bytes(), &mut buffer).await?;
                times.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            crate::Result::Ok(times)
        });
    }
    let mut times = Vec::with_capacity(count);
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Ok((rate, times[times.len() / 2]))
}
