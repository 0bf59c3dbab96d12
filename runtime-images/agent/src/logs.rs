//! Output of the function: always read, cut into lines, bounded, sent home.
//!
//! A pipe that nobody reads stops its writer after 64 KiB, so reading never waits for anything. What comes
//! faster than the cap allows is dropped, and a note says how much.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use davit_link::frame::{Frame, FrameKind, MAX_BODY_BYTES};
use davit_link::socket::Outbox;
use davit_link::{LogEntry, Stream};
use tokio::net::unix::pipe::Receiver;

const LINE_BYTES: usize = 16 * 1024;
const READ_BYTES: usize = 64 * 1024;
/// Reads in one go, so that a chatty function cannot keep the agent from everything else.
const READS_AT_ONCE: usize = 16;
const BYTES_PER_SECOND: u64 = 1024 * 1024;
const BURST_BYTES: u64 = 4 * 1024 * 1024;
/// Each line costs its frame too, so that a flood of empty lines is a flood.
const BYTES_PER_LINE: u64 = 64;
/// More than this unsent on the link, and lines are dropped: results must get through.
const UNSENT_BYTES: usize = 2 * 1024 * 1024;

/// One pipe from the function.
pub(crate) struct Pipe {
    stream: Stream,
    fd: Receiver,
    lines: RefCell<Lines>,
    ended: Cell<bool>,
}

impl Pipe {
    /// Takes a pipe's reading end.
    pub(crate) fn new(stream: Stream, fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            stream,
            fd: Receiver::from_owned_fd(fd)?,
            lines: RefCell::default(),
            ended: Cell::new(false),
        })
    }
}

/// Everything about output.
pub(crate) struct Logs {
    pipes: RefCell<Vec<Rc<Pipe>>>,
    scratch: RefCell<Box<[u8]>>,
    budget: RefCell<Budget>,
}

impl Logs {
    pub(crate) fn new() -> Self {
        Self {
            pipes: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            budget: RefCell::new(Budget { left: BURST_BYTES, at: Instant::now(), dropped: 0 }),
        }
    }

    /// Adds a pipe to those that [`Self::drain`] reads.
    pub(crate) fn add(&self, pipe: Rc<Pipe>) {
        self.pipes.borrow_mut().push(pipe);
    }

    /// Whether every writer is gone.
    pub(crate) fn is_ended(&self) -> bool {
        self.pipes.borrow().iter().all(|pipe| pipe.ended.get())
    }

    /// Reads all there is and sends it. With `finish`, unfinished lines are sent as they are.
    pub(crate) fn drain(
        &self,
        outbox: Option<&Outbox>,
        request_id: Option<&str>,
        look: Look,
        finish: Finish,
    ) {
        let mut batch = Batch::default();
        for pipe in self.pipes.borrow().iter() {
            self.read(pipe, request_id, look, &mut batch, outbox);
            if finish == Finish::Yes || pipe.ended.get() {
                pipe.lines
                    .borrow_mut()
                    .finish(|line, cut| self.keep(pipe, request_id, line, cut, &mut batch, outbox));
            }
        }
        self.pipes.borrow_mut().retain(|pipe| !pipe.ended.get());
        batch.send(outbox);
    }

    fn read(
        &self,
        pipe: &Pipe,
        request_id: Option<&str>,
        look: Look,
        batch: &mut Batch,
        outbox: Option<&Outbox>,
    ) {
        let mut scratch = self.scratch.borrow_mut();
        for _ in 0..READS_AT_ONCE {
            let read = match look {
                Look::Told => pipe.fd.try_read(&mut scratch),
                Look::Now => rustix::io::read(&pipe.fd, &mut **scratch).map_err(io::Error::from),
            };
            match read {
                Ok(0) => return pipe.ended.set(true),
                Ok(read) => {
                    let emit = |line: &[u8], cut: bool| self.keep(pipe, request_id, line, cut, batch, outbox);
                    pipe.lines.borrow_mut().feed(&scratch[..read], emit);
                    if look == Look::Now && read < scratch.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return pipe.ended.set(true),
            }
        }
    }

    fn keep(
        &self,
        pipe: &Pipe,
        request_id: Option<&str>,
        line: &[u8],
        truncated: bool,
        batch: &mut Batch,
        outbox: Option<&Outbox>,
    ) {
        let mut budget = self.budget.borrow_mut();
        let full = outbox.is_some_and(|outbox| outbox.pending_bytes() > UNSENT_BYTES);
        if !budget.take(line.len() as u64 + BYTES_PER_LINE) || full {
            budget.dropped += 1;
            return;
        }
        let entry = |line: String, truncated, stream| LogEntry {
            stream,
            request_id: request_id.map(str::to_owned),
            line,
            at_unix_us: now_us(),
            truncated,
        };
        let dropped = std::mem::take(&mut budget.dropped);
        if dropped > 0 {
            let note = format!("davit: {dropped} lines were dropped here, the function writes too fast");
            batch.add(&entry(note, false, Stream::Stderr), outbox);
        }
        batch.add(&entry(String::from_utf8_lossy(line).into_owned(), truncated, pipe.stream), outbox);
    }
}

/// Which pipes are tried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Those that the event loop knows to have something; it learns when they are empty.
    Told,
    /// All: the event loop may not have been told yet of what was written a moment ago.
    Now,
}

