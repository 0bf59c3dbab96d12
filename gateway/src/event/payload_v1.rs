//! API Gateway payload format 1.0: REST API proxy integration.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{HttpEvent, body, headers, query};

/// The event.
pub(super) fn event(request: &HttpEvent<'_>) -> Value {
    let multi_headers: BTreeMap<String, Vec<String>> = headers::collect(request)
        .into_iter()
        .map(|(name, values)| (headers::title_case(&name), values))
        .collect();
    let mut multi_query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in query::pairs(request.query) {
        multi_query.entry(name).or_default().push(value);
    }
    let (resource, params) = resource(request);
    let (text, base64) = body::encode_by_content(request.body);
    json!({
        "resource": resource,
        "path": request.path_or_root(),
        "httpMethod": request.method,
        "headers": last_of_each(&multi_headers),
        "multiValueHeaders": multi_headers,
        "queryStringParameters": or_null(last_of_each(&multi_query)),
        "multiValueQueryStringParameters": or_null(multi_query),
        "pathParameters": or_null(params),
        "stageVariables": null,
        "requestContext": context(request, &resource),
        "body": if request.body.is_empty() { Value::Null } else { text.into() },
        "isBase64Encoded": base64,
    })
}

/// The resource and its parameters. A path address has no pattern of its own, so it looks like the
/// catch-all resource that a REST API in front of one function has.
fn resource(request: &HttpEvent<'_>) -> (String, BTreeMap<String, String>) {
    match request.route {
        Some(route) => (route.path.to_string(), request.params.iter().cloned().collect()),
        None => match request.path_or_root().strip_prefix('/').unwrap_or_default() {
            "" => ("/".into(), BTreeMap::new()),
            rest => ("/{proxy+}".into(), BTreeMap::from([("proxy".into(), rest.to_owned())])),
        },
    }
}

fn context(request: &HttpEvent<'_>, resource: &str) -> Value {
    json!({
        "accountId": request.namespace.as_str(),
        "apiId": request.function.as_str(),
        "deploymentId": "live",
        "domainName": request.host,
        "domainPrefix": request.domain_prefix(),
        "extendedRequestId": request.request_id.to_string(),
        "httpMethod": request.method,
        "identity": {
            "accessKey": null,
            "accountId": null,
            "caller": null,
            "cognitoAuthenticationProvider": null,
            "cognitoAuthenticationType": null,
            "cognitoIdentityId": null,
            "cognitoIdentityPoolId": null,
            "principalOrgId": null,
            "sourceIp": request.source_ip.to_string(),
            "user": null,
            "userAgent": headers::first(request.headers, "user-agent"),
            "userArn": null,
        },
        "path": request.path_or_root(),
        "protocol": request.protocol_name(),
        "requestId": request.request_id.to_string(),
        "requestTime": request.time(),
        "requestTimeEpoch": request.at.timestamp_millis(),
        "resourceId": resource,
        "resourcePath": resource,
        "stage": "$default",
    })
}

fn last_of_each(all: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, String> {
    all.iter().filter_map(|(name, values)| Some((name.clone(), values.last()?.clone()))).collect()
}

fn or_null<T: serde::Serialize>(map: BTreeMap<String, T>) -> Value {
    if map.is_empty() { Value::Null } else { json!(map) }
}
