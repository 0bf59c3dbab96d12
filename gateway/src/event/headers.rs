//! Request headers on their way into an event.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::HttpEvent;
use crate::forward::is_hop;

/// All end-to-end headers with their values in order, lower-case names, and those that the platform adds.
pub(super) fn collect(request: &HttpEvent<'_>) -> BTreeMap<String, Vec<String>> {
    let named: Vec<String> = request
        .headers
        .get_all("connection")
        .iter()
        .flat_map(|v| {
            text(v.as_bytes()).split(',').map(|t| t.trim().to_ascii_lowercase()).collect::<Vec<_>>()
        })
        .collect();
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.headers {
        if !is_hop(name.as_str()) && !named.iter().any(|n| n == name.as_str()) {
            all.entry(name.as_str().to_owned()).or_default().push(text(value.as_bytes()));
        }
    }
    // The chain of senders grows by the one that this gateway saw itself; only that entry can be trusted.
    let mut chain = all.remove("x-forwarded-for").unwrap_or_default();
    chain.push(request.source_ip.to_string());
    all.insert("x-forwarded-for".into(), vec![chain.join(", ")]);
    all.insert("x-forwarded-port".into(), vec![request.port.to_string()]);
    all.insert("x-forwarded-proto".into(), vec![if request.https { "https" } else { "http" }.into()]);
    if let Some(trace) = request.trace_id {
        all.insert("x-amzn-trace-id".into(), vec![trace.to_owned()]);
    }
    all
}

/// One header's first value.
pub(super) fn first<'h>(headers: &'h HeaderMap, name: &str) -> Option<std::borrow::Cow<'h, str>> {
    headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `content-type` as `Content-Type`. The HTTP library keeps no spelling of its own, and this is how clients of
/// HTTP/1.1 write names, so it is what code written for REST APIs looks up.
pub(super) fn title_case(name: &str) -> String {
    let mut start = true;
    name.chars()
        .map(|c| {
            let out = if start { c.to_ascii_uppercase() } else { c };
            start = c == '-';
            out
        })
        .collect()
}
