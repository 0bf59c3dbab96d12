//! The agent's life, and the state that its parts share.
//!
//! Life: start the warm runtime if the image has one → when it asks for its function, open the link's socket →
//! take one gateway → take one function ([`crate::start`]) → calls → end. There is one end, [`Agent::end`],
//! and it ends the process.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use davit_link::frame::{Frame, FrameKind, body_frames};
use davit_link::socket::Outbox;
use davit_link::{Failure, InitRequest, ResultHead};
use rustix::process::Signal;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

use crate::asks::Asks;
use crate::calls::{Abandoned, Call, Calls};
use crate::failure;
use crate::image::Image;
use crate::logs::{Finish, Logs, Look, Pipe, readable};
use crate::process::{Ended, Processes, hide, signal_all};
use crate::{builder, environment, link, runtime_api, say};

/// A runtime that is not warm by then never will be.
const WARM_TIMEOUT: Duration = Duration::from_secs(60);
/// For what dead processes have left in their pipes.
const LAST_WORDS: Duration = Duration::from_millis(200);
const FAREWELL: Duration = Duration::from_secs(2);

/// What can happen while the function starts.
pub(crate) enum StartEvent {
    /// The runtime asked for its first event.
    Ready,
    /// The runtime said that it cannot.
    Failed(Failure),
    /// Its process ended.
    Ended(Ended),
}

/// What the parts share. One thread, so no locks.
pub(crate) struct Agent {
    pub(crate) calls: RefCell<Calls>,
    pub(crate) asks: RefCell<Asks>,
    pub(crate) processes: Processes,
    pub(crate) logs: Logs,
    /// Set once a gateway is there.
    pub(crate) outbox: OnceCell<Outbox>,
    /// Set once a function is there.
    pub(crate) function: OnceCell<InitRequest>,
    /// Why a secret could not become a file; the start fails with it.
    pub(crate) unwritten: RefCell<Option<String>>,
    /// The function for the warm runtime that asks for it.
    pub(crate) offer: watch::Sender<Option<Bytes>>,
    /// The warm runtime has asked.
    pub(crate) warm: Notify,
    pub(crate) is_warm_runtime: Cell<bool>,
    /// Where to report, while the function starts.
    pub(crate) starting: RefCell<Option<mpsc::UnboundedSender<StartEvent>>>,
    pub(crate) server: Cell<Option<std::net::SocketAddr>>,
    /// What the container's image starts, when it is a user's own.
    pub(crate) image: Option<Image>,
    frozen: Cell<bool>,
    ending: Cell<bool>,
}

/// The agent's life until the link is up; then it ends by [`Agent::end`].
pub(crate) async fn run() -> Result<(), String> {
    let processes = Processes::new();
    hide();
    let agent = Rc::new(Agent {
        calls: RefCell::default(),
        asks: RefCell::default(),
        processes,
        logs: Logs::new(),
        outbox: OnceCell::new(),
        function: OnceCell::new(),
        unwritten: RefCell::default(),
        offer: watch::Sender::new(None),
        warm: Notify::new(),
        is_warm_runtime: Cell::new(false),
        starting: RefCell::default(),
        server: Cell::new(None),
        image: Image::of_container()?,
        frozen: Cell::new(false),
        ending: Cell::new(false),
    });
    if std::env::var_os(builder::SETTING).is_some() {
        agent.watch_signals().map_err(|e| format!("no signals: {e}"))?;
        builder::run(&agent).await?;
        agent.leave(0);
    }
    runtime_api::listen(&agent).await.map_err(|e| format!("the Runtime API cannot listen: {e}"))?;
    agent.watch_signals().map_err(|e| format!("no signals: {e}"))?;
    if let Some(command) = runtime_command()? {
        agent.is_warm_runtime.set(true);
        agent
            .launch(&command, &environment::warm(), crate::TASK_ROOT)
            .map_err(|e| format!("{command:?}: {e}"))?;
        let warm = tokio::time::timeout(WARM_TIMEOUT, agent.warm.notified()).await;
        warm.map_err(|_| "the runtime did not become warm in time".to_owned())?;
    }
    let inbox = link::accept(&agent).await?;
    link::serve(&agent, inbox).await;
    agent.leave(0);
    Ok(())
}

