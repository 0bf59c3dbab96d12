//! Connections to the debugger inside an instance. While there is one, the instance is neither frozen nor let go, for as long as
//! its version is live.

use std::sync::Arc;
use std::time::Instant;

use davit_api::{ApiError, ErrorCode};
use davit_link::LinkError;
use tokio::net::TcpStream;

use crate::instances::state::State;
use crate::instances::{Fleet, Instance};
use crate::invoke::CallError;

/// Connections to the debugger of one instance at a time. A debugger has one; Node's inspector is asked over others which there is.
const CONNECTIONS: usize = 8;

/// A connection to a debugger, and its hold on the instance.
pub struct Attached {
    stream: TcpStream,
    hold: Hold,
}

impl Attached {
    /// Bytes from the debugger and to it, and what holds the instance meanwhile.
    pub fn split(self) -> (TcpStream, Held) {
        (self.stream, Held(self.hold))
    }
}

/// An instance to whose debugger somebody is connected.
pub struct Held(Hold);

impl Held {
    /// Returns when the instance has been let go: nobody else ends the connection then.
    pub async fn ended(&self) {
        self.0.instance.ended.cancelled().await;
    }
}

/// Keeps an instance as it is; dropping it lets it go idle.
struct Hold {
    fleet: Arc<Fleet>,
    instance: Arc<Instance>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.fleet.unhold(&self.instance);
    }
}

impl Fleet {
    /// A connection to the debugger of an instance, by `deadline`. Where there is no instance, one is started; one that has a call,
    /// which may stand at a breakpoint, is as good as an idle one.
    pub async fn attach(self: &Arc<Self>, deadline: Instant) -> Result<Attached, CallError> {
        let hold = match self.hold()? {
            Some(hold) => hold,
            None => {
                let mut slot = self.slot_by(deadline).await?;
                slot.set_unused();
                // Taken while the slot is there, so that nothing can let it go in between.
                self.hold()?.ok_or_else(|| unavailable("the instance was lost after its start"))?
            }
        };
        let Hold { instance, .. } = &hold;
        if !instance.link.takes_debugger() {
            let text = "the image of its runtime is too old to debug in: build the images of this release";
            return Err(CallError::refused(ApiError::new(ErrorCode::Conflict, text)));
        }
        {
            let _ice = instance.ice.lock().await;
            self.shared.thaw(self, instance).await.map_err(|error| lost(&error))?;
        }
        let socket = instance.link.open_debugger(deadline).await.map_err(|error| lost(&error))?;
        let stream = TcpStream::from_std(socket).map_err(|error| unavailable(&error.to_string()))?;
        let _ = stream.set_nodelay(true);
        Ok(Attached { stream, hold })
    }

    /// Holds a member, if there is one: the one that would get the next call.
    fn hold(self: &Arc<Self>) -> Result<Option<Hold>, CallError> {
        let mut state = self.state.lock();
        let there = state.members.iter_mut().filter(|member| !member.instance.link.is_closed());
        let Some(member) = there.max_by_key(|member| member.place()) else { return Ok(None) };
        if member.debuggers >= CONNECTIONS {
            let text = format!("{CONNECTIONS} connections to this instance's debugger are open already");
            return Err(CallError::refused(ApiError::new(ErrorCode::TooManyRequests, text)));
        }
        member.debuggers += 1;
        Ok(Some(Hold { fleet: self.clone(), instance: member.instance.clone() }))
    }

    fn unhold(self: &Arc<Self>, instance: &Instance) {
        let watch = {
            let mut state = self.state.lock();
            let Some(at) = state.position(instance.id) else { return };
            drop_hold(&mut state, at, Instant::now())
        };
        if watch {
            self.shared.watch_idle(self, instance.id);
        }
    }
}

/// Whether it is idle from now on, and has to be looked at for that.
fn drop_hold(state: &mut State, at: usize, now: Instant) -> bool {
    let member = &mut state.members[at];
    member.debuggers -= 1;
    if !member.is_idle() {
        return false;
    }
    (member.idle_since, member.judge_at) = (now, now);
    !std::mem::replace(&mut member.watched, true)
}

fn unavailable(why: &str) -> CallError {
    CallError::refused(ApiError::new(ErrorCode::Unavailable, why))
}

fn lost(error: &LinkError) -> CallError {
    let code = match error {
        LinkError::Failure(_) => ErrorCode::Conflict,
        LinkError::Deadline | LinkError::Closed | LinkError::Protocol(_) => ErrorCode::Unavailable,
    };
    let text = match error {
        LinkError::Failure(failure) => failure.message.clone(),
        other => other.to_string(),
    };
    CallError::refused(ApiError::new(code, text))
}
