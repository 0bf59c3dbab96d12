//! The smallest Runtime API that a runtime can work with, and the emulator's door in front of it: the control for
//! handler functions where AWS's own emulator cannot be built. One event at a time, as there.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

const INVOKE: &str = "/2015-03-31/functions/function/invocations";
const NEXT: &str = "/2018-06-01/runtime/invocation/next";
const BODY_BYTES: usize = 6 * 1024 * 1024;

/// An event, and where its result goes.
type Event = (Vec<u8>, Sender<Vec<u8>>);

/// Starts the runtime and serves both addresses until it is killed.
pub(crate) fn run(front: &str, api: &str, runtime: &[&str]) -> io::Result<()> {
    let (events, waiting) = channel::<Event>();
    let (program, args) = runtime.split_first().ok_or_else(|| io::Error::other("no runtime"))?;
    let mut runtime = Command::new(program);
    runtime.args(args).env("AWS_LAMBDA_RUNTIME_API", api);
    let api = TcpListener::bind(api)?;
    // It lives as long as the container.
    drop(runtime.spawn()?);
    let waiting = Arc::new(Mutex::new(waiting));
    std::thread::spawn(move || {
        for stream in api.incoming().flatten() {
            let waiting = waiting.clone();
            std::thread::spawn(move || from_runtime(stream, &waiting));
        }
    });
    for stream in TcpListener::bind(front)?.incoming() {
        let (stream, events) = (stream?, events.clone());
        std::thread::spawn(move || from_caller(stream, &events));
    }
    Ok(())
}

fn from_caller(stream: TcpStream, events: &Sender<Event>) -> io::Result<()> {
    let mut connection = Connection::new(stream)?;
    while let Some((path, body)) = connection.request()? {
        if path != INVOKE {
            connection.answer("404 Not Found", "", b"")?;
            continue;
        }
        let (result, answer) = channel();
        events.send((body, result)).map_err(io::Error::other)?;
        let result = answer.recv().map_err(io::Error::other)?;
        connection.answer("200 OK", "", &result)?;
    }
    Ok(())
}

fn from_runtime(stream: TcpStream, waiting: &Mutex<Receiver<Event>>) -> io::Result<()> {
    let mut connection = Connection::new(stream)?;
    let mut running: Option<Sender<Vec<u8>>> = None;
    while let Some((path, body)) = connection.request()? {
        if path == NEXT {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let (event, result) = next.map_err(io::Error::other)?;
            running = Some(result);
            let head = "lambda-runtime-aws-request-id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n\
                        lambda-runtime-deadline-ms: 32503680000000\r\nlambda-runtime-invoked-function-arn: arn\r\n";
            connection.answer("200 OK", head, &event)?;
        } else {
            if let Some(result) = running.take() {
                // The caller may have hung up.
                let _ = result.send(body);
            }
            connection.answer("202 Accepted", "", b"{\"status\":\"OK\"}")?;
        }
    }
    Ok(())
}

/// A kept-alive HTTP/1.1 connection whose requests carry a length or no body.
struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Path and body; none at the end of the connection.
    fn request(&mut self) -> io::Result<Option<(String, Vec<u8>)>> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0_usize;
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        if length > BODY_BYTES {
            return Err(io::Error::other("body too long"));
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok(Some((path, body)))
    }

    fn answer(&mut self, status: &str, head: &str, body: &[u8]) -> io::Result<()> {
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\n{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        self.reader.get_mut().write_all(&bytes)
    }
}
