//! Which calls there are, which runtime pollers wait, and who gets what. Pure bookkeeping.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use davit_link::InvokeHead;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::stream::Window;

/// A call that a runtime can take.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) stream: u32,
    pub(crate) head: InvokeHead,
    pub(crate) event: Bytes,
}

/// What a poller of `/next` gets.
pub(crate) enum Next {
    /// A call that was waiting.
    Now(Box<Call>),
    /// The promise of one.
    Later(oneshot::Receiver<Box<Call>>),
}

/// What became of a call that nobody wants any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Abandoned {
    /// It had ended, or never was.
    Unknown,
    /// No runtime had seen it; it is gone without a trace.
    Queued,
    /// A runtime is at it.
    Running,
}

struct Live {
    request_id: String,
    running: bool,
    timer: Option<AbortHandle>,
    /// For a result that is streamed; none where the gateway wants it whole.
    window: Option<Rc<Window>>,
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
        if let Some(window) = &self.window {
            window.close();
        }
    }
}

/// All calls between their arrival and their end.
#[derive(Default)]
pub(crate) struct Calls {
    live: HashMap<u32, Live>,
    by_id: HashMap<String, u32>,
    queue: VecDeque<Box<Call>>,
    pollers: VecDeque<oneshot::Sender<Box<Call>>>,
}

impl Calls {
    /// Takes a call in, and hands it to a poller if one waits. False if its id is in use.
    pub(crate) fn offer(&mut self, call: Call) -> bool {
        if self.by_id.contains_key(&call.head.request_id) || self.live.contains_key(&call.stream) {
            return false;
        }
        let request_id = call.head.request_id.clone();
        let stream = call.stream;
        let window = (call.head.result_window > 0).then(|| Window::new(call.head.result_window));
        self.by_id.insert(request_id.clone(), stream);
        self.live.insert(stream, Live { request_id, running: false, timer: None, window });
        let mut call = Box::new(call);
        while let Some(poller) = self.pollers.pop_front() {
            match poller.send(call) {
                Ok(()) => {
                    self.set_running(stream);
                    return true;
                }
                // That poller's connection is gone.
                Err(back) => call = back,
            }
        }
        self.queue.push_back(call);
        true
    }

    /// A runtime asks for a call.
    pub(crate) fn poll(&mut self) -> Next {
        if let Some(call) = self.queue.pop_front() {
            self.set_running(call.stream);
            return Next::Now(call);
        }
        let (sender, receiver) = oneshot::channel();
        self.pollers.retain(|poller| !poller.is_closed());
        self.pollers.push_back(sender);
        Next::Later(receiver)
    }

    /// The timer that ends with the call.
    pub(crate) fn set_timer(&mut self, stream: u32, timer: AbortHandle) {
        match self.live.get_mut(&stream) {
            Some(live) => live.timer = Some(timer),
            None => timer.abort(),
        }
    }

    /// Whether a runtime has this call and has not answered.
    pub(crate) fn is_running(&self, request_id: &str) -> bool {
        self.by_id.get(request_id).and_then(|stream| self.live.get(stream)).is_some_and(|live| live.running)
    }

    /// Where a running call's result may be streamed to, and how much of it; nothing where it is wanted whole.
    pub(crate) fn window(&self, request_id: &str) -> Option<(u32, Rc<Window>)> {
        let stream = *self.by_id.get(request_id)?;
        let window = self.live.get(&stream).filter(|live| live.running)?.window.clone()?;
        Some((stream, window))
    }

    /// The gateway takes more of a call's result.
    pub(crate) fn credit(&self, stream: u32, bytes: u32) {
        if let Some(window) = self.live.get(&stream).and_then(|live| live.window.as_ref()) {
            window.add(bytes);
        }
    }

    /// Ends a running call; its stream, or nothing if there is no such call.
    pub(crate) fn settle(&mut self, request_id: &str) -> Option<u32> {
        if !self.is_running(request_id) {
            return None;
        }
        let stream = self.by_id.remove(request_id)?;
        self.live.remove(&stream);
        Some(stream)
    }

    /// The caller is gone.
    pub(crate) fn abandon(&mut self, stream: u32) -> Abandoned {
        match self.live.get(&stream) {
            None => Abandoned::Unknown,
            Some(live) if live.running => Abandoned::Running,
            Some(_) => {
                if let Some(live) = self.live.remove(&stream) {
                    self.by_id.remove(&live.request_id);
                }
                self.queue.retain(|call| call.stream != stream);
                Abandoned::Queued
            }
        }
    }

    /// The id behind a stream.
    pub(crate) fn request_id(&self, stream: u32) -> Option<&str> {
        self.live.get(&stream).map(|live| live.request_id.as_str())
    }

    /// The running call, when there is exactly one: only then output belongs to it for certain.
    pub(crate) fn sole(&self) -> Option<&str> {
        let mut running = self.live.values().filter(|live| live.running);
        match (running.next(), running.next()) {
            (Some(only), None) => Some(&only.request_id),
            _ => None,
        }
    }

    /// Empties the table.
    pub(crate) fn drain(&mut self) -> Vec<(u32, String)> {
        self.by_id.clear();
        self.queue.clear();
        self.live.drain().map(|(stream, live)| (stream, live.request_id.clone())).collect()
    }

    fn set_running(&mut self, stream: u32) {
        if let Some(live) = self.live.get_mut(&stream) {
            live.running = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(stream: u32) -> Call {
        let head = InvokeHead {
            request_id: format!("r{stream}"),
            deadline_unix_ms: 0,
            arn: String::new(),
            trace_id: String::new(),
            client_context: None,
            timeout_seconds: None,
            result_window: 0,
        };
        Call { stream, head, event: Bytes::new() }
    }

    #[test]
    fn a_call_goes_to_the_first_poller_that_is_still_there() {
        let mut calls = Calls::default();
        let Next::Later(gone) = calls.poll() else { panic!("nothing is queued") };
        let Next::Later(mut there) = calls.poll() else { panic!("nothing is queued") };
        drop(gone);
        assert!(calls.offer(call(1)));
        assert_eq!(there.try_recv().unwrap().stream, 1);
        assert_eq!(calls.sole(), Some("r1"));
    }

    #[test]
    fn a_call_is_answered_once_and_only_while_it_runs() {
        let mut calls = Calls::default();
        assert!(calls.offer(call(1)));
        assert_eq!(calls.settle("r1"), None);
        assert!(matches!(calls.poll(), Next::Now(c) if c.stream == 1));
        assert_eq!(calls.settle("r1"), Some(1));
        assert_eq!(calls.settle("r1"), None);
        assert_eq!(calls.abandon(1), Abandoned::Unknown);
    }

    #[test]
    fn a_queued_call_leaves_without_a_trace_and_a_running_one_does_not() {
        let mut calls = Calls::default();
        assert!(calls.offer(call(1)) && calls.offer(call(2)));
        assert!(!calls.offer(call(2)));
        assert_eq!(calls.abandon(1), Abandoned::Queued);
        assert!(matches!(calls.poll(), Next::Now(c) if c.stream == 2));
        assert_eq!(calls.abandon(2), Abandoned::Running);
        assert_eq!(calls.drain(), vec![(2, "r2".to_owned())]);
    }

    #[test]
    fn output_belongs_to_nobody_when_two_run() {
        let mut calls = Calls::default();
        assert!(calls.offer(call(1)) && calls.offer(call(2)));
        assert_eq!(calls.sole(), None);
        let _ = calls.poll();
        assert_eq!(calls.sole(), Some("r1"));
        let _ = calls.poll();
        assert_eq!(calls.sole(), None);
    }
}
