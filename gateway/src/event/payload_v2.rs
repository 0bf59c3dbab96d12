//! API Gateway payload format 2.0: HTTP APIs and function URLs.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{HttpEvent, body, headers, query};

/// The event.
pub(super) fn event(request: &HttpEvent<'_>) -> Value {
    let mut all = headers::collect(request);
    let cookies = cookies(all.remove("cookie").unwrap_or_default());
    let headers: BTreeMap<String, String> =
        all.into_iter().map(|(name, values)| (name, values.join(","))).collect();
    let route_key =
        request.route.map_or_else(|| "$default".to_owned(), |r| format!("{} {}", r.method, r.path));

    let mut event = Map::new();
    event.insert("version".into(), "2.0".into());
    event.insert("routeKey".into(), route_key.clone().into());
    event.insert("rawPath".into(), request.path_or_root().into());
    event.insert("rawQueryString".into(), request.query.into());
    if !cookies.is_empty() {
        event.insert("cookies".into(), cookies.into());
    }
    event.insert("headers".into(), json!(headers));
    let parameters = joined(query::pairs(request.query));
    if !parameters.is_empty() {
        event.insert("queryStringParameters".into(), json!(parameters));
    }
    event.insert("requestContext".into(), context(request, &route_key));
    if !request.params.is_empty() {
        let params: BTreeMap<_, _> = request.params.iter().cloned().collect();
        event.insert("pathParameters".into(), json!(params));
    }
    let content_type = headers::first(request.headers, "content-type");
    let (text, base64) = body::encode_by_type(request.body, content_type.as_deref());
    if !request.body.is_empty() {
        event.insert("body".into(), text.into());
    }
    event.insert("isBase64Encoded".into(), base64.into());
    Value::Object(event)
}

fn context(request: &HttpEvent<'_>, route_key: &str) -> Value {
    json!({
        "accountId": request.namespace.as_str(),
        "apiId": request.function.as_str(),
        "domainName": request.host,
        "domainPrefix": request.domain_prefix(),
        "http": {
            "method": request.method,
            "path": request.path_or_root(),
            "protocol": request.protocol_name(),
            "sourceIp": request.source_ip.to_string(),
            "userAgent": headers::first(request.headers, "user-agent").unwrap_or_default(),
        },
        "requestId": request.request_id.to_string(),
        "routeKey": route_key,
        "stage": "$default",
        "time": request.time(),
        "timeEpoch": request.at.timestamp_millis(),
    })
}

fn cookies(lines: Vec<String>) -> Vec<String> {
    lines
        .iter()
        .flat_map(|l| l.split(';'))
        .map(str::trim)
        .filter(|c| !c.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Values of one name joined by commas, in order.
fn joined(pairs: Vec<(String, String)>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs {
        all.entry(name)
            .and_modify(|known| {
                known.push(',');
                known.push_str(&value);
            })
            .or_insert(value);
    }
    all
}
