//! Function addresses and custom routes: from a request to a call, and from its outcome to a response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use davit_api::{
    Access, ApiError, ErrorCode, FunctionKind, InvocationId, InvocationSource, Qualifier, Role, limits,
};
use http::{HeaderMap, HeaderValue, Response, header};

use crate::event::{self, HttpEvent};
use crate::forward::{Origin, prepare, strip_ours};
use crate::http::{
    Arrived, Body, CollectError, Public, auth, choose, error, later, not_found, receive, reply,
};
use crate::invoke::{Answer, Call, Payload, Target};
use crate::routes::{Found, Lookup};

impl Public {
    /// A request to a function.
    pub(super) async fn address(&self, mut arrived: Arrived<'_>) -> Result<Response<Body>, ApiError> {
        let mut found = {
            let table = self.routes.load();
            let request = &arrived.request;
            match table.lookup(arrived.host.as_str(), request.method().as_str(), request.uri().path()) {
                Lookup::Found(found) => found,
                Lookup::NotFound => return Err(not_found()),
                Lookup::MethodNotAllowed(methods) => return Ok(method_not_allowed(&methods)),
            }
        };
        let asked = self.choose(&arrived, &mut found).await?;
        auth::hide_token(arrived.request.headers_mut());
        let budget = Duration::from_secs(found.version.spec.timeout_seconds.into());
        let call = Call {
            payload: Payload::Event(Bytes::new()),
            arrived: arrived.at,
            deadline: arrived.at + budget,
            request_id: InvocationId::new(),
            source: InvocationSource::Http,
            trace_id: trace_id(arrived.request.headers()),
            client_context: None,
            cause: None,
            log_tail: None,
        };
        let named = asked.is_some();
        let mut response = match found.version.spec.kind {
            FunctionKind::Handler => self.handler(arrived, &found, asked, call).await?,
            FunctionKind::Server => self.server(arrived, &found, call).await,
        };
        if named {
            reply::version(&mut response, found.version.number);
        }
        Ok(response)
    }

    /// Chooses the version that answers, and lets the caller in to it. Answers what the caller asked for by name.
    ///
    /// Who asks for another version than everybody gets needs a token with the right to invoke, whatever the function's
    /// access: an old version may have a hole that was closed, a new one is not ready for the public. Only an alias's own
    /// address can be opened to everybody, by the alias.
    async fn choose(&self, arrived: &Arrived<'_>, found: &mut Found) -> Result<Option<Qualifier>, ApiError> {
        let headers = arrived.request.headers();
        let wanted = choose::wanted(headers)?;
        // The same answer as for a function that does not exist.
        if wanted.is_some() && found.version.spec.access == Access::Private && found.alias.is_none() {
            return Err(not_found());
        }
        let open = found.alias.as_ref().is_none_or(|alias| alias.public) && wanted.is_none();
        // A version that is named by its number may have to be looked up.
        let chosen = {
            let table = self.routes.load();
            if !open {
                self.let_in(&table, headers, &found.version.namespace, Role::Invoke)?;
            }
            let key = |sticky: &_| choose::key(sticky, choose::pairs(headers));
            match (&wanted, &found.alias) {
                (None, None) => Ok(table.pick(&found.version, key).clone()),
                (None, Some(alias)) => Ok(alias.split.pick(key).clone()),
                (Some(Qualifier::Alias(name)), _) => {
                    let chosen = table.alias(&found.version, name.as_str(), key).cloned();
                    Ok(chosen.ok_or_else(|| choose::no_alias(&found.version, name))?)
                }
                (Some(Qualifier::Version(number)), _) => Err(*number),
            }
        };
        found.version = match chosen {
            Ok(version) => version,
            Err(number) => self.pins.find(&found.version, number).await?,
        };
        match found.version.spec.access {
            Access::Private => return Err(not_found()),
            Access::Token if open => {
                self.let_in(&self.routes.load(), headers, &found.version.namespace, Role::Invoke)?;
            }
            Access::Token | Access::Public => {}
        }
        if found.route.is_none() {
            found.payload = found.version.spec.payload;
        }
        Ok(wanted.or_else(|| found.alias.as_ref().map(|alias| Qualifier::Alias(alias.name.clone()))))
    }