/// Whether lines without an end are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    Yes,
    No,
}

/// Waits until the pipe has something to read; false when it has ended.
pub(crate) async fn readable(pipe: &Pipe) -> bool {
    pipe.fd.readable().await.is_ok() && !pipe.ended.get()
}

/// A JSON array of entries that fits into a frame.
#[derive(Default)]
struct Batch {
    json: Vec<u8>,
}

impl Batch {
    fn add(&mut self, entry: &LogEntry, outbox: Option<&Outbox>) {
        let Ok(json) = serde_json::to_vec(entry) else { return };
        if self.json.len() + json.len() + 2 > MAX_BODY_BYTES {
            self.send(outbox);
        }
        self.json.push(if self.json.is_empty() { b'[' } else { b',' });
        self.json.extend_from_slice(&json);
    }

    fn send(&mut self, outbox: Option<&Outbox>) {
        if self.json.is_empty() {
            return;
        }
        self.json.push(b']');
        let body = std::mem::take(&mut self.json);
        match outbox {
            Some(outbox) => _ = outbox.send([Frame { kind: FrameKind::Log, stream: 0, body: body.into() }]),
            // Nobody has connected yet: operators find it in the container's log.
            None => crate::say(&String::from_utf8_lossy(&body)),
        }
    }
}

/// How many bytes of output may still pass.
struct Budget {
    left: u64,
    at: Instant,
    dropped: u64,
}

impl Budget {
    fn take(&mut self, bytes: u64) -> bool {
        if self.left < bytes {
            let earned = self.at.elapsed().as_micros() as u64 * BYTES_PER_SECOND / 1_000_000;
            if earned == 0 {
                return false;
            }
            self.left = (self.left + earned).min(BURST_BYTES);
            self.at = Instant::now();
        }
        let enough = self.left >= bytes;
        if enough {
            self.left -= bytes;
        }
        enough
    }
}

/// Cuts bytes into lines of bounded length.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    cut: bool,
}

impl Lines {
    fn feed(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            if self.partial.is_empty() && line.len() <= LINE_BYTES {
                emit(line, false);
            } else {
                self.extend(line);
                emit(&self.partial, self.cut);
                self.partial.clear();
                self.cut = false;
            }
        }
        self.extend(bytes);
    }

    fn finish(&mut self, mut emit: impl FnMut(&[u8], bool)) {
        if !self.partial.is_empty() {
            emit(&self.partial, self.cut);
            self.partial.clear();
            self.cut = false;
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES - self.partial.len();
        self.cut |= bytes.len() > room;
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(parts: &[&[u8]]) -> Vec<(usize, bool)> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for part in parts {
            lines.feed(part, |line, cut| seen.push((line.len(), cut)));
        }
        lines.finish(|line, cut| seen.push((line.len(), cut)));
        seen
    }

    #[test]
    fn long_lines_lose_their_rest_and_only_that() {
        let long = vec![b'x'; LINE_BYTES * 3];
        assert_eq!(cut(&[&long, b"tail\nnext\n"]), [(LINE_BYTES, true), (4, false)]);
        assert_eq!(cut(&[&long[..LINE_BYTES], b"\n"]), [(LINE_BYTES, false)]);
        assert_eq!(cut(&[b"a\n\nb"]), [(1, false), (0, false), (1, false)]);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_reads_end(text in "[a-z\n]{0,200}", at in 0usize..200) {
            let at = at.min(text.len());
            prop_assert_eq!(cut(&[text.as_bytes()]), cut(&[&text.as_bytes()[..at], &text.as_bytes()[at..]]));
        }
    }
}
