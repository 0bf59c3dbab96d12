//! Function addresses and custom routes: from a request to a call, and from its outcome to a response.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use chrono::Utc;
use davit_api::{
    Access, ApiError, ErrorCode, FunctionKind, InvocationId, InvocationSource, Qualifier, Role, TokenId,
    limits,
};
use davit_daemon::courtesy;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as _;

use crate::event::{self, HttpEvent};
use crate::forward::{Origin, prepare, strip_ours};
use crate::http::{
    Arrived, Body, COURTESY_BYTES, CollectError, Public, auth, choose, error, fitting, later, not_found,
    receive, reply,
};
use crate::invoke::{Answer, Call, CallError, Payload, Target};
use crate::policy::{Asked, preflight_method};
use crate::routes::{Found, Lookup};

impl Public {
    /// A request to a function.
    pub(super) async fn address(&self, arrived: Arrived<'_>) -> Result<Response<Body>, ApiError> {
        if let Some(answer) = self.preflight(&arrived) {
            return Ok(answer);
        }
        let mut found = {
            let table = self.routes.load();
            let request = &arrived.request;
            match table.lookup(arrived.host.as_str(), request.method().as_str(), request.uri().path()) {
                Lookup::Found(found) => found,
                Lookup::NotFound => return Err(not_found()),
                Lookup::MethodNotAllowed(methods) => return Ok(method_not_allowed(&methods)),
            }
        };
        // Whatever the answer is: a page in a browser must be able to read a refusal, too.
        let mut asked = found.policy.is_some().then(|| Asked::of(&arrived.request));
        let answered = self.answer(arrived, &mut found, &mut asked).await;
        match (&found.policy, asked) {
            (Some(policy), Some(asked)) => {
                let response = answered.unwrap_or_else(|error| error::refuse(&error));
                Ok(policy.finish(response, &asked))
            }
            _ => answered,
        }
    }