    async fn handler(
        &self,
        arrived: Arrived<'_>,
        found: &Found,
        asked: Option<Qualifier>,
        mut call: Call,
    ) -> Result<Response<Body>, ApiError> {
        let (mut parts, body) = arrived.request.into_parts();
        let wanted_later = later::preferred(&parts.headers);
        let wishes = if wanted_later { later::wishes(&parts.headers)? } else { Default::default() };
        let body = read(body, limits::PAYLOAD_BYTES, call.deadline).await?;
        let _parked = self.parked.take(body.len())?;
        strip_ours(&mut parts.headers);
        let path = parts.uri.path();
        let event = event::build(
            found.payload,
            &HttpEvent {
                method: parts.method.as_str(),
                path: path.get(found.prefix..).unwrap_or("/"),
                query: parts.uri.query().unwrap_or_default(),
                headers: &parts.headers,
                body: &body,
                protocol: parts.version,
                source_ip: arrived.peer.address.ip(),
                https: arrived.peer.https,
                host: arrived.host.as_str(),
                port: self.port.number,
                request_id: call.request_id,
                at: Utc::now(),
                route: found.route.as_deref(),
                params: &found.params,
                namespace: &found.version.namespace,
                function: &found.version.function,
                trace_id: call.trace_id.as_deref(),
            },
        )?;
        drop(body);
        if wanted_later {
            return self.later(&found.version, asked, event, wishes, InvocationSource::Http.into()).await;
        }
        call.payload = Payload::Event(event);
        let request_id = call.request_id;
        let outcome = self.corridor.invoke(Target { version: found.version.clone() }, call).await;
        let mut response = match outcome.result {
            Err(failed) => return Ok(error::respond(&failed.body(request_id))),
            Ok(Answer::Http(response)) => *response,
            Ok(Answer::Event { content_type, body }) => {
                let responded = event::respond(found.payload, &content_type, &body);
                if responded.as_ref().map_or(true, |response| response.status().is_server_error()) {
                    let measures = self.corridor.instances().shared().recorder.measures();
                    measures.fault(found.version.version_id);
                }
                match responded {
                    Ok(response) => response.map(Body::full),
                    Err(bad) => {
                        self.metrics.failed(bad.code);
                        return Ok(error::respond(&reply::error_body(&bad, request_id)));
                    }
                }
            }
        };
        reply::mark(&mut response, reply::id_value(request_id));
        Ok(response)
    }

    async fn server(&self, arrived: Arrived<'_>, found: &Found, mut call: Call) -> Response<Body> {
        let mut request = arrived.request;
        let id = reply::id_value(call.request_id);
        let origin = Origin {
            ip: &arrived.peer.ip,
            host: arrived.host.value(),
            port: &self.port.value,
            proto: &arrived.peer.proto(),
            prefix: found.address(),
            request_id: &id,
        };
        prepare(&mut request, &origin);
        call.payload = Payload::Http(Box::new(request));
        let request_id = call.request_id;
        let outcome = self.corridor.invoke(Target { version: found.version.clone() }, call).await;
        match outcome.result {
            Err(failed) => error::respond(&failed.body(request_id)),
            Ok(Answer::Http(mut response)) => {
                reply::mark(&mut response, id);
                *response
            }
            Ok(Answer::Event { body, .. }) => Response::new(Body::full(body)),
        }
    }
}

/// Reads a body whole, within the call's budget.
pub(super) async fn read(body: Body, limit: usize, deadline: std::time::Instant) -> Result<Bytes, ApiError> {
    match tokio::time::timeout_at(deadline.into(), receive(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(CollectError::TooLarge(limit))) => {
            Err(ApiError::new(ErrorCode::TooLarge, format!("the body is larger than {limit} bytes")))
        }
        Ok(Err(CollectError::Broken(_))) => {
            Err(ApiError::new(ErrorCode::InvalidRequest, "the body ended early or is not well-formed"))
        }
        Err(_) => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "the body did not arrive within the function's time budget",
        )),
    }
}

fn method_not_allowed(methods: &[&'static str]) -> Response<Body> {
    let allow = methods.join(", ");
    let mut response = error::refusal(ErrorCode::MethodNotAllowed, &format!("this address takes {allow}"));
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// A caller's trace id.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<Arc<str>> {
    trace(headers.get("x-amzn-trace-id")?.as_bytes())
}

/// A trace id, when it has the shape of one; anything else is not passed on to where it becomes an environment
/// variable.
pub(super) fn trace(text: &[u8]) -> Option<Arc<str>> {
    let text = std::str::from_utf8(text).ok()?;
    let fine = text.len() <= 256
        && text.starts_with("Root=")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"=;-:".contains(&b));
    fine.then(|| text.into())
}
