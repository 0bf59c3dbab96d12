//! The gateway's own API: call a function with an event, now or later, look at what became of it, publish to a topic; debug it.
//!
//! ```text
//! POST /v1/namespaces/{namespace}/functions/{function}/invocations
//! POST /v1/namespaces/{namespace}/functions/{function}/invocations/batch
//! GET  /v1/namespaces/{namespace}/functions/{function}/live
//! GET  /v1/namespaces/{namespace}/functions/{function}/debugger
//! GET  /v1/namespaces/{namespace}/invocations/{id}
//! POST /v1/namespaces/{namespace}/topics/{topic}/messages
//! ```
//!
//! Deliveries of webhook sources come by the same prefix, because no namespace can take it: `hook.rs`.

use std::sync::Arc;
use std::time::Duration;

use davit_api::{
    ApiError, ErrorCode, InvocationId, InvocationSource, InvocationWishes, LiveView, NamespaceName,
    Qualifier, Role, limits,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;

use crate::event;
use crate::http::address::{read, trace_id};
use crate::http::{Arrived, Body, Public, choose, error, later, reply};
use crate::instances::LogTail;
use crate::invoke::{Answer, Call, Outcome, Payload, Target};
use crate::version::LiveVersion;

/// A batch has no call's budget to arrive within.
const ARRIVAL: Duration = Duration::from_secs(30);

impl Public {
    /// A request to the gateway's own API.
    pub(super) async fn api(&self, arrived: Arrived<'_>) -> Result<Response<Body>, ApiError> {
        let path = arrived.request.uri().path().to_owned();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (arrived.request.method(), segments.as_slice()) {
            (&Method::POST, ["v1", "namespaces", namespace, "functions", function, "invocations"]) => {
                let namespace: NamespaceName = namespace.parse()?;
                self.invoke(arrived, &namespace, function).await
            }
            (
                &Method::POST,
                ["v1", "namespaces", namespace, "functions", function, "invocations", "batch"],
            ) => {
                let namespace: NamespaceName = namespace.parse()?;
                self.many(arrived, &namespace, function).await
            }
            (&Method::GET, ["v1", "namespaces", namespace, "invocations", id]) => {
                let namespace: NamespaceName = namespace.parse()?;
                self.show(&arrived, &namespace, id).await
            }
            (&Method::GET, ["v1", "namespaces", namespace, "functions", function, "live"]) => {
                self.live(&arrived, &namespace.parse()?, function)
            }
            (&Method::GET, ["v1", "namespaces", namespace, "functions", function, "debugger"]) => {
                let namespace: NamespaceName = namespace.parse()?;
                self.debugger(arrived, &namespace, function).await
            }
            (&Method::POST, ["v1", "namespaces", namespace, "sources", source, "hook"]) => {
                self.hook(arrived, namespace, source).await
            }
            (&Method::POST, ["v1", "namespaces", namespace, "topics", topic, "messages"]) => {
                self.publish(arrived, &namespace.parse()?, &topic.parse()?).await
            }
            (_, ["v1", "namespaces", _, "topics", _, "messages"])
            | (_, ["v1", "namespaces", _, "sources", _, "hook"])
            | (_, ["v1", "namespaces", _, "functions", _, "invocations"])
            | (_, ["v1", "namespaces", _, "functions", _, "invocations", "batch"]) => Ok(only("POST")),
            (_, ["v1", "namespaces", _, "functions", _, "live" | "debugger"]) => Ok(only("GET")),
            (_, ["v1", "namespaces", _, "invocations", _]) => Ok(only("GET")),
            _ => Err(ApiError::new(
                ErrorCode::NotFound,
                "the gateway serves invocations and topics' messages under /v1; the rest of the API is the controller's",
            )),
        }
    }

    /// The version of a function that a call goes to, for somebody who may call it, and what was asked for by name.
    async fn callable(
        &self,
        arrived: &Arrived<'_>,
        namespace: &NamespaceName,
        function: &str,
    ) -> Result<(Arc<LiveVersion>, Option<Qualifier>), ApiError> {
        let headers = arrived.request.headers();
        let live = {
            let table = self.routes.load();
            self.let_in(&table, headers, namespace, Role::Invoke)?;
            let live = table.function(namespace.as_str(), function);
            live.cloned().ok_or_else(|| missing(namespace, function))?
        };
        let wanted = choose::wanted(headers)?;
        let version = self.version_of(&live, wanted.as_ref(), headers).await?;
        Ok((version, wanted))
    }

    /// The version of a function that was asked for, or that one of several which has its turn.
    pub(super) async fn version_of(
        &self,
        live: &Arc<LiveVersion>,
        wanted: Option<&Qualifier>,
        headers: &HeaderMap,
    ) -> Result<Arc<LiveVersion>, ApiError> {
        let number = {
            let table = self.routes.load();
            let key = |sticky: &_| choose::key(sticky, choose::pairs(headers));
            match wanted {
                None => return Ok(table.pick(live, key).clone()),
                Some(Qualifier::Alias(name)) => {
                    let chosen = table.alias(live, name.as_str(), key).cloned();
                    return chosen.ok_or_else(|| choose::no_alias(live, name));
                }
                Some(Qualifier::Version(number)) => *number,
            }
        };
        self.pins.find(live, number).await
    }

    async fn many(
        &self,
        arrived: Arrived<'_>,
        namespace: &NamespaceName,
        function: &str,
    ) -> Result<Response<Body>, ApiError> {
        let (version, asked) = self.callable(&arrived, namespace, function).await?;
        let deadline = arrived.at + ARRIVAL;
        let body = read(arrived.request.into_body(), limits::PAYLOAD_BYTES, deadline).await?;
        let _parked = self.parked.take(body.len())?;
        self.batch(&version, asked, &body, InvocationSource::Async.into()).await
    }

    async fn invoke(
        &self,
        arrived: Arrived<'_>,
        namespace: &NamespaceName,
        function: &str,
    ) -> Result<Response<Body>, ApiError> {
        let (version, asked) = self.callable(&arrived, namespace, function).await?;
        let query = arrived.request.uri().query().unwrap_or_default();
        let (wanted_later, wishes) = when(arrived.request.headers(), query)?;
        let deadline = arrived.at + Duration::from_secs(version.spec.timeout_seconds.into());
        let trace_id = trace_id(arrived.request.headers());
        let limit = if wanted_later { limits::ASYNC_PAYLOAD_BYTES } else { limits::PAYLOAD_BYTES };
        let event = event::json(read(arrived.request.into_body(), limit, deadline).await?)?;
        if wanted_later {
            return self.later(&version, asked, event, wishes, InvocationSource::Async.into()).await;
        }
        let _parked = self.parked.take(event.len())?;
        let tail = Arc::new(LogTail::default());
        let call = Call {
            payload: Payload::Event(event),
            arrived: arrived.at,
            deadline,
            request_id: InvocationId::new(),
            source: InvocationSource::Invoke,
            trace_id,
            client_context: None,
            cause: None,
            log_tail: Some(tail.clone()),
        };
        let request_id = call.request_id;
        let outcome = self.corridor.invoke(Target { version: version.clone() }, call).await;
        let mut response = answered(outcome, request_id);
        reply::log_tail(&mut response, &tail.text());
        Ok(response)
    }

    /// Which version this gateway serves at this moment: what the registry says reaches it a little later.
    fn live(
        &self,
        arrived: &Arrived<'_>,
        namespace: &NamespaceName,
        function: &str,
    ) -> Result<Response<Body>, ApiError> {
        let table = self.routes.load();
        self.let_in(&table, arrived.request.headers(), namespace, Role::Read)?;
        let version =
            table.function(namespace.as_str(), function).ok_or_else(|| missing(namespace, function))?;
        let split = table.aliases(version.function_id).and_then(|aliases| aliases.live.as_ref());
        let versions = split.map(|split| split.shares()).unwrap_or_default();
        Ok(json(StatusCode::OK, &LiveView { version: version.number, versions }))
    }

    async fn show(
        &self,
        arrived: &Arrived<'_>,
        namespace: &NamespaceName,
        id: &str,
    ) -> Result<Response<Body>, ApiError> {
        self.let_in(&self.routes.load(), arrived.request.headers(), namespace, Role::Read)?;
        let id: InvocationId = id.parse().map_err(|_| ApiError::field("invocation", "not an id"))?;
        let view =
            self.registry.invocation(namespace, id).await.map_err(|error| told(error, "invocation"))?;
        Ok(json(StatusCode::OK, &view))
    }
}

/// A call's outcome, with what there is to know about it.
pub(super) fn answered(outcome: Outcome, request_id: InvocationId) -> Response<Body> {
    let mut response = match outcome.result {
        Err(failed) => error::respond(&failed.body(request_id)),
        Ok(Answer::Event { content_type, body }) => {
            let mut response = Response::new(Body::full(body));
            let json = HeaderValue::from_static("application/json");
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_str(&content_type).unwrap_or(json));
            response
        }
        Ok(Answer::Http(response)) => *response,
    };
    reply::mark(&mut response, reply::id_value(request_id));
    reply::facts(&mut response, outcome.cold, outcome.version, &outcome.timings);
    response
}

