//! An open load: requests come when they come, whether or not those before were answered. Only so can more be offered
//! than is served. Bounded in time, connections and rate; talks to loopback only.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use crate::load::Request;

/// Longest that one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is offered.
#[derive(Clone, Copy)]
pub(crate) struct Offer {
    /// Connections that take turns.
    pub(crate) connections: usize,
    /// Requests a second, over all of them.
    pub(crate) rate: f64,
    /// For so long.
    pub(crate) time: Duration,
}

/// What became of it.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Answered with 200 within the time.
    pub(crate) good: usize,
    /// Times of those that were refused with 429 or 503 and told when to come again, in milliseconds, ascending.
    pub(crate) refused: Vec<f64>,
    /// The first answer of any other kind, and how many there were.
    pub(crate) wrong: Option<(String, usize)>,
}

/// Makes the offer from a thread of its own, so that whoever measures meanwhile shares no runtime with it.
pub(crate) async fn offer(request: &Request, offer: Offer) -> crate::Result<Outcome> {
    let (say, said) = tokio::sync::oneshot::channel();
    let request = request.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(all(&request, offer)));
        let _ = say.send(outcome);
    });
    said.await?
}

async fn all(request: &Request, offer: Offer) -> crate::Result<Outcome> {
    let period = Duration::from_secs_f64(offer.connections as f64 / offer.rate);
    let mut streams = Vec::new();
    for _ in 0..offer.connections {
        let stream = TcpStream::connect(("127.0.0.1", request.port)).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (n, stream) in streams.into_iter().enumerate() {
        // Evenly over the period, not all at once.
        let first = start + period.mul_f64(n as f64 / offer.connections as f64);
        tasks.spawn(one(stream, request.bytes().to_vec(), first, period, start + offer.time));
    }
    let mut sum = Outcome::default();
    while let Some(outcome) = tasks.join_next().await {
        let outcome = outcome??;
        sum.good += outcome.good;
        sum.refused.extend(outcome.refused);
        if let Some((text, n)) = outcome.wrong {
            sum.wrong = Some((text, n + sum.wrong.map_or(0, |(_, n)| n)));
        }
    }
    sum.refused.sort_by(f64::total_cmp);
    Ok(sum)
}

/// One connection's share.
async fn one(
    mut stream: TcpStream,
    request: Vec<u8>,
    first: Instant,
    period: Duration,
    until: Instant,
) -> crate::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut answer = Vec::with_capacity(4096);
    let mut pace = tokio::time::interval_at(first.into(), period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        pace.tick().await;
        let sent = Instant::now();
        if sent >= until {
            return Ok(outcome);
        }
        stream.write_all(&request).await?;
        answer.clear();
        let head = tokio::time::timeout(PATIENCE, read(&mut stream, &mut answer)).await??;
        match kind(&head) {
            Kind::Good => outcome.good += usize::from(Instant::now() < until),
            Kind::Refused => outcome.refused.push(sent.elapsed().as_secs_f64() * 1e3),
            Kind::Wrong => {
                let n = outcome.wrong.map_or(0, |(_, n)| n);
                outcome.wrong = Some((String::from_utf8_lossy(&answer).into_owned(), n + 1));
            }
        }
    }
}

enum Kind {
    Good,
    Refused,
    Wrong,
}

fn kind(head: &str) -> Kind {
    let status = head.split(' ').nth(1).unwrap_or_default();
    let comes_again = head.lines().any(|line| line.starts_with("retry-after: "));
    match status {
        "200" => Kind::Good,
        "429" | "503" if comes_again => Kind::Refused,
        _ => Kind::Wrong,
    }
}

/// A whole answer into the buffer; its head in small letters.
async fn read(stream: &mut TcpStream, answer: &mut Vec<u8>) -> crate::Result<String> {
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err("the connection was closed before the answer".into());
        }
        let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length:")).ok_or("no length")?;
        if answer.len() >= end + 4 + length.trim().parse::<usize>()? {
            return Ok(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_as_one_only_when_it_says_when_to_come_again() {
        let kinds = |head: &str| match kind(head) {
            Kind::Good => "good",
            Kind::Refused => "refused",
            Kind::Wrong => "wrong",
        };
        assert_eq!(kinds("http/1.1 200 ok\r\ncontent-length: 2"), "good");
        assert_eq!(kinds("http/1.1 429 too many requests\r\nretry-after: 1"), "refused");
        assert_eq!(kinds("http/1.1 429 too many requests\r\ncontent-length: 2"), "wrong");
        assert_eq!(kinds("http/1.1 502 bad gateway\r\nretry-after: 1"), "wrong");
    }
}
