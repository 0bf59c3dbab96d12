//! The JSON bodies that frames carry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Version of this protocol; the agent names it in its first frame.
pub const PROTOCOL: u32 = 1;

/// Longest event or result: 6 MiB and a margin, as at AWS.
pub const PAYLOAD_BYTES: usize = 6_291_556;

/// Longest streamed result: 200 MB, as at AWS ("Lambda quotas", response streaming).
pub const STREAM_BYTES: u64 = 200 * 1024 * 1024;

/// Bytes of a streamed result that may be under way before its reader has taken any: what a stream can hold in
/// memory, and enough to keep a Unix socket busy.
pub const RESULT_WINDOW: u32 = 128 * 1024;

/// The agent's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the agent.
    pub protocol: u32,
    /// Name of the warm runtime, empty when the image has none.
    #[serde(default)]
    pub runtime: String,
    /// Whether it understands [`InitRequest::code_mounted`]. Older agents do not say so.
    #[serde(default)]
    pub takes_mounted_code: bool,
    /// Whether it takes secrets that become files. Older agents do not say so.
    #[serde(default)]
    pub takes_secret_files: bool,
    /// Whether it understands [`InitRequest::debugger`] and the frame that opens a connection to it.
    #[serde(default)]
    pub takes_debugger: bool,
}

/// What an instance may use, as the kernel holds it to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// CPU in thousandths of a core.
    pub cpu_millis: u32,
}

/// How the function is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Event in, result out.
    Handler,
    /// A program that listens on `$PORT`.
    Server,
}

/// Everything an agent needs to become one version of one function. Sent once, with the bundle's descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitRequest {
    /// Name of the function.
    pub function_name: String,
    /// Number of the version, as text.
    pub version: String,
    /// Namespace of the function.
    pub namespace: String,
    /// How it is spoken to.
    pub kind: Kind,
    /// `module.function`, or whatever the program expects in `_HANDLER`.
    pub handler: String,
    /// Program and arguments; empty means the warm runtime, or `./bootstrap` where there is none.
    #[serde(default)]
    pub command: Vec<String>,
    /// Plain variables and decrypted secrets together.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Memory of the instance in MiB.
    pub memory_mb: u32,
    /// Time budget of a call that says nothing of its own, as the function's owner set it (it is named in the timeout's text).
    pub timeout_seconds: u32,
    /// Calls at a time.
    pub concurrency: u32,
    /// How long unpacking and start-up may take together.
    pub init_timeout_ms: u64,
    /// The function's name in ARN form, for programs that want one.
    pub arn: String,
    /// Value of `AWS_LAMBDA_LOG_GROUP_NAME`.
    pub log_group: String,
    /// Value of `AWS_LAMBDA_LOG_STREAM_NAME`.
    pub log_stream: String,
    /// Digest of the bundle; the sender has verified it.
    pub bundle_digest: String,
    /// Size of the bundle in bytes.
    pub bundle_size: u64,
    /// The bundle's files have been mounted over the task folder. An agent that does not find them there, because
    /// the mount did not reach its container, unpacks the bundle as usual.
    #[serde(default)]
    pub code_mounted: bool,
    /// The gateway answers what the function asks for. Older gateways do not know how.
    #[serde(default)]
    pub answers_asks: bool,
    /// The runtime opens its debugger; without it, no connection to one is ever made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debugger: Option<Debugger>,
}

/// The debugger that a runtime opens inside the container, for whoever comes by
/// [`FrameKind::OpenDebugger`](crate::frame::FrameKind::OpenDebugger).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debugger {
    /// Its port on the container's own loopback.
    pub port: u16,
    /// The first call waits until a debugger is there.
    pub wait: bool,
}

/// The agent is ready for calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InitDone {
    /// Time to unpack the bundle.
    pub unpack_ms: f64,
    /// Time from then until the runtime asked for its first event, or the server listened.
    pub start_ms: f64,
    /// The function runs from mounted files; nothing was unpacked.
    #[serde(default)]
    pub code_mounted: bool,
}

/// Head of a call; its event follows in data frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokeHead {
    /// Id of the call, a UUID.
    pub request_id: String,
    /// When the agent ends the call, in Unix milliseconds.
    pub deadline_unix_ms: u64,
    /// ARN as the caller named the function.
    pub arn: String,
    /// Trace header, empty when there is none.
    #[serde(default)]
    pub trace_id: String,
    /// JSON text of the client context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_context: Option<String>,
    /// Its time budget in whole seconds, which the timeout's text names. Older gateways do not say; then it is
    /// [`InitRequest::timeout_seconds`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    /// How many bytes of frames a result that the runtime streams may send ahead of the gateway's credit. 0, which is
    /// what older gateways say by saying nothing, asks for the whole result at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub result_window: u32,
}

fn is_zero(window: &u32) -> bool {
    *window == 0
}

/// Head of a result; its bytes follow in data frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultHead {
    /// Content type that the runtime named.
    pub content_type: String,
    /// The data frames come as the runtime writes them, each within the window, and [`FrameKind::Failed`] may still
    /// follow. Only ever true for a call that gave a window; otherwise everything has arrived and is sent at once.
    ///
    /// [`FrameKind::Failed`]: crate::frame::FrameKind::Failed
    #[serde(default)]
    pub streamed: bool,
}

/// Things that one instance may ask for at a time.
pub const ASKS: usize = 256;

/// Bytes that are sent with an ask at once. Of longer ones nothing is sent until the gateway gives credit for all of it,
/// when it has room.
pub const ASK_AHEAD: u64 = 16 * 1024;

/// Head of something that the function asks for: an HTTP request to its own platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskHead {
    /// Method of the request.
    pub method: String,
    /// Path and query as they were sent.
    pub target: String,
    /// Those headers that may matter, by lower-case names.
    pub headers: Vec<(String, String)>,
    /// Bytes of the body, at most [`PAYLOAD_BYTES`].
    pub size: u64,
    /// Id of the call during which it asks, as far as the agent knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Head of the answer; its bytes follow in data frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHead {
    /// HTTP status.
    pub status: u16,
    /// Headers, without those that frame a message.
    pub headers: Vec<(String, String)>,
}

/// Why a call, a start or an instance failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// One line for people.
    pub message: String,
    /// The error as a Lambda client would see it: `{"errorType","errorMessage",..}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<RawValue>>,
    /// Exit code, when a process ended with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal, when a process was killed by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureKind {
    /// The handler reported an error; the instance lives on.
    FunctionError,
    /// The process ended. The instance is spent.
    Exited,
    /// The kernel killed for memory. The instance is spent.
    OutOfMemory,
    /// The deadline passed. The instance is spent.
    Timeout,
    /// The function never became ready. The instance is spent.
    InitFailed,
    /// The runtime answered something that is no answer.
    BadResponse,
    /// The result is over the payload limit; the instance lives on.
    ResponseTooLarge,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

/// What a build program is to be run with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOrder {
    /// Its environment, over the image's. May hold secrets of the operator's.
    pub env: BTreeMap<String, String>,
}

/// How a build program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// Its exit code; of one that a signal ended, 128 and the signal's number.
    pub exit_code: i32,
    /// Whether the kernel ended something for using too much memory.
    pub out_of_memory: bool,
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a function's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Where it came from.
    pub stream: Stream,
    /// The call it belongs to, when exactly one was running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The line without its end.
    pub line: String,
    /// When it was read, in Unix microseconds.
    pub at_unix_us: u64,
    /// The line was longer than the cap and lost its rest.
    #[serde(default)]
    pub truncated: bool,
}

/// Body of a log frame.
pub type LogBatch = Vec<LogEntry>;
