//! The rules of each payload format, by example and for arbitrary input.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use davit_api::{
    ErrorCode, FunctionName, InvocationId, MethodMatch, NamespaceName, PayloadFormat, RouteSpec,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{HttpEvent, build, respond};

struct Request {
    method: &'static str,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Vec<u8>,
    route: Option<RouteSpec>,
    params: Vec<(String, String)>,
}

fn request(path: &str, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Request {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    Request {
        method: "POST",
        path: path.into(),
        query: query.into(),
        headers: map,
        body: body.into(),
        route: None,
        params: Vec::new(),
    }
}

fn event(format: PayloadFormat, request: &Request) -> Value {
    let (namespace, function): (NamespaceName, FunctionName) =
        ("shop".parse().unwrap(), "orders".parse().unwrap());
    let at: DateTime<Utc> = "2020-03-12T19:03:58.390Z".parse().unwrap();
    let view = HttpEvent {
        method: request.method,
        path: &request.path,
        query: &request.query,
        headers: &request.headers,
        body: &request.body,
        protocol: http::Version::HTTP_11,
        source_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        https: false,
        host: "api.example.com",
        port: 7480,
        request_id: InvocationId::new(),
        at,
        route: request.route.as_ref(),
        params: &request.params,
        namespace: &namespace,
        function: &function,
        trace_id: Some("Root=1-5e6722a7-cc56xmpl46db7ae02d4da47e"),
    };
    serde_json::from_slice(&build(format, &view).unwrap()).unwrap()
}

fn answer(format: PayloadFormat, result: &str) -> Response<Bytes> {
    respond(format, "application/json", &Bytes::copy_from_slice(result.as_bytes()))
        .unwrap_or_else(|e| panic!("{result}: {e}"))
}

fn refusal(format: PayloadFormat, result: &str) -> String {
    let error = respond(format, "application/json", &Bytes::copy_from_slice(result.as_bytes()))
        .err()
        .unwrap_or_else(|| panic!("{result} was taken"));
    assert_eq!(error.code, ErrorCode::FunctionBadResponse);
    error.message
}

#[test]
fn payload_2_joins_splits_and_omits_as_http_apis_do() {
    let mut sent = request(
        "/pa2%Fth/1",
        "a=1&a=2&b=x%20y",
        &[
            ("X-Twice", "1"),
            ("x-twice", "2"),
            ("cookie", "a=b; c=d"),
            ("te", "x"),
            ("content-type", "application/json"),
        ],
        "{\"é\":1}".as_bytes(),
    );
    let seen = event(PayloadFormat::V2, &sent);
    assert_eq!(seen["version"], "2.0");
    assert_eq!(seen["routeKey"], "$default");
    assert_eq!(seen["rawPath"], "/pa2%Fth/1");
    assert_eq!(seen["rawQueryString"], "a=1&a=2&b=x%20y");
    assert_eq!(seen["queryStringParameters"], json!({"a": "1,2", "b": "x y"}));
    assert_eq!(seen["cookies"], json!(["a=b", "c=d"]));
    assert_eq!(seen["headers"]["x-twice"], "1,2");
    assert_eq!(seen["headers"]["x-forwarded-for"], "192.0.2.7");
    assert!(seen["headers"].get("te").is_none() && seen["headers"].get("cookie").is_none());
    assert_eq!((&seen["body"], &seen["isBase64Encoded"]), (&json!("{\"é\":1}"), &json!(false)));
    assert_eq!(seen["requestContext"]["time"], "12/Mar/2020:19:03:58 +0000");
    assert_eq!(seen["requestContext"]["timeEpoch"], 1_584_039_838_390_i64);
    assert_eq!(seen["requestContext"]["http"]["protocol"], "HTTP/1.1");
    for absent in ["resource", "httpMethod", "pathParameters", "stageVariables"] {
        assert!(seen.get(absent).is_none(), "{absent}");
    }
    sent.route = Some(RouteSpec::new(MethodMatch::Get, "/items/{id}".parse().unwrap(), PayloadFormat::V2));
    sent.params = vec![("id".into(), "7".into())];
    sent.body.clear();
    let seen = event(PayloadFormat::V2, &sent);
    assert_eq!(seen["routeKey"], "GET /items/{id}");
    assert_eq!(seen["pathParameters"], json!({"id": "7"}));
    assert!(seen.get("body").is_none());
}

#[test]
fn payload_2_sends_what_is_not_text_as_base64() {
    for (content_type, body, base64) in [
        ("text/plain", b"hi".as_slice(), false),
        ("text/plain", b"\xff", true),
        ("image/svg+xml", b"<svg/>", false),
        ("application/x-www-form-urlencoded", b"a=b", true),
        ("multipart/form-data; boundary=text", b"--text--", true),
        ("application/octet-stream", b"x", true),
    ] {
        let seen = event(PayloadFormat::V2, &request("/", "", &[("content-type", content_type)], body));
        assert_eq!(seen["isBase64Encoded"], base64, "{content_type}");
    }
}

#[test]
fn payload_1_keeps_every_value_and_says_null_for_none() {
    let seen = event(PayloadFormat::V1, &request("/a/b", "q=1&q=2", &[("x-two", "1"), ("x-two", "2")], b""));
    assert_eq!((&seen["resource"], &seen["path"]), (&json!("/{proxy+}"), &json!("/a/b")));
    assert_eq!(seen["pathParameters"], json!({"proxy": "a/b"}));
    assert_eq!(
        (&seen["headers"]["X-Two"], &seen["multiValueHeaders"]["X-Two"]),
        (&json!("2"), &json!(["1", "2"]))
    );
    assert_eq!(seen["queryStringParameters"], json!({"q": "2"}));
    assert_eq!(seen["multiValueQueryStringParameters"], json!({"q": ["1", "2"]}));
    assert_eq!((&seen["body"], &seen["stageVariables"]), (&Value::Null, &Value::Null));
    assert_eq!(seen["requestContext"]["requestTime"], "12/Mar/2020:19:03:58 +0000");
    assert!(seen.get("version").is_none(), "REST APIs send none, and adapters look at it");
    let root = event(PayloadFormat::V1, &request("", "", &[], b""));
    assert_eq!(
        (&root["resource"], &root["path"], &root["pathParameters"]),
        (&json!("/"), &json!("/"), &Value::Null)
    );
    assert_eq!(root["queryStringParameters"], Value::Null);
}

#[test]
fn a_body_event_is_the_body_byte_for_byte() {
    let names: (NamespaceName, FunctionName) = ("a".parse().unwrap(), "b".parse().unwrap());
    let event = |body: &[u8]| {
        let view = HttpEvent {
            method: "POST",
            path: "/",
            query: "",
            headers: &HeaderMap::new(),
            body,
            protocol: http::Version::HTTP_10,
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            https: true,
            host: "",
            port: 0,
            request_id: InvocationId::new(),
            at: DateTime::UNIX_EPOCH,
            route: None,
            params: &[],
            namespace: &names.0,
            function: &names.1,
            trace_id: None,
        };
        build(PayloadFormat::Body, &view)
    };
    assert_eq!(event(b" {\"a\": 1.0e2}\n").unwrap(), " {\"a\": 1.0e2}\n");
    assert_eq!(event(b"  ").unwrap(), "{}");
    assert_eq!(event(b"a=b").unwrap_err().code, ErrorCode::InvalidRequest);
}

#[test]
fn payload_2_results_become_responses() {
    let cases = [
        (r#"{"statusCode":200,"body":"ok"}"#, 200, "ok"),
        (r#"{"statusCode":"418","body":"tea"}"#, 418, "tea"),
        (r#"{"statusCode":200,"body":{"a": 1.50}}"#, 200, r#"{"a": 1.50}"#),
        (r#"{"statusCode":200,"body":null}"#, 200, ""),
        (r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":true}"#, 200, "hi"),
        (r#"{"statusCode":204,"body":"lost"}"#, 204, ""),
        (r#""hello""#, 200, "hello"),
        (r#"["hello",3,true]"#, 200, r#"["hello",3,true]"#),
        ("{\"a\": NaN}", 200, "{\"a\": NaN}"),
        ("null", 200, "null"),
        (r#"{"status":1}"#, 200, r#"{"status":1}"#),
    ];
    for (result, status, body) in cases {
        let answer = answer(PayloadFormat::V2, result);
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (status, body.as_bytes()), "{result}");
        if status != 204 {
            assert_eq!(answer.headers()["content-type"], "application/json", "{result}");
        }
    }
    assert_eq!(answer(PayloadFormat::Body, r#""hello""#).body(), r#""hello""#);
    assert_eq!(answer(PayloadFormat::Body, r#"{"statusCode":400,"body":"no"}"#).status(), 400);
}

#[test]
fn headers_and_cookies_are_taken_over_and_framing_is_not() {
    let answer = answer(
        PayloadFormat::V2,
        r#"{"statusCode":200,"headers":{"Content-Type":"text/html","X-N":3,"X-B":true,"X-Null":null,"content-length":"999","Transfer-Encoding":"chunked"},
            "multiValueHeaders":{"x-n":["1","2"]},"cookies":["a=b; Secure","c=d"],"body":"<p>"}"#,
    );
    let all =
        |name: &str| answer.headers().get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("content-type"), ["text/html"]);
    assert_eq!(all("x-n"), ["1", "2", "3"]);
    assert_eq!(all("x-b"), ["true"]);
    assert_eq!(all("set-cookie"), ["a=b; Secure", "c=d"]);
    assert!(
        all("x-null").is_empty() && all("content-length").is_empty() && all("transfer-encoding").is_empty()
    );
}

#[test]
fn what_cannot_be_passed_on_is_refused_and_named() {
    let cases = [
        (r#"{"statusCode":"test"}"#, "statusCode"),
        (r#"{"statusCode":99}"#, "statusCode"),
        (r#"{"statusCode":101}"#, "statusCode"),
        (r#"{"statusCode":"+200"}"#, "statusCode"),
        (r#"{"statusCode":200,"headers":{"a b":"c"}}"#, "header name"),
        (r#"{"statusCode":200,"headers":{"x":"a\r\nset-cookie: b"}}"#, "not allowed"),
        (r#"{"statusCode":200,"cookies":["a\nb"]}"#, "not allowed"),
        (r#"{"statusCode":200,"headers":{"x":{}}}"#, "not a string"),
        (r#"{"statusCode":200,"headers":[]}"#, "headers must be an object"),
        (r#"{"statusCode":200,"multiValueHeaders":{"x":"y"}}"#, "not a list"),
        (r#"{"statusCode":200,"body":"%","isBase64Encoded":true}"#, "base64"),
        (r#"{"statusCode":200,"isBase64Encoded":"yes"}"#, "isBase64Encoded"),
    ];
    for (result, says) in cases {
        for format in [PayloadFormat::V2, PayloadFormat::Body] {
            let message = refusal(format, result);
            assert!(message.contains(says), "{result}: {message}");
        }
    }
}

#[test]
fn payload_1_is_strict_as_rest_apis_are() {
    for (result, status) in [
        (r#"{"statusCode":200}"#, 200),
        (r#"{"headers":{"a":"b"}}"#, 200),
        (r#"{"statusCode":"201","headers":null}"#, 201),
        (r#"{"statusCode":200,"headers":{"x":true}}"#, 200),
    ] {
        assert_eq!(answer(PayloadFormat::V1, result).status(), status, "{result}");
    }
    for result in [
        "{}",
        "\"x\"",
        "null",
        "7",
        "",
        r#"{"statusCode":200,"extra":1}"#,
        r#"{"statusCode":"test"}"#,
        r#"{"statusCode":200,"body":{}}"#,
        r#"{"statusCode":200,"multiValueHeaders":{"a":"b"}}"#,
    ] {
        refusal(PayloadFormat::V1, result);
    }
    let both = answer(PayloadFormat::V1, r#"{"multiValueHeaders":{"X":["multi"]},"headers":{"x":"solo"}}"#);
    assert_eq!(both.headers().get_all("x").iter().collect::<Vec<_>>(), ["multi", "solo"]);
}

#[test]
fn a_streaming_client_brings_status_and_headers_in_front() {
    let result = Bytes::from_static(
        b"{\"statusCode\":201,\"headers\":{\"a\":\"b\"},\"cookies\":[\"c=d\"]}\0\0\0\0\0\0\0\0\0body",
    );
    let answer =
        respond(PayloadFormat::V1, "application/vnd.awslambda.http-integration-response", &result).unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (201, b"\0body".as_slice()));
    assert_eq!(
        (&answer.headers()["a"], &answer.headers()["set-cookie"]),
        (&HeaderValue::from_static("b"), &HeaderValue::from_static("c=d"))
    );
}

/// JSON that looks like a response, more or less.
fn results() -> impl Strategy<Value = String> {
    let text = prop_oneof!["[a-z-]{0,8}", "\\PC{0,6}", "[\\x00-\\x7f]{0,6}", Just("statusCode".to_owned())];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-10i64..70_000).prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    let any_json = leaf.prop_recursive(3, 24, 4, move |inner| {
        let key = prop_oneof!["[a-z-]{1,8}", "\\PC{0,4}", "[\\x00-\\x7f]{0,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|m| json!(m)),
        ]
    });
    const KEYS: &[&str] =
        &["statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded", "cookies", "other"];
    let object = prop::collection::btree_map(prop::sample::select(KEYS), any_json.clone(), 0..6)
        .prop_map(|m| json!(m));
    let shaped = (object, 190u32..610).prop_map(|(mut o, status)| {
        o["statusCode"] = status.into();
        o
    });
    prop_oneof![any_json, shaped].prop_map(|v| v.to_string())
}

fn valid(response: &Response<Bytes>) {
    assert!((200..=599).contains(&response.status().as_u16()));
    for (name, value) in response.headers() {
        assert!(HeaderName::from_bytes(name.as_str().as_bytes()).is_ok());
        assert!(!value.as_bytes().iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "{name}");
        assert!(!["content-length", "transfer-encoding", "connection"].contains(&name.as_str()));
    }
    assert!(response.headers().get_all("content-type").iter().count() <= 1);
}

const FORMATS: [PayloadFormat; 3] = [PayloadFormat::V2, PayloadFormat::V1, PayloadFormat::Body];

proptest! {
    #[test]
    fn whatever_json_comes_back_http_stays_valid(result in results()) {
        for format in FORMATS {
            if let Ok(response) = respond(format, "application/json", &Bytes::from(result.clone())) {
                valid(&response);
            }
        }
    }

    #[test]
    fn whatever_bytes_come_back_http_stays_valid(result in prop::collection::vec(any::<u8>(), 0..200), kind in "\\PC{0,20}") {
        for format in FORMATS {
            for kind in [kind.as_str(), "application/vnd.awslambda.http-integration-response"] {
                if let Ok(response) = respond(format, kind, &Bytes::from(result.clone())) {
                    valid(&response);
                }
            }
        }
    }

    #[test]
    fn whatever_is_sent_becomes_an_event(
        path in "/[!-~]{0,20}",
        query in "[!-~]{0,40}",
        headers in prop::collection::vec(("[a-zA-Z-]{1,10}", prop::collection::vec(any::<u8>(), 0..20)), 0..8),
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut sent = request(&path, &query, &[], &body);
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(&value)) {
                sent.headers.append(name, value);
            }
        }
        let v2 = event(PayloadFormat::V2, &sent);
        prop_assert_eq!(&v2["rawPath"], &json!(path));
        prop_assert!(v2["headers"].as_object().unwrap().values().all(Value::is_string));
        let v1 = event(PayloadFormat::V1, &sent);
        prop_assert_eq!(&v1["path"], &json!(path));
        for event in [v1, v2] {
            let text = event["body"].as_str().unwrap_or_default();
            let bytes = if event["isBase64Encoded"] == true {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.decode(text).unwrap()
            } else {
                text.as_bytes().to_vec()
            };
            prop_assert_eq!(bytes, body.clone());
        }
    }
}
