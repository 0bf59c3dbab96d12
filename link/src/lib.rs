//! The link between a gateway (or controller) and the agent in a function's container.
//!
//! One connection for an instance's life: by a Unix socket where gateway and container share a machine, by TCP where
//! they do not ([`Place`]); there, both ends first [prove](proof) who they are. Frames are length-prefixed; calls are
//! streams of frames with a number, so several run side by side. [`frame`] is the codec without any I/O, [`socket`]
//! moves frames, and over Unix sockets file descriptors, (both ends use it), and [`Link`] is the gateway's end. The
//! agent's end lives in the agent. [`code`] is how the function's files get there.

#[cfg(feature = "client")]
mod client;
pub mod code;
pub mod frame;
mod message;
mod place;
pub mod proof;
pub mod secret_file;
pub mod socket;

#[cfg(feature = "client")]
pub use client::{
    AnswerTo, Ask, AskBody, Builder, InvokeResult, Link, LinkError, LinkEvent, Reply, ResultStream,
};
pub use message::{
    ASK_AHEAD, ASKS, AnswerHead, AskHead, BuildOrder, Built, Debugger, Failure, FailureKind, Hello, InitDone,
    InitRequest, InvokeHead, Kind, Limits, LogBatch, LogEntry, PAYLOAD_BYTES, PROTOCOL, RESULT_WINDOW,
    ResultHead, STREAM_BYTES, Stream,
};
pub use place::{InstanceSecret, Place};
