//! What every request passes before and after its handler.

use std::time::{Duration, Instant};

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use davit_api::{ApiError, ErrorCode, NamespaceName, RequestId};
use davit_registry::{Act, Audited};
use http::{HeaderValue, Method, StatusCode};

use super::error::{Answer, Failure, with_request_id};
use super::{ApiState, Route};
use crate::auth;

/// Longest time for a request, body included; a long poll waits 30 s at most.
const BUDGET: Duration = Duration::from_secs(60);
/// The same for an upload of 64 MiB over a slow line.
const UPLOAD_BUDGET: Duration = Duration::from_secs(900);

/// Around everything, known route or not: a request id, and one line in the access log.
pub(super) async fn outermost(mut request: Request, next: Next) -> Response {
    let id = RequestId::new();
    request.extensions_mut().insert(id);
    let (method, path) =
        (request.method().clone(), request.uri().path().chars().take(300).collect::<String>());
    let started = Instant::now();
    let mut response = with_request_id(next.run(request).await, &id.to_string());
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert("x-davit-request-id", value);
    }
    let error = response.extensions().get::<ApiError>().map(ToString::to_string);
    let status = response.status();
    let ms = started.elapsed().as_millis() as u64;
    macro_rules! access_log {
        ($level:ident) => {
            tracing::event!(
                tracing::Level::$level, request_id = %id, %method, path, status = status.as_u16(), ms, error,
                "management request"
            )
        };
    }
    match level(&method, status) {
        tracing::Level::WARN => access_log!(WARN),
        tracing::Level::DEBUG => access_log!(DEBUG),
        _ => access_log!(INFO),
    }
    response
}

/// How loud a request is: what went wrong here is a warning; looking, and clients look often, is not worth a line.
fn level(method: &Method, status: StatusCode) -> tracing::Level {
    if status.is_server_error() {
        tracing::Level::WARN
    } else if method.is_safe() && !status.is_client_error() {
        tracing::Level::DEBUG
    } else {
        tracing::Level::INFO
    }
}

/// Around every handler: who is calling, whether they may, for how long, and what is written down about it.
pub(super) async fn guard(
    State((state, route)): State<(ApiState, &'static Route)>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let budget = if route.name == "artifacts.put" { UPLOAD_BUDGET } else { BUDGET };
    let caller = match auth::authenticate(&state.registry, request.headers()).await {
        Ok(caller) => caller,
        Err(error) => return Failure::from(error).into_response(),
    };
    state.seen(caller.token);
    let params = match params {
        Ok(params) => params,
        Err(rejection) => {
            return Failure::invalid(format!("path: {}", rejection.body_text())).into_response();
        }
    };
    let namespace = match namespace_of(&params) {
        Ok(namespace) => namespace,
        Err(failure) => return failure.into_response(),
    };
    let allowed = auth::authorise(&caller, route.role, route.reach, namespace.as_ref());
    let request_id = request.extensions().get::<RequestId>().copied().unwrap_or_default();
    let audited = state.registry.audited(Act {
        request_id: Some(request_id),
        token_id: Some(caller.token),
        actor: caller.actor.clone(),
        namespace: namespace.or_else(|| caller.namespace.clone()),
        action: route.name.to_owned(),
        object: object_of(&params),
    });
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(audited.clone());

    let work = async move {
        let response = match allowed {
            Err(refused) => Failure(refused).into_response(),
            Ok(()) => match tokio::time::timeout(budget.saturating_sub(started.elapsed()), next.run(request))
                .await
            {
                Ok(response) => response,
                Err(_) => Failure::new(ErrorCode::Unavailable, "the request took too long and was stopped")
                    .into_response(),
            },
        };
        if route.writes() {
            let failure = response.extensions().get::<ApiError>().map(|error| error.code.as_str());
            record(&audited, route, failure).await;
        }
        response
    };
    if !route.writes() {
        return work.await;
    }
    // A client that hangs up must not stop a write half-way, nor its audit entry.
    match tokio::spawn(work).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, route = route.name, "a management handler failed");
            Failure::new(ErrorCode::Internal, "davit failed on this request; its log says why")
                .into_response()
        }
    }
}

fn namespace_of(params: &RawPathParams) -> Answer<Option<NamespaceName>> {
    let given = params.iter().find(|(name, _)| *name == "ns");
    given.map(|(_, text)| text.parse().map_err(|e| Failure(ApiError::from(e)))).transpose()
}

/// The path's own names without the namespace: `hello/schedules/nightly` becomes `hello/nightly`.
fn object_of(params: &RawPathParams) -> String {
    let names: Vec<&str> = params.iter().filter(|(name, _)| *name != "ns").map(|(_, value)| value).collect();
    names.join("/").chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Writes down what left no entry by changing something: an act that was refused or failed, or had nothing to do.
async fn record(audited: &Audited, route: &Route, failure: Option<&'static str>) {
    if failure.is_none() && audited.recorded() {
        return;
    }
    let outcome = failure.unwrap_or("ok");
    if let Err(error) = audited.record(outcome).await {
        tracing::error!(%error, action = route.name, outcome, "an audit entry could not be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_quiet_and_changes_and_failures_are_not() {
        for (method, status, wanted) in [
            (Method::GET, StatusCode::OK, tracing::Level::DEBUG),
            (Method::GET, StatusCode::NOT_FOUND, tracing::Level::INFO),
            (Method::GET, StatusCode::SERVICE_UNAVAILABLE, tracing::Level::WARN),
            (Method::PUT, StatusCode::NO_CONTENT, tracing::Level::INFO),
            (Method::POST, StatusCode::INTERNAL_SERVER_ERROR, tracing::Level::WARN),
        ] {
            assert_eq!(level(&method, status), wanted, "{method} {status}");
        }
    }
}