pub(super) fn missing(namespace: &NamespaceName, function: &str) -> ApiError {
    ApiError::new(
        ErrorCode::NotFound,
        format!("there is no function {namespace}/{function} with a live version"),
    )
}

/// Whether the caller wants no more than the promise that it will run, and what it asks of that.
pub(super) fn when(headers: &HeaderMap, query: &str) -> Result<(bool, InvocationWishes), ApiError> {
    let wanted_later = wants_later(headers, query)?;
    let wishes = later::wishes(headers)?;
    if !wanted_later && wishes != InvocationWishes::default() {
        let text = "a delay, priority or key is for asynchronous calls: add Prefer: respond-async";
        return Err(ApiError::new(ErrorCode::InvalidRequest, text));
    }
    Ok((wanted_later, wishes))
}

fn wants_later(headers: &HeaderMap, query: &str) -> Result<bool, ApiError> {
    let mut wanted = later::preferred(headers);
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        wanted = match pair {
            "async=true" | "async=1" | "async" => true,
            "async=false" | "async=0" => false,
            _ => return Err(ApiError::field("query", "only async=true and async=false are understood here")),
        };
    }
    Ok(wanted)
}

fn told(error: davit_registry::RegistryError, what: &str) -> ApiError {
    if !matches!(error, davit_registry::RegistryError::Refused(_)) {
        tracing::warn!(%error, what, "registry did not carry out");
    }
    error.into_api()
}

fn only(method: &'static str) -> Response<Body> {
    let mut response = error::refusal(ErrorCode::MethodNotAllowed, &format!("this address takes {method}"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(method));
    response
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut response = Response::new(Body::full(serde_json::to_vec(value).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
