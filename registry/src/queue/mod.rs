//! The durable queue. A claim is a lease; a settlement needs the receipt (id and attempt) of the claim, so a
//! worker that comes back late can neither finish nor repeat what another took over.
//!
//! An invocation lies in `invocations` until it ends, and in `ended_invocations` afterwards (`end.rs` moves it, and
//! is the only place that does). One file a step of its way:
//! `accept.rs` → `claim.rs` → `settle.rs`, `cancel.rs` or `lapse.rs` → `end.rs`; `read.rs` shows it, `again.rs` repeats it.

mod accept;
mod again;
mod cancel;
mod claim;
mod end;
mod lapse;
mod read;
mod retention;
mod room;
mod sent_on;
mod settle;
mod turn;

use std::time::Duration;

use chrono::{DateTime, Utc};
use davit_api::{
    ApiError, Destinations, ErrorBody, ErrorCode, FunctionId, FunctionName, InvocationId, InvocationSource,
    Lineage, NamespaceName, Priority, Qualifier, RetryPolicy, SubscriptionId, Webhook, limits,
};

pub use claim::{ClaimFrom, JOB_LEASE};
pub use read::InvocationFilter;

pub(crate) use accept::{accept_one, accept_present};
pub(crate) use cancel::cancel_all;
pub(crate) use end::end_queued_of;
pub(crate) use lapse::free_jobs;
pub(crate) use turn::{line_up, lock as lock_keys};

/// When an invocation may first run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At once.
    #[default]
    Now,
    /// So long after its acceptance.
    After(Duration),
    /// Not before this instant.
    At(DateTime<Utc>),
}

/// Where an invocation goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobTarget {
    /// A function is called.
    Function(FunctionId),
    /// An address is sent to.
    Webhook(Webhook),
}

/// An invocation to accept.
#[derive(Debug, Clone, PartialEq)]
pub struct NewInvocation {
    /// Its namespace; must be the function's.
    pub namespace: NamespaceName,
    /// Where it goes.
    pub target: JobTarget,
    /// Through which door it came.
    pub source: InvocationSource,
    /// The event.
    pub payload: Vec<u8>,
    /// What is promised for it, from now on.
    pub policy: RetryPolicy,
    /// Where its outcome is sent on to.
    pub destinations: Destinations,
    /// When it may first run.
    pub start: Start,
    /// Which of those that are due runs first.
    pub priority: Priority,
    /// Runs after those of the same function and key that were accepted before; 1 to 128 characters.
    pub ordering_key: Option<String>,
    /// What the client calls it: within a day the same key and payload are the same invocation, and the same key
    /// with another payload is refused. 1 to 256 characters.
    pub idempotency_key: Option<String>,
    /// Which ended invocation it repeats.
    pub replay_of: Option<InvocationId>,
    /// To which subscription of a topic it delivers.
    pub subscription: Option<SubscriptionId>,
    /// Where it stands among functions that cause each other.
    pub lineage: Lineage,
    /// The version or alias that was asked for; without it, what is live when it runs.
    pub qualifier: Option<Qualifier>,
}

impl NewInvocation {
    /// A call of a function, at once, with nothing out of the ordinary.
    pub fn new(
        namespace: NamespaceName,
        function: FunctionId,
        source: InvocationSource,
        payload: Vec<u8>,
        policy: RetryPolicy,
    ) -> Self {
        Self {
            namespace,
            target: JobTarget::Function(function),
            source,
            payload,
            policy,
            destinations: Destinations::default(),
            start: Start::Now,
            priority: Priority::Normal,
            ordering_key: None,
            idempotency_key: None,
            replay_of: None,
            subscription: None,
            lineage: Lineage::default(),
            qualifier: None,
        }
    }

    /// Whether one statement can accept it together with others.
    pub fn is_plain(&self) -> bool {
        self.ordering_key.is_none() && self.idempotency_key.is_none()
    }

    /// Refuses an event that is too large, before anything is sent to the database.
    pub fn check_size(&self) -> Result<(), ApiError> {
        if self.payload.len() <= limits::ASYNC_PAYLOAD_BYTES {
            return Ok(());
        }
        let text =
            format!("the event of an asynchronous call is at most {} bytes", limits::ASYNC_PAYLOAD_BYTES);
        Err(ApiError::new(ErrorCode::TooLarge, text))
    }
}

/// Where a claimed invocation goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimedTarget {
    /// This function is called.
    Function {
        /// Its id.
        id: FunctionId,
        /// Its name.
        name: FunctionName,
        /// The version or alias that was asked for.
        qualifier: Option<Qualifier>,
    },
    /// This address is sent to.
    Webhook(Webhook),
}

/// A claimed invocation.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id; with `attempt`, the receipt.
    pub id: InvocationId,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// How many of those before it found no place to run.
    pub excused: u32,
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Where it goes.
    pub target: ClaimedTarget,
    /// The event.
    pub payload: Vec<u8>,
    /// What was promised.
    pub policy: RetryPolicy,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// How long ago that was, or since when it was to run if that came later, by the database's clock.
    pub age: Duration,
    /// Through which door it came.
    pub source: InvocationSource,
    /// Where it stands among functions that cause each other.
    pub lineage: Lineage,
    /// Its end lets another one run or is sent somewhere, so that it needs a transaction of several statements.
    pub has_consequences: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// With a result.
    Succeeded {
        /// What the function answered.
        result: Vec<u8>,
    },
    /// With an error, and another attempt follows.
    RetryAt {
        /// How long until then.
        delay: Duration,
        /// What went wrong.
        error: ErrorBody,
        /// Whether it was one of the attempts that were promised; one that found no place to run was not.
        counts: bool,
    },
    /// With an error, and none follows.
    Dead {
        /// What went wrong.
        error: ErrorBody,
    },
    /// It was stopped because somebody wished so.
    Cancelled,
}

/// One attempt's end, with the receipt of its claim.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// Which invocation.
    pub id: InvocationId,
    /// Which attempt.
    pub attempt: u32,
    /// [`Job::has_consequences`].
    pub has_consequences: bool,
    /// How it ended.
    pub settlement: Settlement,
}

fn rank(priority: Priority) -> i16 {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}

fn priority(rank: i16) -> Priority {
    match rank {
        ..=0 => Priority::Low,
        1 => Priority::Normal,
        2.. => Priority::High,
    }
}