    /// The answer to a preflight, where the gateway decides about it; no function is asked.
    fn preflight(&self, arrived: &Arrived<'_>) -> Option<Response<Body>> {
        let request = &arrived.request;
        let method = preflight_method(request)?;
        let table = self.routes.load();
        let Lookup::Found(found) = table.lookup(arrived.host.as_str(), method, request.uri().path()) else {
            return None;
        };
        let version = found.alias.as_ref().map_or(&found.version, |alias| alias.split.pick(|_| None));
        let policy = if found.alias.is_some() { version.policy.as_ref()? } else { found.policy.as_ref()? };
        if policy.access.unwrap_or(version.spec.access) == Access::Private {
            return None;
        }
        Some(match policy.preflight(request.headers())? {
            Ok(headers) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                *response.headers_mut() = headers;
                response
            }
            Err(why) => error::refusal(ErrorCode::Forbidden, &why),
        })
    }

    /// Answers for what was found. `asked` is there afterwards when the one that answers has a policy.
    async fn answer(
        &self,
        mut arrived: Arrived<'_>,
        found: &mut Found,
        asked: &mut Option<Asked>,
    ) -> Result<Response<Body>, ApiError> {
        let (wanted, token) = self.choose(&arrived, found).await?;
        auth::hide_token(arrived.request.headers_mut());
        let mut _parked = None;
        if let Some(policy) = &found.policy {
            asked.get_or_insert_with(|| Asked::of(&arrived.request));
            if let Err(wait) = policy.admit(arrived.peer.address.ip(), token) {
                self.metrics.failed(ErrorCode::RateLimited);
                return Ok(error::rate_limited(wait));
            }
            if let Some(contract) = &policy.contract {
                let deadline = arrived.at + found.budget();
                let (request, read) = fitting::hold(arrived.request, found, contract, deadline)
                    .await
                    .inspect_err(|refused| self.metrics.failed(refused.code))?;
                arrived.request = request;
                // A handler's are counted when its event is made.
                if read > 0 && found.version.spec.kind == FunctionKind::Server {
                    _parked = Some(self.parked.take(read)?);
                }
            }
            if let (FunctionKind::Server, Some(most)) = (found.version.spec.kind, policy.max_request_bytes) {
                arrived.request = within(arrived.request, most).await?;
            }
            policy.change_request(arrived.request.headers_mut());
        }
        let call = Call {
            payload: Payload::Event(Bytes::new()),
            arrived: arrived.at,
            deadline: arrived.at + found.budget(),
            request_id: InvocationId::new(),
            source: InvocationSource::Http,
            trace_id: trace_id(arrived.request.headers()),
            client_context: None,
            cause: None,
            log_tail: None,
        };
        let named = wanted.is_some();
        let mut response = match found.version.spec.kind {
            FunctionKind::Handler => self.handler(arrived, found, wanted, call).await?,
            FunctionKind::Server => self.server(arrived, found, call).await,
        };
        if named {
            reply::version(&mut response, found.version.number);
        }
        Ok(response)
    }

    /// Chooses the version that answers, and lets the caller in to it. Answers what the caller asked for by name, and with
    /// which token, where one was needed.
    ///
    /// Who asks for another version than everybody gets needs a token with the right to invoke, whatever the function's
    /// access: an old version may have a hole that was closed, a new one is not ready for the public. Only an alias's own
    /// address can be opened to everybody, by the alias.
    async fn choose(
        &self,
        arrived: &Arrived<'_>,
        found: &mut Found,
    ) -> Result<(Option<Qualifier>, Option<TokenId>), ApiError> {
        let headers = arrived.request.headers();
        let wanted = choose::wanted(headers)?;
        // The same answer as for a function that does not exist.
        if wanted.is_some() && found.access() == Access::Private && found.alias.is_none() {
            return Err(not_found());
        }
        let open = found.alias.as_ref().is_none_or(|alias| alias.public) && wanted.is_none();
        let mut token = None;
        // A version that is named by its number may have to be looked up.
        let chosen = {
            let table = self.routes.load();
            if !open {
                token = Some(self.let_in(&table, headers, &found.version.namespace, Role::Invoke)?);
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
        if found.route.is_none() {
            found.payload = found.version.spec.payload;
            found.policy.clone_from(&found.version.policy);
        }
        match found.access() {
            Access::Private => return Err(not_found()),
            Access::Token if open => {
                let table = self.routes.load();
                token = Some(self.let_in(&table, headers, &found.version.namespace, Role::Invoke)?);
            }
            Access::Token | Access::Public => {}
        }
        let wanted =
            wanted.or_else(|| found.alias.as_ref().map(|alias| Qualifier::Alias(alias.name.clone())));
        Ok((wanted, token))
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
        let body = read(body, most(found), call.deadline).await?;
        let _parked = self.parked.take(body.len())?;
        strip_ours(&mut parts.headers);
        let path = seen(found, parts.uri.path());
        let event = event::build(
            found.payload,
            &HttpEvent {
                method: parts.method.as_str(),
                path: &path,
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
            Err(failed) => return Ok(error::respond(&told(failed, found).body(request_id))),
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
            added: found.added(),
            request_id: &id,
        };
        prepare(&mut request, &origin);
        call.payload = Payload::Http(Box::new(request));
        let request_id = call.request_id;
        let outcome = self.corridor.invoke(Target { version: found.version.clone() }, call).await;
        match outcome.result {
            Err(failed) => error::respond(&told(failed, found).body(request_id)),
            Ok(Answer::Http(mut response)) => {
                reply::mark(&mut response, id);
                *response
            }
            Ok(Answer::Event { body, .. }) => Response::new(Body::full(body)),
        }
    }
}

/// The most that an event's body may hold.
pub(super) fn most(found: &Found) -> usize {
    let own = found.policy.as_ref().and_then(|policy| policy.max_request_bytes);
    own.and_then(|own| usize::try_from(own).ok())
        .map_or(limits::PAYLOAD_BYTES, |own| own.min(limits::PAYLOAD_BYTES))
}

/// The path that a handler sees.
fn seen<'p>(found: &Found, path: &'p str) -> Cow<'p, str> {
    let rest = path.get(found.prefix..).unwrap_or("/");
    match found.added() {
        None => Cow::Borrowed(rest),
        Some(added) => Cow::Owned(format!("{added}{rest}")),
    }
}

/// A request whose body is at most so long: refused if its length says otherwise, cut off if it turns out longer.
async fn within(request: Request<Body>, most: u64) -> Result<Request<Body>, ApiError> {
    if request.body().size_hint().lower() <= most {
        return Ok(request.map(|body| if body.is_end_stream() { body } else { body.limited(most) }));
    }
    // So that the client, which may be sending still, sees the answer.
    courtesy::hear_out(&mut request.into_body(), COURTESY_BYTES).await;
    Err(ApiError::new(ErrorCode::TooLarge, format!("the body is larger than {most} bytes")))
}

/// A failure by the time budget of its route, which is not the one that the version's settings name.
fn told(mut failed: CallError, found: &Found) -> CallError {
    let own = found.policy.as_ref().and_then(|policy| policy.timeout_seconds);
    if let (ErrorCode::FunctionTimeout, Some(seconds)) = (failed.error.code, own) {
        failed.error.message = format!("the function did not answer within {seconds} s");
    }
    failed
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
