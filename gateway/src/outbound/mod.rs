//! Sending events to addresses outside, guarded: each name is resolved by us, and only addresses that the guard lets
//! pass are connected to, after redirects, too. One attempt a call; the queue repeats it.

mod sign;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use davit_api::{ApiError, ErrorCode, EventMode, NamespaceName, SecretName, Webhook};
use davit_daemon::Allowed;
use davit_daemon::outbound::Closed;
use davit_registry::{Job, MasterKey, Registry};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Response, StatusCode, Url};

use crate::cloud_events;
use crate::dispatch::Failed;
use crate::invoke::CallError;

pub(crate) use sign::key;

/// Time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for everything, from the name's resolution to the answer's last byte.
const WHOLE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are kept as the delivery's result; the rest is not read.
const ANSWER_BYTES: usize = 64 * 1024;
/// Redirects in a row.
const REDIRECTS: usize = 3;

/// Sends events to addresses outside; cheap to clone.
#[derive(Clone)]
pub struct Sender {
    /// Made when something is first sent: most gateways never do.
    http: Arc<OnceLock<Option<reqwest::Client>>>,
    allowed: Arc<Allowed>,
    registry: Registry,
    key: Arc<MasterKey>,
}

impl Sender {
    /// A sender. Secrets are read from the registry for each delivery, so that a changed one counts at once.
    pub fn new(allowed: Allowed, registry: Registry, key: Arc<MasterKey>) -> Self {
        Self { http: Arc::default(), allowed: Arc::new(allowed), registry, key }
    }

    fn http(&self) -> Result<&reqwest::Client, Failed> {
        let made = self.http.get_or_init(|| {
            // Such as a machine without any root certificates. Functions run all the same.
            let failed = |error: &reqwest::Error| tracing::error!(%error, "nothing can be sent to webhooks");
            client(&self.allowed).inspect_err(failed).ok()
        });
        made.as_ref().ok_or_else(|| {
            let text = "this gateway cannot send to webhooks; its log says why";
            CallError::refused(ApiError::new(ErrorCode::Unavailable, text)).into()
        })
    }

    /// Delivers a job's event; the answer's first bytes are its result.
    pub(crate) async fn send(&self, hook: &Webhook, job: &Job) -> Result<Bytes, Failed> {
        let url: Url =
            hook.url.parse().map_err(|e| refused(format!("the webhook's url is not valid: {e}")))?;
        self.check(&url)?;
        let (id, at) = (job.id.to_string(), chrono::Utc::now().timestamp());
        let Sent { headers, body } = sent(hook.mode, &job.payload);
        let mut request = self
            .http()?
            .post(url)
            .headers(headers)
            .header("webhook-id", &id)
            .header("webhook-timestamp", at)
            .header("x-davit-attempt", job.attempt);
        if let Some(name) = &hook.secret {
            let secret = self.secret(&job.namespace, name).await?;
            request = request.header("webhook-signature", sign::signature(&secret, &id, at, &body));
        }
        let answer = request.body(body).send().await.map_err(|e| unsent(&e))?;
        judge(answer).await
    }

    /// An address that is written out needs no resolver, and would pass it by.
    fn check(&self, url: &Url) -> Result<(), Failed> {
        match literal(url) {
            Some(ip) if !self.allowed.lets(ip) => Err(refused(Closed(ip).to_string())),
            _ => Ok(()),
        }
    }

    async fn secret(&self, namespace: &NamespaceName, name: &SecretName) -> Result<String, Failed> {
        let found: Option<String> =
            self.registry.secret(namespace, name, &self.key).await.map_err(|error| {
                tracing::debug!(%error, "a webhook's secret was not read");
                Failed::from(CallError::refused(error.into_api()))
            })?;
        // Unsigned it must not go: the receiver relies on the signature.
        found.ok_or_else(|| {
            let text = format!("the secret {name} that the webhook is signed with does not exist");
            CallError::refused(ApiError::new(ErrorCode::DeliveryFailed, text)).into()
        })
    }
}

