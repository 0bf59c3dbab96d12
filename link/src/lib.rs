//! The link between a gateway (or controller) and the agent in a function's container.
//!
//! One Unix socket per instance, one connection for its life. Frames are length-prefixed; calls are streams
//! of frames with a number, so several run side by side. [`frame`] is the codec without any I/O, [`socket`]
//! moves frames and file descriptors over a connected socket (both ends use it), and [`Link`] is the
//! gateway's end. The agent's end lives in the agent. [`code`] is how the function's files get there.

#[cfg(feature = "client")]
mod client;
pub mod code;
pub mod frame;
mod message;
pub mod secret_file;
pub mod socket;

#[cfg(feature = "client")]
pub use client::{AnswerTo, Ask, AskBody, InvokeResult, Link, LinkError, LinkEvent, Reply, ResultStream};
pub use message::{
    ASK_AHEAD, ASKS, AnswerHead, AskHead, Debugger, Failure, FailureKind, Hello, InitDone, InitRequest,
    InvokeHead, Kind, LogBatch, LogEntry, PAYLOAD_BYTES, PROTOCOL, RESULT_WINDOW, ResultHead, STREAM_BYTES,
    Stream,
};
