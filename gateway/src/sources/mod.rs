//! Event sources: how events from outside come in. `docs/sources.md` says what they promise.
//!
//! Whatever it is that sends, an event takes the same steps: it is received, it gets a name by which it is recognised, it
//! is delivered (the durable queue has committed it), and only then is it acknowledged to whoever sent it. From the queue
//! on it is an asynchronous call like any other; the corridor knows nothing of sources.
//!
//! A webhook is pushed: the request is the event, and the answer the acknowledgment ([`Intake`], `http/hook.rs`). Other
//! sources are fetched from ([`fetch`]), each by one gateway at a time ([`keep`]): `postgres.rs` is one of them.

mod event;
mod fetch;
mod keep;
mod postgres;
mod verify;

use davit_api::{ApiError, ErrorCode, InvocationId, InvocationSource};
use davit_registry::{NewInvocation, Registry, SourceRow};

use crate::dispatch::Acceptor;
use crate::version::LiveVersion;

pub(crate) use event::event;
pub(crate) use keep::Keeper;
pub(crate) use verify::{Delivery, verify};

/// An event of a source.
pub(crate) struct Event {
    /// What its sender calls it: the same id within a day is the same event.
    pub(crate) id: String,
    /// What the function gets.
    pub(crate) payload: Vec<u8>,
}

/// Where webhooks deliver.
#[derive(Clone)]
pub(crate) struct Intake {
    registry: Registry,
    acceptor: Acceptor,
}

impl Intake {
    /// An intake before the queue.
    pub(crate) fn new(registry: Registry, acceptor: Acceptor) -> Self {
        Self { registry, acceptor }
    }

    /// Delivers an event. When this returns an id it will not be lost and may be acknowledged; the id is the earlier one
    /// when the event was delivered before.
    pub(crate) async fn deliver(
        &self,
        source: &SourceRow,
        version: &LiveVersion,
        event: Event,
    ) -> Result<InvocationId, ApiError> {
        let key = format!("source:{}:{}", source.id, event.id);
        let new = NewInvocation {
            idempotency_key: Some(key.clone()),
            destinations: version.spec.destinations.clone(),
            ..NewInvocation::new(
                version.namespace.clone(),
                version.function_id,
                InvocationSource::EventSource,
                event.payload,
                version.spec.retry,
            )
        };
        match self.acceptor.accept(new).await {
            // Delivered before. Headers differ from one try to the next (the time, the signature over it), which makes
            // the event differ and its sender's id the only thing that counts.
            Err(error) if error.code == ErrorCode::Conflict => {
                let known = self.registry.invocation_known_as(version.function_id, &key).await;
                known.map_err(ApiError::from)?.ok_or(error)
            }
            accepted => accepted,
        }
    }
}

#[cfg(test)]
mod stories;