fn client(allowed: &Arc<Allowed>) -> Result<reqwest::Client, reqwest::Error> {
    let of_redirects = allowed.clone();
    reqwest::Client::builder()
        .user_agent(concat!("davit/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .timeout(WHOLE)
        // A proxy would resolve names itself, behind the guard's back.
        .no_proxy()
        .dns_resolver(Arc::new(Guarded(allowed.clone())))
        .redirect(Policy::custom(move |attempt| redirect(&of_redirects, attempt)))
        .build()
}

/// The names' resolver: only addresses that may be connected to come out of it.
struct Guarded(Arc<Allowed>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.0.clone();
        Box::pin(async move {
            let open = allowed.resolve(name.as_str(), 0).await.map_err(|error| {
                match error.downcast::<Closed>() {
                    // Bare, so that it is found in the chain of causes.
                    Ok(closed) => closed.into(),
                    Err(other) => Box::<dyn std::error::Error + Send + Sync>::from(other),
                }
            })?;
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}

fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Only those that keep method and body, to addresses that may be sent to, and never from TLS to clear text.
fn redirect(allowed: &Allowed, attempt: Attempt<'_>) -> Action {
    let keeps = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let downgrade =
        attempt.url().scheme() != "https" && attempt.previous().iter().any(|url| url.scheme() == "https");
    if !keeps || downgrade || attempt.previous().len() > REDIRECTS {
        return attempt.stop();
    }
    match literal(attempt.url()) {
        Some(ip) if !allowed.lets(ip) => attempt.error(Closed(ip)),
        _ => attempt.follow(),
    }
}

/// An event as it is sent.
struct Sent {
    headers: HeaderMap,
    body: Bytes,
}

/// What is no CloudEvent has no attributes that could be headers, and goes as it is.
fn sent(mode: EventMode, payload: &[u8]) -> Sent {
    if mode == EventMode::Binary
        && let Some((headers, body)) = cloud_events::as_binary(payload)
    {
        return Sent { headers, body };
    }
    let kind = HeaderValue::from_static(content_type(payload));
    Sent { headers: HeaderMap::from_iter([(CONTENT_TYPE, kind)]), body: Bytes::copy_from_slice(payload) }
}

/// JSON is called so; a CloudEvent in structured form has a name of its own.
fn content_type(payload: &[u8]) -> &'static str {
    #[derive(serde::Deserialize)]
    struct Event {
        #[expect(dead_code, reason = "only its presence counts")]
        specversion: String,
    }
    if serde_json::from_slice::<Event>(payload).is_ok() {
        "application/cloudevents+json; charset=utf-8"
    } else {
        "application/json"
    }
}

async fn judge(mut answer: Response) -> Result<Bytes, Failed> {
    let status = answer.status();
    let retry_after = retry_after(&answer);
    let mut body = Vec::new();
    while body.len() < ANSWER_BYTES {
        match answer.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            // The status has been given: what is broken off is only what would have been kept for people.
            Ok(None) | Err(_) => break,
        }
    }
    body.truncate(ANSWER_BYTES);
    if status.is_success() {
        return Ok(body.into());
    }
    let code =
        if status == StatusCode::GONE { ErrorCode::DeliveryRefused } else { ErrorCode::DeliveryFailed };
    let error = ApiError::new(code, format!("the webhook answered {status}"));
    let function_error = serde_json::from_slice(&body).ok();
    Err(Failed { error: CallError { error, function_error, started: true }, retry_after })
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(std::time::SystemTime::now()).ok()
}

fn unsent(error: &reqwest::Error) -> Failed {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(one) = cause {
        if let Some(closed) = one.downcast_ref::<Closed>() {
            return refused(closed.to_string());
        }
        last = one.to_string();
        cause = one.source();
    }
    let text = if error.is_timeout() {
        format!("the webhook did not answer within {} s", WHOLE.as_secs())
    } else {
        format!("the webhook could not be reached: {last}")
    };
    let error = ApiError::new(ErrorCode::DeliveryFailed, text);
    CallError { error, function_error: None, started: true }.into()
}

fn refused(text: String) -> Failed {
    CallError::refused(ApiError::new(ErrorCode::DeliveryRefused, text)).into()
}

#[cfg(test)]
mod tests;