fn runtime_command() -> Result<Option<Vec<String>>, String> {
    let Some(text) = std::env::var_os(environment::RUNTIME_COMMAND) else { return Ok(None) };
    let command: Vec<String> = serde_json::from_slice(text.as_encoded_bytes())
        .map_err(|e| format!("{} is no JSON array of strings: {e}", environment::RUNTIME_COMMAND))?;
    Ok((!command.is_empty()).then_some(command))
}

impl Agent {
    fn watch_signals(self: &Rc<Self>) -> std::io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        let mut stop = signal(SignalKind::terminate())?;
        let agent = self.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    _ = children.recv() => if let Some(ended) = agent.processes.reap() {
                        agent.main_ended(ended).await;
                    },
                    _ = stop.recv() => agent.asked_to_leave(),
                }
            }
        });
        Ok(())
    }

    /// Starts a process whose end will be the function's end.
    pub(crate) fn launch(
        self: &Rc<Self>,
        command: &[String],
        env: &std::collections::BTreeMap<String, String>,
        folder: &str,
    ) -> std::io::Result<()> {
        for (stream, fd) in self.processes.start(command, env, folder)? {
            let pipe = Rc::new(Pipe::new(stream, fd)?);
            self.logs.add(pipe.clone());
            let agent = self.clone();
            tokio::task::spawn_local(async move {
                while readable(&pipe).await {
                    agent.read_logs(Look::Told, Finish::No);
                    tokio::task::yield_now().await;
                }
            });
        }
        Ok(())
    }

    /// Sends home what the function has written so far.
    pub(crate) fn drain_logs(&self, finish: Finish) {
        self.read_logs(Look::Now, finish);
    }

    fn read_logs(&self, look: Look, finish: Finish) {
        let calls = self.calls.borrow();
        self.logs.drain(self.outbox.get(), calls.sole(), look, finish);
    }

    async fn main_ended(self: &Rc<Self>, ended: Ended) {
        let starting = self.starting.borrow_mut().take();
        if let Some(starting) = starting {
            let _ = starting.send(StartEvent::Ended(ended));
        } else if self.outbox.get().is_some() {
            self.end(&|id| failure::exited(id, &ended)).await;
        } else {
            self.drain_logs(Finish::Yes);
            say(&format!("the runtime ended before it was asked for anything: {ended:?}"));
            self.leave(1);
        }
    }

    /// Takes a call in and starts its clock.
    pub(crate) fn begin(self: &Rc<Self>, call: Call) {
        self.thaw();
        let (stream, limit) = (call.stream, call.head.timeout_seconds);
        let deadline = UNIX_EPOCH + Duration::from_millis(call.head.deadline_unix_ms);
        let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
        if !self.calls.borrow_mut().offer(call) {
            return self.answer_failure(stream, &failure::bad_response("the call's id is in use"));
        }
        let agent = self.clone();
        let timer = tokio::task::spawn_local(async move {
            tokio::time::sleep(left).await;
            agent.timed_out(stream, limit).await;
        });
        self.calls.borrow_mut().set_timer(stream, timer.abort_handle());
    }

    /// `limit`: the call's own time budget in seconds.
    async fn timed_out(self: &Rc<Self>, stream: u32, limit: Option<u32>) {
        let Some(late) = self.calls.borrow().request_id(stream).map(str::to_owned) else { return };
        let agent = self.clone();
        // In a task of its own: settling the call aborts the task that we are in.
        tokio::task::spawn_local(async move {
            let of_function = agent.function.get().map_or(0, |function| function.timeout_seconds);
            let seconds = limit.unwrap_or(of_function);
            agent
                .end(&|id| {
                    if id == late || id.is_empty() {
                        failure::timeout(&late, seconds)
                    } else {
                        failure::ended_with_another(id, "Another call of this instance timed out")
                    }
                })
                .await;
        });
    }

    /// The caller of a stream is gone.
    pub(crate) async fn abandon(self: &Rc<Self>, stream: u32) {
        let abandoned = self.calls.borrow_mut().abandon(stream);
        if abandoned == Abandoned::Running {
            self.end(&|id| failure::ended_with_another(id, "A call of this instance was cancelled")).await;
        }
    }

    /// Ends a call with its result. False if there is no such call.
    pub(crate) fn answer(&self, request_id: &str, content_type: String, body: Bytes) -> bool {
        self.settle(request_id, |agent, stream| {
            let head =
                agent.json_frame(FrameKind::Result, stream, &ResultHead { content_type, streamed: false });
            agent.send(head.into_iter().chain(body_frames(stream, body)));
        })
    }

    /// Tells the gateway that a result begins of which the bytes will follow.
    pub(crate) fn begin_stream(&self, stream: u32, content_type: &str) {
        let head = ResultHead { content_type: content_type.to_owned(), streamed: true };
        self.send(self.json_frame(FrameKind::Result, stream, &head));
    }

    /// Ends a call whose streamed result is complete; one without a byte begins here, too. False if there is no such
    /// call.
    pub(crate) fn end_stream(&self, request_id: &str, begun: bool, content_type: &str) -> bool {
        self.settle(request_id, |agent, stream| {
            if !begun {
                agent.begin_stream(stream, content_type);
            }
            agent.send([Frame::empty(FrameKind::End, stream)]);
        })
    }

    /// Ends a call without one.
    pub(crate) fn answer_with_failure(&self, request_id: &str, failure: &Failure) -> bool {
        self.settle(request_id, |agent, stream| agent.answer_failure(stream, failure))
    }

    fn settle(&self, request_id: &str, send: impl FnOnce(&Self, u32)) -> bool {
        if !self.calls.borrow().is_running(request_id) {
            return false;
        }
        // What the handler wrote is in the pipes by now, and belongs in front of its result.
        let last = self.calls.borrow().sole().is_some();
        self.drain_logs(if last { Finish::Yes } else { Finish::No });
        let Some(stream) = self.calls.borrow_mut().settle(request_id) else { return false };
        send(self, stream);
        true
    }

    fn answer_failure(&self, stream: u32, failure: &Failure) {
        self.send(self.json_frame(FrameKind::Failed, stream, failure));
    }

    /// Queues frames for the gateway.
    pub(crate) fn send(&self, frames: impl IntoIterator<Item = Frame>) {
        if let Some(outbox) = self.outbox.get() {
            outbox.send(frames);
        }
    }

    /// A frame with a JSON body.
    pub(crate) fn json_frame(&self, kind: FrameKind, stream: u32, body: &impl Serialize) -> Option<Frame> {
        let body = serde_json::to_vec(body).ok()?;
        Some(Frame { kind, stream, body: body.into() })
    }

    /// Stops every process.
    pub(crate) fn freeze(&self) {
        signal_all(Signal::STOP);
        self.frozen.set(true);
    }

    /// Lets them continue.
    pub(crate) fn thaw(&self) {
        if self.frozen.replace(false) {
            signal_all(Signal::CONT);
        }
    }

    /// The end of the instance: kill everybody, send the last words, tell every caller why, leave.
    pub(crate) async fn end(self: &Rc<Self>, why: &dyn Fn(&str) -> Failure) {
        if self.ending.replace(true) {
            return std::future::pending().await;
        }
        signal_all(Signal::KILL);
        let _ = tokio::time::timeout(LAST_WORDS, async {
            loop {
                self.drain_logs(Finish::No);
                if self.logs.is_ended() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        self.drain_logs(Finish::Yes);
        let open = self.calls.borrow_mut().drain();
        for (stream, request_id) in open {
            self.answer_failure(stream, &why(&request_id));
        }
        self.send(self.json_frame(FrameKind::Exited, 0, &why("")));
        if let Some(outbox) = self.outbox.get() {
            let _ = tokio::time::timeout(FAREWELL, outbox.flushed()).await;
        }
        self.leave(0);
    }

    /// The machine wants the instance gone. Where that is announced with time to spare, the gateway is told: it gives no more
    /// calls, and hangs up after the last one. Where the engine stops a container, it means now.
    fn asked_to_leave(&self) {
        match self.outbox.get() {
            Some(outbox) if !outbox.carries_descriptors() => self.send([Frame::empty(FrameKind::Leaving, 0)]),
            _ => self.leave(0),
        }
    }

    /// Whether the end has begun.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Ends the process, and by that the container.
    pub(crate) fn leave(&self, code: i32) {
        signal_all(Signal::KILL);
        std::process::exit(code);
    }
}
