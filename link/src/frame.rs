//! The frame codec: bytes in, frames out, and back. No I/O here.
//!
//! A frame is `u32 LE length of the body, u8 kind, u32 LE stream, body`. Stream 0 is the link itself.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the body.
pub const HEADER_BYTES: usize = 9;
/// From here on streams are of the agent's making: what functions ask for. Below are the gateway's.
pub const FIRST_ASK: u32 = 1 << 31;
/// Longest body of one frame. Longer things are cut into several [`FrameKind::Data`].
pub const MAX_BODY_BYTES: usize = 256 * 1024;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FrameKind { $($(#[$doc])* $name = $number,)* }

        impl FrameKind {
            /// Every kind.
            pub const ALL: &[FrameKind] = &[$(FrameKind::$name,)*];

            fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// To the agent: become this function (InitRequest); carries the bundle's descriptor.
    Init = 1,
    /// To the agent: a call begins (InvokeHead).
    Invoke = 2,
    /// Both ways: some bytes of an event or a result.
    Data = 3,
    /// Both ways: the event or result is complete.
    End = 4,
    /// To the agent: connect to the server and hand the socket over.
    Open = 5,
    /// To the agent: nobody waits for this stream any more.
    Cancel = 6,
    /// To the agent: stop every process.
    Freeze = 7,
    /// To the agent: let them continue.
    Thaw = 8,
    /// To the agent: are you there.
    Ping = 9,
    /// To the agent: this many more bytes of a streamed result are taken (`u32` LE). Sent only for results whose
    /// head says that they are streamed, so agents that stream nothing never meet it.
    Credit = 10,
    /// To the agent: the answer to what the function asked for begins (AnswerHead); its bytes follow in data frames.
    Answer = 11,
    /// To the agent, before the init: a secret that becomes a file ([`crate::secret_file`]). Sent only to agents that said they
    /// take them.
    SecretFile = 12,
    /// To the agent: connect to the debugger and hand the socket over, as for a server. Sent only to agents whose hello
    /// says that they know it.
    OpenDebugger = 13,
    /// To a builder's agent: a file comes under this name, into its folder; its bytes follow in data frames.
    Put = 14,
    /// To a builder's agent: run the build program (BuildOrder).
    Build = 15,
    /// To a builder's agent: send the file of this name; its bytes come in data frames, or it is said why not.
    Get = 16,
    /// From the agent: its first frame (Hello).
    Hello = 32,
    /// From the agent: ready for calls (InitDone).
    InitDone = 33,
    /// From the agent: never became ready (Failure).
    InitFailed = 34,
    /// From the agent: a result begins (ResultHead).
    Result = 35,
    /// From the agent: this stream failed (Failure).
    Failed = 36,
    /// From the agent: the connected socket; carries its descriptor.
    Opened = 37,
    /// From the agent: lines of output (LogBatch).
    Log = 38,
    /// From the agent: every process is stopped.
    Frozen = 39,
    /// From the agent: they run again.
    Thawed = 40,
    /// From the agent: yes; and what it may use (Limits), which older agents do not say.
    Pong = 41,
    /// From the agent: the instance is spent (Failure); the link closes.
    Exited = 42,
    /// From the agent: the function asks for something (AskHead); its bytes follow in data frames. Sent only where
    /// the init said that the gateway answers.
    Ask = 43,
    /// From the agent: its machine wants it gone. It takes calls that were sent already, and leaves when the link closes.
    /// Sent only over TCP, where every gateway knows it.
    Leaving = 44,
    /// From a builder's agent: the build program has ended (Built).
    Built = 45,
}

impl FrameKind {
    /// Whether one file descriptor travels with the frame's first byte.
    pub fn carries_descriptor(self) -> bool {
        matches!(self, Self::Init | Self::Opened)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// To which stream it belongs; 0 is the link.
    pub stream: u32,
    /// Its body.
    pub body: Bytes,
}

impl Frame {
    /// A frame without a body.
    pub fn empty(kind: FrameKind, stream: u32) -> Self {
        Self { kind, stream, body: Bytes::new() }
    }

    /// What the frame takes of a stream's window: all its bytes, so that many small pieces count for the room that
    /// they need.
    pub fn cost(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// The nine bytes before the body.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let mut out = &mut header[..];
        out.put_u32_le(self.body.len() as u32);
        out.put_u8(self.kind as u8);
        out.put_u32_le(self.stream);
        header
    }

    /// Appends the frame's bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        debug_assert!(self.body.len() <= MAX_BODY_BYTES);
        out.extend_from_slice(&self.header());
        out.extend_from_slice(&self.body);
    }
}

/// Cuts a body of any length into data frames and the end frame, without copying it.
pub fn body_frames(stream: u32, mut body: Bytes) -> Vec<Frame> {
    let mut frames = Vec::with_capacity(body.len() / MAX_BODY_BYTES + 2);
    while !body.is_empty() {
        let part = body.split_to(body.len().min(MAX_BODY_BYTES));
        frames.push(Frame { kind: FrameKind::Data, stream, body: part });
    }
    frames.push(Frame::empty(FrameKind::End, stream));
    frames
}

/// What bytes cannot be frames. The connection is useless afterwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such kind.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The body would be over the limit.
    #[error("a frame's body of {0} bytes is over the limit")]
    TooLong(u32),
}

/// Collects bytes and gives frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Where arriving bytes go.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, if it has arrived. An error repeats for ever.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let mut fields = &header[..];
        let length = fields.get_u32_le();
        let number = fields.get_u8();
        let stream = fields.get_u32_le();
        let kind = FrameKind::from_number(number).ok_or(FrameError::UnknownKind(number))?;
        if length as usize > MAX_BODY_BYTES {
            return Err(FrameError::TooLong(length));
        }
        let whole = HEADER_BYTES + length as usize;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let body = self.buffer.split_to(length as usize).freeze();
        Ok(Some(Frame { kind, stream, body }))
    }

    /// Whether a frame has begun and not ended: at the end of the connection that is a fault.
    pub fn is_mid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }
}
