//! HTTP request ⇄ handler event. `http/` calls [`build`] before the corridor and [`respond`] after it.
//!
//! Everything here is pure. Events are written as JSON maps: typed event structs add and drop fields that
//! functions look at. Results are read without being re-written, because a result may hold what only its own
//! language calls JSON (Python's `NaN`).

mod body;
mod headers;
mod payload_v1;
mod payload_v2;
mod prelude;
pub(crate) mod query;
mod response;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use davit_api::{ApiError, FunctionName, InvocationId, NamespaceName, PayloadFormat, RouteSpec};
use http::HeaderMap;

pub(crate) use body::event as json;
pub use prelude::{Begun, Head, has_no_body};
pub use response::respond;

/// An HTTP request as a handler is to see it.
///
/// The caller has already removed what the function must not see, above all the token that the gateway itself
/// checked.
#[derive(Debug, Clone, Copy)]
pub struct HttpEvent<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The path as sent, still encoded, without the function's address in front; empty means `/`.
    pub path: &'a str,
    /// The query as sent, without its question mark.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
    /// The protocol of the request.
    pub protocol: http::Version,
    /// Who sent it.
    pub source_ip: IpAddr,
    /// Whether it came over TLS, as far as the gateway knows.
    pub https: bool,
    /// The host it was sent to, without the port.
    pub host: &'a str,
    /// The port it was sent to.
    pub port: u16,
    /// The id under which it runs.
    pub request_id: InvocationId,
    /// When it arrived.
    pub at: DateTime<Utc>,
    /// The custom route that it matched; none for the path address.
    pub route: Option<&'a RouteSpec>,
    /// Decoded path parameters of the route.
    pub params: &'a [(String, String)],
    /// Namespace of the function.
    pub namespace: &'a NamespaceName,
    /// The function's name.
    pub function: &'a FunctionName,
    /// Trace id, `Root=1-…`.
    pub trace_id: Option<&'a str>,
}

/// The event for a request. Fails when the format asks for something that the request is not: only `body`
/// does, which needs a JSON body.
pub fn build(format: PayloadFormat, request: &HttpEvent<'_>) -> Result<Bytes, ApiError> {
    match format {
        PayloadFormat::V2 => Ok(written(&payload_v2::event(request))),
        PayloadFormat::V1 => Ok(written(&payload_v1::event(request))),
        PayloadFormat::Body => body::event(Bytes::copy_from_slice(request.body)),
    }
}

fn written(event: &serde_json::Value) -> Bytes {
    Bytes::from(event.to_string())
}

impl HttpEvent<'_> {
    fn path_or_root(&self) -> &str {
        if self.path.is_empty() { "/" } else { self.path }
    }
    fn protocol_name(&self) -> String {
        format!("{:?}", self.protocol)
    }
    /// The moment in the format of Apache's access log, which is what API Gateway sends.
    fn time(&self) -> String {
        self.at.format("%d/%b/%Y:%H:%M:%S +0000").to_string()
    }
    fn domain_prefix(&self) -> &str {
        self.host.split('.').next().unwrap_or_default()
    }
}
