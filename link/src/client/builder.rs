//! The controller's end of a link to a builder: files in, one run of the build program, files out. Where builders are on
//! this machine the engine carries files itself, and none of this is used.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use tokio::sync::mpsc;

use super::{LinkError, hello, json_body, reach, within};
use crate::frame::{Frame, FrameKind};
use crate::message::{BuildOrder, Built, Failure, LogBatch};
use crate::place::Place;
use crate::socket::{self, Inbox, Outbox};

/// A builder that waits for its files. Dropping it ends the builder.
pub struct Builder {
    outbox: Outbox,
    inbox: Inbox,
    next_stream: u32,
}

impl Builder {
    /// Connects to a builder's agent, waiting for somebody to listen there until the deadline.
    pub async fn connect(place: &Place, deadline: Instant) -> Result<Self, LinkError> {
        within(deadline, async {
            let (outbox, mut inbox) = socket::split(reach::link(place).await?);
            tokio::spawn(outbox.clone().drive());
            hello(&mut inbox).await?;
            Ok(Self { outbox, inbox, next_stream: 1 })
        })
        .await
    }

    /// Puts a file into the builder's folder.
    pub async fn put(&mut self, name: &str, file: File, deadline: Instant) -> Result<(), LinkError> {
        let stream = self.stream();
        let head = Frame { kind: FrameKind::Put, stream, body: name.as_bytes().to_vec().into() };
        within(deadline, async {
            let sent = self.outbox.send([head]) && self.outbox.send_file(stream, file).await;
            self.outbox.flushed().await;
            if sent && !self.outbox.is_closed() { Ok(()) } else { Err(LinkError::Closed) }
        })
        .await
    }

    /// Runs the build program; its lines go to `lines` as they come.
    pub async fn run(
        &mut self,
        order: &BuildOrder,
        lines: &mpsc::Sender<String>,
        deadline: Instant,
    ) -> Result<Built, LinkError> {
        let frame = Frame { kind: FrameKind::Build, stream: self.stream(), body: json_body(order)? };
        if !self.outbox.send([frame]) {
            return Err(LinkError::Closed);
        }
        within(deadline, async {
            loop {
                let frame = self.next().await?;
                match frame.kind {
                    FrameKind::Log => {
                        for entry in parse::<LogBatch>(&frame)? {
                            // Who does not listen any more still wants the build.
                            let _ = lines.send(entry.line).await;
                        }
                    }
                    FrameKind::Built => return parse(&frame),
                    FrameKind::Failed => return Err(LinkError::Failure(parse(&frame)?)),
                    other => return Err(LinkError::Protocol(format!("a builder does not send {other:?}"))),
                }
            }
        })
        .await
    }

    /// Fetches a file that the build left. False when there is none; longer than `limit` bytes is a failure.
    pub async fn get(
        &mut self,
        name: &str,
        to: &Path,
        limit: u64,
        deadline: Instant,
    ) -> Result<bool, LinkError> {
        let stream = self.stream();
        let ask = Frame { kind: FrameKind::Get, stream, body: name.as_bytes().to_vec().into() };
        if !self.outbox.send([ask]) {
            return Err(LinkError::Closed);
        }
        let failed = |error: std::io::Error| LinkError::Protocol(format!("{}: {error}", to.display()));
        within(deadline, async {
            let (mut file, mut size) = (None, 0);
            loop {
                let frame = self.next().await?;
                match frame.kind {
                    FrameKind::Log => {}
                    FrameKind::Data if frame.stream == stream => {
                        size += frame.body.len() as u64;
                        if size > limit {
                            let text = format!("{name} is larger than {limit} bytes");
                            return Err(LinkError::Protocol(text));
                        }
                        if file.is_none() {
                            file = Some(File::create(to).map_err(failed)?);
                        }
                        if let Some(file) = &mut file {
                            file.write_all(&frame.body).map_err(failed)?;
                        }
                    }
                    FrameKind::End if frame.stream == stream => {
                        if file.is_none() {
                            File::create(to).map_err(failed)?;
                        }
                        return Ok(true);
                    }
                    FrameKind::Failed => {
                        let failure: Failure = parse(&frame)?;
                        return match file {
                            None => Ok(false),
                            Some(_) => Err(LinkError::Failure(failure)),
                        };
                    }
                    other => return Err(LinkError::Protocol(format!("a builder does not send {other:?}"))),
                }
            }
        })
        .await
    }

    async fn next(&mut self) -> Result<Frame, LinkError> {
        let next = self.inbox.next().await.map_err(|e| LinkError::Protocol(e.to_string()))?;
        next.map(|(frame, _)| frame).ok_or(LinkError::Closed)
    }

    fn stream(&mut self) -> u32 {
        self.next_stream += 1;
        self.next_stream
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

fn parse<T: serde::de::DeserializeOwned>(frame: &Frame) -> Result<T, LinkError> {
    serde_json::from_slice(&frame.body)
        .map_err(|error| LinkError::Protocol(format!("{:?}: {error}", frame.kind)))
}
