//! A handler's result that is streamed, on its way from the instance to the client's body.
//!
//! Two who do not wait for each other share it: the [`Streaming`] in the response's body is read as fast as the
//! client takes it, and [`hold`], a task, keeps the slot meanwhile. So the slot comes back at the deadline even when
//! the client has stopped reading, and a handler whose client went away gets a moment to finish by itself.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use davit_api::ErrorCode;
use davit_link::{FailureKind, LinkError, ResultStream};
use http::Response;
use tokio::sync::oneshot;

use crate::account::Account;
use crate::event::{self, Begun, Head};
use crate::instances::Slot;
use crate::invoke::{CallError, call_error};
use crate::version::LiveVersion;

/// How the reading of a result ended.
enum Over {
    /// The result did.
    Ended {
        /// Whether the instance may serve again.
        spoiled: bool,
    },
    /// Nobody reads it any more.
    Abandoned(ResultStream),
}

/// The bytes of a result as they come. Dropping it leaves the call to its [`hold`].
pub(crate) struct Streaming {
    /// None once it has ended.
    stream: Option<ResultStream>,
    over: Option<oneshot::Sender<Over>>,
}

/// What [`hold`] is told by.
pub(crate) struct Held(oneshot::Receiver<Over>);

/// Shares a stream out.
pub(crate) fn share(stream: ResultStream) -> (Streaming, Held) {
    let (over, told) = oneshot::channel();
    (Streaming { stream: Some(stream), over: Some(over) }, Held(told))
}

/// Keeps the slot until the result has ended, `deadline` has passed, or its reader has been gone for `grace`.
pub(crate) async fn hold(mut slot: Slot, held: Held, deadline: Instant, grace: Duration) {
    // The instance is in the middle of a call unless we learn that it is not.
    slot.set_spoiled(true);
    match tokio::time::timeout_at(deadline.into(), held.0).await {
        Ok(Ok(Over::Ended { spoiled })) => slot.set_spoiled(spoiled),
        Ok(Ok(Over::Abandoned(mut stream))) => {
            let end = deadline.min(Instant::now() + grace);
            let rest = async {
                loop {
                    match stream.next().await {
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return spoils(&error),
                        None => return false,
                    }
                }
            };
            slot.set_spoiled(tokio::time::timeout_at(end.into(), rest).await.unwrap_or(true));
        }
        Ok(Err(_)) | Err(_) => {}
    }
}

/// A runtime that was cut off in the middle of a result is not asked again; one that reported an error is.
fn spoils(error: &LinkError) -> bool {
    !matches!(error, LinkError::Failure(failure) if failure.kind == FailureKind::FunctionError)
}

impl Streaming {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, LinkError>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let next = ready!(stream.poll_next(cx));
        let spoiled = match &next {
            Some(Ok(_)) => return Poll::Ready(next),
            Some(Err(error)) => spoils(error),
            None => false,
        };
        self.stream = None;
        self.tell(Over::Ended { spoiled });
        Poll::Ready(next)
    }

    async fn next(&mut self) -> Option<Result<Bytes, LinkError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn tell(&mut self, over: Over) {
        if let Some(teller) = self.over.take() {
            // It has stopped at the deadline; a stream that is dropped here is cancelled.
            let _ = teller.send(over);
        }
    }

    /// Reads up to where the response's head is known. What cannot be a response is the function's failure.
    pub(crate) async fn head(
        mut self,
        version: &LiveVersion,
        deadline: Instant,
    ) -> Result<Answered, CallError> {
        let begun = tokio::time::timeout_at(deadline.into(), self.begun(version)).await;
        let (response, first) = begun.unwrap_or_else(|_| Err(call_error(LinkError::Deadline, version)))?;
        if !event::has_no_body(&response) {
            return Ok(Answered { response, body: Some((first, self)) });
        }
        // The call is what it takes, even when the client gets nothing of it.
        let rest = async {
            while let Some(bytes) = self.next().await {
                bytes.map_err(|error| call_error(error, version))?;
            }
            Ok(())
        };
        let rest = tokio::time::timeout_at(deadline.into(), rest).await;
        rest.unwrap_or_else(|_| Err(call_error(LinkError::Deadline, version)))?;
        Ok(Answered { response, body: None })
    }

    async fn begun(&mut self, version: &LiveVersion) -> Result<Begun, CallError> {
        let refused = |error| CallError { error, function_error: None, started: true };
        let mut head = Head::new(self.stream.as_ref().map_or("", ResultStream::content_type));
        loop {
            let Some(bytes) = self.next().await else { return head.end().map_err(refused) };
            let bytes = bytes.map_err(|error| call_error(error, version))?;
            if let Some(begun) = head.push(bytes).map_err(refused)? {
                return Ok(begun);
            }
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.tell(Over::Abandoned(stream));
        }
    }
}

/// The head of a streamed response, and what its body is made of; nothing where HTTP has none.
pub(crate) struct Answered {
    pub(crate) response: Response<()>,
    pub(crate) body: Option<(Bytes, Streaming)>,
}

/// The body of a streamed response. The call's account is closed with its end, or dropped with the body.
pub(crate) struct Passing {
    first: Bytes,
    stream: Streaming,
    account: Option<Account>,
    /// What the client is to be told by breaking the connection off, once it has been given everything else.
    failed: Option<CallError>,
}

impl Passing {
    pub(crate) fn new(first: Bytes, stream: Streaming, account: Account) -> Self {
        Self { first, stream, account: Some(account), failed: None }
    }

    /// The next bytes; `None` at the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CallError>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(self.stream.poll_next(cx)) {
            Some(Ok(bytes)) => return Poll::Ready(Some(Ok(bytes))),
            None => self.close(None),
            Some(Err(error)) => {
                if let Some(version) = self.account.as_ref().map(|account| &account.fleet().version) {
                    let error = call_error(error, version);
                    tracing::debug!(error = %error.error, "a streamed result failed in the middle");
                    self.close(Some(error.error.code));
                    self.failed = Some(error);
                    // hyper throws away what it has not written yet when a body fails. A body that has nothing at the
                    // moment makes it write.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(None)
    }

    fn close(&mut self, failed: Option<ErrorCode>) {
        if let Some(account) = self.account.take() {
            account.close(failed);
        }
    }
}
