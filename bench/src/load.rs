//! A closed-loop HTTP/1.1 load: a fixed number of connections, each sending its next request when the last
//! answer is complete. Bounded in count; talks to loopback only.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest that one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request, ready to be sent any number of times.
#[derive(Clone)]
pub(crate) struct Request {
    /// The port on 127.0.0.1 that it goes to.
    pub(crate) port: u16,
    bytes: Vec<u8>,
}

impl Request {
    /// A GET.
    pub(crate) fn get(port: u16, path: &str) -> Self {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        Self { port, bytes }
    }

    /// What is sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A POST of JSON, with more header lines.
    pub(crate) fn post(port: u16, path: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let more: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n{body}",
            body.len()
        );
        Self { port, bytes: text.into_bytes() }
    }
}

async fn connect(port: u16) -> crate::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request on a connection; the answer must be a 2xx and carry a Content-Length. Leaves it in the buffer.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> crate::Result<()> {
    stream.write_all(request).await?;
    buffer.clear();
    let (head, length) = loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the connection was closed before the answer".into());
        }
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
            if !head.starts_with("http/1.1 2") {
                return Err(format!("not a 2xx: {}", String::from_utf8_lossy(buffer)).into());
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

/// Time of one request on a fresh connection, in milliseconds, and the answer with its header.
pub(crate) async fn once(request: &Request) -> crate::Result<(f64, String)> {
    let work = async {
        let mut buffer = Vec::with_capacity(4096);
        let start = Instant::now();
        let mut stream = connect(request.port).await?;
        exchange(&mut stream, &request.bytes, &mut buffer).await?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        Ok((ms, String::from_utf8_lossy(&buffer).into_owned()))
    };
    tokio::time::timeout(PATIENCE, work).await?
}

/// Latencies of a closed loop.
pub(crate) struct Seen {
    /// In milliseconds, ascending.
    times: Vec<f64>,
}

impl Seen {
    /// A latency that a share of the answers did not exceed, in milliseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        percentile(&self.times, share)
    }
}

/// A value of an ascending list that a share of the values does not exceed.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
}

/// Sends `count` requests over `connections`.
pub(crate) async fn closed_loop(request: &Request, connections: usize, count: usize) -> crate::Result<Seen> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(connect(request.port).await?);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for mut stream in streams {
        let (bytes, share) = (request.bytes.clone(), count / connections);
        tasks.spawn(async move {
            let mut buffer = Vec::with_capacity(4096);
            let mut times = Vec::with_capacity(share);
            for _ in 0..share {
                let sent = Instant::now();
                tokio::time::timeout(PATIENCE, exchange(&mut stream, &bytes, &mut buffer)).await??;
                times.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            crate::Result::Ok(times)
        });
    }
    let mut times = Vec::with_capacity(count);
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    times.sort_by(f64::total_cmp);
    Ok(Seen { times })
}

/// Sends one request after the other over one connection until the time is over.
pub(crate) async fn steady(request: &Request, time: Duration) -> crate::Result<Seen> {
    let mut stream = connect(request.port).await?;
    let mut buffer = Vec::with_capacity(4096);
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let sent = Instant::now();
        tokio::time::timeout(PATIENCE, exchange(&mut stream, &request.bytes, &mut buffer)).await??;
        times.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(Seen { times })
}

/// Sends a request at most every so often over one connection until the time is over: a load that leaves the machine to
/// others.
pub(crate) async fn paced(request: &Request, every: Duration, time: Duration) -> crate::Result<Seen> {
    let mut stream = connect(request.port).await?;
    let mut buffer = Vec::with_capacity(4096);
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let sent = Instant::now();
        tokio::time::timeout(PATIENCE, exchange(&mut stream, &request.bytes, &mut buffer)).await??;
        times.push(sent.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep_until((sent + every).into()).await;
    }
    times.sort_by(f64::total_cmp);
    Ok(Seen { times })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|p| percentile(&values, p)), [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }
}
