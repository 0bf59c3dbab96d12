//! The way to a function's debugger: an HTTP/1.1 connection that becomes one to the runtime's own debugger, inside the container.
//!
//! ```text
//! GET /v1/namespaces/{namespace}/functions/{function}/debugger
//! Connection: Upgrade
//! Upgrade: davit-debugger
//! ```
//!
//! Whoever comes so can do what the function can. So it is for those who may deploy, and only to versions that were deployed to be
//! debugged; such a version says so in its spec, and its agent opens the connection for no other.

use std::time::Duration;

use davit_api::{ApiError, DEBUGGER_PROTOCOL as PROTOCOL, ErrorCode, NamespaceName, Role};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};

use super::invocations::missing;
use super::{Arrived, Body, Public};

/// How long an instance may take to be there and to open the connection.
const OPENING: Duration = Duration::from_secs(30);

impl Public {
    /// Joins the client to the debugger of the function's live version.
    pub(super) async fn debugger(
        &self,
        mut arrived: Arrived<'_>,
        namespace: &NamespaceName,
        function: &str,
    ) -> Result<Response<Body>, ApiError> {
        let version = {
            let table = self.routes.load();
            self.let_in(&table, arrived.request.headers(), namespace, Role::Deploy)?;
            let live = table.function(namespace.as_str(), function);
            live.cloned().ok_or_else(|| missing(namespace, function))?
        };
        if version.spec.debug.is_none() {
            let text = format!(
                "version {} of {namespace}/{function} is not deployed for debugging; davit dev --debug deploys such versions",
                version.number
            );
            return Err(ApiError::new(ErrorCode::Conflict, text));
        }
        if arrived.request.version() != Version::HTTP_11 || !asks_for_it(arrived.request.headers()) {
            let text = format!("ask for it by HTTP/1.1 with Connection: Upgrade and Upgrade: {PROTOCOL}");
            return Err(ApiError::new(ErrorCode::InvalidRequest, text));
        }
        let client = hyper::upgrade::on(&mut arrived.request);
        self.corridor.debug(&version, client, arrived.at + OPENING).await.map_err(|failed| failed.error)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        Ok(response)
    }
}

fn asks_for_it(headers: &HeaderMap) -> bool {
    let names = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    names(header::CONNECTION, "upgrade") && names(header::UPGRADE, PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_headers_are_needed() {
        let asks = |pairs: &[(&'static str, &'static str)]| {
            let pairs =
                pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            asks_for_it(&HeaderMap::from_iter(pairs))
        };
        assert!(asks(&[("connection", "keep-alive, Upgrade"), ("upgrade", "Davit-Debugger")]));
        assert!(!asks(&[("connection", "upgrade"), ("upgrade", "websocket")]));
        assert!(!asks(&[("upgrade", PROTOCOL)]));
        assert!(!asks(&[("connection", "upgrade")]));
    }
}
