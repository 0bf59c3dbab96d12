//! Accepting work: clients that ask at the same time share a statement and its commit.
//!
//! One task writes; while it waits for one commit, what comes in gathers and becomes the next. A lone client waits
//! for nobody.

use std::sync::Arc;
use std::time::Duration;

use davit_api::{ApiError, ErrorCode, InvocationId, Lineage, NamespaceName, Published, TopicName};
use davit_registry::{NewInvocation, NewMessage, Registry, RegistryError};
use tokio::sync::{Notify, mpsc, oneshot};

/// How long a client waits for its work to be accepted.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients that may wait; with [`davit_api::limits::ASYNC_PAYLOAD_BYTES`] each, a bound on memory, too.
const WAITING: usize = 256;
/// Of one statement.
const MOST: usize = 128;
/// Bytes of events in one statement; an event may be as large by itself.
const MOST_BYTES: usize = 4 * 1024 * 1024;

type Answer = Result<InvocationId, ApiError>;

/// Where asynchronous work is handed in; cheap to clone. Ends with its last clone.
#[derive(Clone)]
pub struct Acceptor {
    registry: Registry,
    wake: Arc<Notify>,
    line: mpsc::Sender<(NewInvocation, oneshot::Sender<Answer>)>,
}

impl Acceptor {
    /// Starts to accept; `wake` is notified after each commit.
    pub fn spawn(registry: Registry, wake: Arc<Notify>) -> Self {
        let (line, waiting) = mpsc::channel(WAITING);
        tokio::spawn(write(registry.clone(), wake.clone(), waiting));
        Self { registry, wake, line }
    }

    /// Accepts an invocation. When this returns an id, it will not be lost. After an error it was almost always not
    /// accepted; should the commit have succeeded and only its answer be lost, a second try runs it twice, unless
    /// it has an idempotency key.
    pub async fn accept(&self, new: NewInvocation) -> Answer {
        new.check_size()?;
        let accepting = async {
            if !new.is_plain() {
                let accepted = self.registry.enqueue(new).await.map_err(refused);
                self.wake.notify_one();
                return accepted;
            }
            let (sender, answer) = oneshot::channel();
            self.line.send((new, sender)).await.map_err(|_| late())?;
            answer.await.unwrap_or_else(|_| Err(late()))
        };
        tokio::time::timeout(PATIENCE, accepting).await.unwrap_or_else(|_| Err(late()))
    }

    /// Accepts all of them or none; the ids are in order.
    pub async fn accept_all(&self, new: Vec<NewInvocation>) -> Result<Vec<InvocationId>, ApiError> {
        new.iter().try_for_each(NewInvocation::check_size)?;
        let accepting = tokio::time::timeout(PATIENCE, self.registry.enqueue_all(new));
        let ids = accepting.await.map_err(|_| late())?.map_err(refused)?;
        self.wake.notify_one();
        Ok(ids)
    }

    /// Publishes all of them or none, with their deliveries. After an error they were almost always not published; a
    /// second try is safe for events whose id was not made here.
    pub async fn publish(
        &self,
        namespace: &NamespaceName,
        topic: &TopicName,
        messages: Vec<NewMessage>,
        lineage: Lineage,
    ) -> Result<Vec<Published>, ApiError> {
        let publishing = self.registry.publish(namespace, topic, messages, lineage);
        let publishing = tokio::time::timeout(PATIENCE, publishing);
        let published = publishing.await.map_err(|_| late())?.map_err(refused)?;
        self.wake.notify_one();
        Ok(published)
    }
}

fn late() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the registry does not answer in time")
}

fn refused(error: RegistryError) -> ApiError {
    tracing::debug!(%error, "not accepted");
    error.into_api()
}

async fn write(
    registry: Registry,
    wake: Arc<Notify>,
    mut waiting: mpsc::Receiver<(NewInvocation, oneshot::Sender<Answer>)>,
) {
    while let Some(first) = waiting.recv().await {
        let mut bytes = first.0.payload.len();
        let mut batch = vec![first];
        while batch.len() < MOST && bytes < MOST_BYTES {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += next.0.payload.len();
            batch.push(next);
        }
        // Whoever has given up meanwhile was told that it was not accepted.
        batch.retain(|(_, sender)| !sender.is_closed());
        let (new, senders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        if new.is_empty() {
            continue;
        }
        let answers = match registry.enqueue_each(&new).await {
            Ok(answers) => answers.into_iter().map(|answer| answer.map_err(refused)).collect(),
            Err(RegistryError::Refused(_)) if new.len() > 1 => one_by_one(&registry, new).await,
            Err(error) => {
                let error = refused(error);
                vec![Err(error); senders.len()]
            }
        };
        wake.notify_one();
        for (sender, answer) in senders.into_iter().zip(answers) {
            let _ = sender.send(answer);
        }
    }
}

/// One of them was refused, and a statement is carried out as a whole or not at all: the others must not suffer.
async fn one_by_one(registry: &Registry, new: Vec<NewInvocation>) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(new.len());
    for one in new {
        answers.push(registry.enqueue(one).await.map_err(refused));
    }
    answers
}
