//! Bad input gives a precise 4xx with an error body, never a 5xx.

use axum::body::Body;
use davit_api::{ErrorCode, Role};
use http::{Request, StatusCode, header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Api, archive, request};

const VERSIONS: &str = "/v1/namespaces/own/functions/f/versions";
const SCHEDULES: &str = "/v1/namespaces/own/functions/f/schedules";

fn spec() -> Value {
    json!({
        "runtime": "python3.13", "kind": "handler", "handler": "app.handler", "memory_mb": 256, "cpu_millis": 1000,
        "timeout_seconds": 30, "concurrency": 1, "max_instances": 10, "ephemeral_mb": 512, "keep_alive_seconds": 60,
    })
}

async fn api_and_admin() -> (Api, String) {
    let api = Api::start().await;
    let admin = api.token(Role::Admin, None).await;
    (api, admin)
}

#[tokio::test]
async fn unknown_paths_and_methods_have_error_bodies_too() {
    let (api, admin) = api_and_admin().await;
    for path in [
        "/",
        "/v2",
        "/v1/namespaces/own/nothing",
        "/healthz",
        "/metrics",
        "/v1/info/",
        "/%2e%2e/v1/info",
        "//v1/info",
    ] {
        assert_eq!(api.call(&admin, "get", path, "").await.error().code, ErrorCode::NotFound, "{path}");
    }
    for (method, path) in
        [("post", "/v1/info"), ("patch", VERSIONS), ("delete", "/v1/audit"), ("trace", "/v1/tokens")]
    {
        assert_eq!(
            api.call(&admin, method, path, "").await.error().code,
            ErrorCode::MethodNotAllowed,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn names_in_paths_are_checked_before_anything_else() {
    let (api, admin) = api_and_admin().await;
    for name in [
        "..",
        "%2e%2e",
        "a%00b",
        "A",
        "a_b",
        "%2f",
        "a%2fb",
        "%ff",
        "%C0%AE",
        "-a",
        &"x".repeat(64),
        "f%0d%0aX:1",
        "%27%3b--",
    ] {
        for path in
            [format!("/v1/namespaces/own/functions/{name}"), format!("/v1/namespaces/{name}/functions")]
        {
            let answer = api.call(&admin, "get", &path, "").await;
            assert!(matches!(answer.status.as_u16(), 400 | 404), "{path}: {answer:?}");
            answer.error();
        }
        for path in [format!("/v1/namespaces/own/secrets/{name}"), format!("{SCHEDULES}/{name}")] {
            let answer = api.call(&admin, "delete", &path, "").await;
            assert!(matches!(answer.status.as_u16(), 400 | 404), "{path}: {answer:?}");
            answer.error();
        }
    }
    for number in ["0", "-1", "4294967296", "2147483648", "1e3", "NaN", "x"] {
        let answer = api.call(&admin, "get", &format!("{VERSIONS}/{number}"), "").await;
        assert!(matches!(answer.status.as_u16(), 400 | 404), "{number}: {answer:?}");
    }
    let answer = api.call(&admin, "put", "/v1/namespaces/own/artifacts/sha256:zz", "").await;
    assert_eq!(answer.error().code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn subscriptions_that_could_not_work_are_refused_with_the_place_of_the_mistake() {
    let (api, admin) = api_and_admin().await;
    let topics = "/v1/namespaces/own/topics";
    assert_eq!(
        api.json(&admin, "post", topics, &json!({"name": "orders"})).await.status,
        StatusCode::CREATED
    );
    assert_eq!(
        api.json(&admin, "post", topics, &json!({"name": "orders"})).await.error().code,
        ErrorCode::Conflict
    );
    let subscriptions = format!("{topics}/orders/subscriptions");
    let hook = json!({"webhook": {"url": "https://example.com/"}});
    for (to, settings, wanted) in [
        (json!({"function": "nothing"}), json!({}), "there is no function own/nothing"),
        (json!({"webhook": {"url": "ftp://x"}}), json!({}), "to: a webhook's url"),
        (json!({"queue": "x"}), json!({}), "body: unknown variant `queue`"),
        (hook.clone(), json!({"filter": {"data": {"sum": 5}}}), "body: data.sum: write a list"),
        (hook.clone(), json!({"filter": {"Type": ["x"]}}), "filter: Type: no attribute is called so"),
        (hook.clone(), json!({"ordering": "subject"}), "ordering: is for functions only"),
        (hook.clone(), json!({"retry": {"max_attempts": 0}}), "retry: max_attempts must be 1 to 100"),
        (hook.clone(), json!({"colour": "red"}), "body: unknown field `colour`"),
    ] {
        let body = json!({"name": "s", "to": to, "settings": settings});
        let answer = api.json(&admin, "post", &subscriptions, &body).await;
        assert!(answer.status.is_client_error(), "{body}: {answer:?}");
        assert!(answer.error().message.starts_with(wanted), "{body}: {}", answer.error().message);
    }
    let good = json!({"name": "s", "to": hook});
    assert_eq!(api.json(&admin, "post", &subscriptions, &good).await.status, StatusCode::CREATED);
    assert_eq!(api.json(&admin, "post", &subscriptions, &good).await.error().code, ErrorCode::Conflict);
    let replay = format!("{subscriptions}/s/replay");
    let backwards = json!({"from": "2030-01-02T00:00:00Z", "to": "2030-01-01T00:00:00Z"});
    assert_eq!(api.json(&admin, "post", &replay, &backwards).await.error().code, ErrorCode::InvalidRequest);
    let detail = api.call(&admin, "get", &format!("{topics}/orders"), "").await.json();
    assert_eq!(detail["subscribers"][0]["to"], hook);
    assert_eq!(
        api.call(&admin, "delete", &format!("{subscriptions}/s"), "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        api.call(&admin, "delete", &format!("{topics}/orders"), "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        api.call(&admin, "get", &format!("{topics}/orders"), "").await.error().code,
        ErrorCode::NotFound
    );
}

#[tokio::test]
async fn bodies_are_bounded_typed_and_strict() {
    let (api, admin) = api_and_admin().await;
    let post = |body: Body, kind: &str| {
        let mut request = request(Some(&admin), "post", "/v1/namespaces", body);
        request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        request
    };
    let large = format!("{{\"name\":\"{}\"}}", "a".repeat(3 * 1024 * 1024));
    assert_eq!(
        api.send(post(large.clone().into(), "application/json")).await.error().code,
        ErrorCode::TooLarge
    );
    let pieces = futures_util::stream::iter((0..4000).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])));
    assert_eq!(
        api.send(post(Body::from_stream(pieces), "application/json")).await.error().code,
        ErrorCode::TooLarge
    );
    assert_eq!(
        api.send(post("{\"name\":\"a\"}".into(), "text/plain")).await.error().code,
        ErrorCode::UnsupportedMediaType
    );
    let mut compressed = post("x".into(), "application/json");
    compressed.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    assert_eq!(api.send(compressed).await.error().code, ErrorCode::UnsupportedMediaType);
    for body in [
        "",
        "{",
        "[]",
        "{\"name\":\"a\",\"x\":1}",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "{\"name\":\"v1\"}",
        "{\"name\":\"\\u0000\"}",
        "{\"name\":1}",
    ] {
        assert_eq!(
            api.call(&admin, "post", "/v1/namespaces", body).await.error().code,
            ErrorCode::InvalidRequest,
            "{body}"
        );
    }
    let broken = futures_util::stream::iter([Ok(vec![b'{']), Err(std::io::Error::other("gone"))]);
    assert_eq!(
        api.send(post(Body::from_stream(broken), "application/json")).await.error().code,
        ErrorCode::InvalidRequest
    );
}

#[tokio::test]
async fn specs_out_of_bounds_are_refused_by_field() {
    let (api, admin) = api_and_admin().await;
    let (bytes, digest) = archive("app.py");
    api.call(&admin, "put", &format!("/v1/namespaces/own/artifacts/{digest}"), bytes).await;
    let bad = [
        ("memory_mb", json!(0)),
        ("memory_mb", json!(-1)),
        ("memory_mb", json!(9_223_372_036_854_775_808_u64)),
        ("timeout_seconds", json!(901)),
        ("concurrency", json!(1.5)),
        ("max_instances", json!("many")),
        ("handler", json!("no-dot")),
        ("handler", json!("a\u{0}.b")),
        ("handler", json!("x".repeat(200))),
        ("runtime", json!("../../etc")),
        ("runtime", json!("Python")),
        ("kind", json!("pod")),
        ("privileged", json!(true)),
        ("env", json!({"LD_PRELOAD": "x"})),
        ("env", json!({"A=B": "x"})),
        ("env", json!({"A": "x".repeat(40_000)})),
        ("env", json!({"A": "\u{0}"})),
        ("env", json!({"DAVIT_X": "1"})),
        ("secrets", json!({"A": "../up"})),
        ("secret_files", json!({"a": "../up"})),
        ("secret_files", json!({"../a": "up"})),
        ("secret_files", json!({".": "up"})),
        (
            "secret_files",
            json!((0..17).map(|n| (format!("f{n}"), json!("up"))).collect::<serde_json::Map<_, _>>()),
        ),
        ("async_timeout_seconds", json!(0)),
        ("async_timeout_seconds", json!(43_201)),
        ("routes", json!([{"path": "/../admin"}])),
        ("routes", json!([{"path": "/v1/x"}])),
        ("routes", json!([{"path": "/a"}, {"path": "/a"}])),
        ("routes", json!([{"path": "/a", "host": "a@b"}])),
        ("command", json!(vec!["x"; 65])),
        ("retry", json!({"max_attempts": 0})),
        ("network", json!("host")),
    ];
    for (field, value) in bad {
        let mut spec = spec();
        spec[field] = value.clone();
        let answer = api.json(&admin, "post", VERSIONS, &json!({"spec": spec, "source": digest})).await;
        assert_eq!(answer.error().code, ErrorCode::InvalidRequest, "{field} = {value}: {answer:?}");
    }
    let good = |extra: Value| {
        let mut body = json!({"spec": spec(), "source": digest});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    for (extra, status) in [
        (json!({"git_commit": "x".repeat(201)}), 400),
        (json!({"git_commit": "a\nb"}), 400),
        (json!({"schedules": {"UP": {"cron": "* * * * *"}}}), 400),
        (json!({"schedules": {"s": {"cron": "* * * * * *"}}}), 400),
        (json!({"schedules": {"s": {"cron": "0 0 31 2 *"}}}), 422),
        (json!({"source": format!("sha256:{}", "0".repeat(64))}), 409),
        (json!({"source": "md5:1"}), 400),
    ] {
        let answer = api.json(&admin, "post", VERSIONS, &good(extra.clone())).await;
        assert_eq!(answer.error().code.status(), status, "{extra}: {answer:?}");
    }
    let nowhere = VERSIONS.replace("own", "nowhere");
    let answer = api.json(&admin, "post", &nowhere, &good(json!({}))).await;
    assert_eq!(answer.error().code, ErrorCode::NotFound);
    assert!(
        api.registry
            .list_functions(&"own".parse().unwrap(), &Default::default(), 100)
            .await
            .unwrap()
            .items
            .is_empty(),
        "a refused version leaves nothing"
    );
    assert_eq!(api.json(&admin, "post", VERSIONS, &good(json!({}))).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_schedules_settings_are_refused_by_field() {
    let (api, admin) = api_and_admin().await;
    let long = "x".repeat(1_100_000);
    for (spec, field, status) in [
        (json!({}), "cron: give exactly one", 400),
        (json!({"cron": "@daily", "every": "1h"}), "cron: give exactly one", 400),
        (json!({"cron": "61 * * * *"}), "cron: ", 400),
        (json!({"cron": "0 0 31 2 *"}), "cron: ", 422),
        (json!({"cron": "@daily", "timezone": "Mars/Base"}), "timezone: ", 400),
        (json!({"every": "30s"}), "every: ", 400),
        (json!({"every": "90s"}), "every: must be whole minutes", 400),
        (json!({"every": "10000d"}), "every: ", 400),
        (json!({"every": 15}), "body: ", 400),
        (json!({"at": "2001-01-01T00:00"}), "at: is in the past", 422),
        (json!({"at": "soon"}), "at: ", 400),
        (json!({"at": "2090-01-01T00:00", "end": "2091-01-01T00:00"}), "end: ", 400),
        (json!({"cron": "@daily", "start": "x"}), "start: ", 400),
        (json!({"cron": "@daily", "end": "2001-01-01T00:00"}), "end: is in the past", 422),
        (json!({"cron": "@daily", "start": "2090-01-02T00:00", "end": "2090-01-01T00:00"}), "end: ", 422),
        (json!({"cron": "0 0 29 2 *", "start": "2090-01-01T00:00", "end": "2090-12-31T00:00"}), "end: ", 422),
        (json!({"cron": "@daily", "jitter": "2d"}), "jitter: ", 400),
        (json!({"cron": "@daily", "jitter": "-5m"}), "jitter: ", 400),
        (json!({"cron": "@daily", "missed": "sometimes"}), "body: ", 400),
        (json!({"cron": "@daily", "missed_limit": 3}), "missed_limit: ", 400),
        (json!({"cron": "@daily", "missed": "run_all", "missed_limit": 0}), "missed_limit: ", 400),
        (json!({"cron": "@daily", "missed": "run_all", "missed_limit": 101}), "missed_limit: ", 400),
        (json!({"cron": "@daily", "overlap": "fight"}), "body: ", 400),
        (json!({"cron": "@daily", "retry": {"max_attempts": 0}}), "retry: ", 400),
        (json!({"cron": "@daily", "payload": {"a": ["{{due}}"]}}), "payload: {{due}} is not known", 400),
        (json!({"cron": "@daily", "payload": long}), "payload: ", 413),
        (json!({"cron": "@daily", "corn": 1}), "body: ", 400),
    ] {
        let shown: String = spec.to_string().chars().take(100).collect();
        let answer = api.json(&admin, "post", SCHEDULES, &json!({"name": "s", "spec": spec})).await.error();
        assert_eq!(answer.code.status(), status, "{shown}: {}", answer.message);
        assert!(answer.message.starts_with(field), "{shown}: {}", answer.message);
    }
    for query in ["limit=0", "limit=1001", "after=x", "after=a/b/c", "unknown=1"] {
        let path = format!("/v1/namespaces/own/schedules?{query}");
        assert_eq!(
            api.call(&admin, "get", &path, "").await.error().code,
            ErrorCode::InvalidRequest,
            "{query}"
        );
    }
    for query in ["before=yesterday", "limit=0", "after=1"] {
        let path = format!("{SCHEDULES}/s/fires?{query}");
        assert_eq!(
            api.call(&admin, "get", &path, "").await.error().code,
            ErrorCode::InvalidRequest,
            "{query}"
        );
    }
}

#[tokio::test]
async fn cron_lines_and_zones_are_checked_quickly() {
    let (api, admin) = api_and_admin().await;
    let started = std::time::Instant::now();
    for (cron, zone, status) in [
        ("60 * * * *", "UTC", 400),
        ("*/0 * * * *", "UTC", 400),
        ("5-1 * * * *", "UTC", 400),
        ("* * * * * *", "UTC", 400),
        ("\u{feff}* * * * *", "UTC", 400),
        ("* * * * *\n", "UTC", 400),
        ("0 0 31 2 *", "UTC", 422),
        ("* * * * *", "Mars/Base", 400),
        ("* * * * *", "../etc/passwd", 400),
        ("* * * * *", "", 400),
    ] {
        let answer =
            api.json(&admin, "post", "/v1/schedules/preview", &json!({"cron": cron, "timezone": zone})).await;
        assert_eq!(answer.error().code.status(), status, "{cron} {zone}");
    }
    assert!(started.elapsed().as_secs() < 5);
    for count in [json!(0), json!(101), json!(-1), json!(1e300)] {
        let answer = api
            .json(&admin, "post", "/v1/schedules/preview", &json!({"cron": "* * * * *", "count": count}))
            .await;
        assert_eq!(answer.error().code, ErrorCode::InvalidRequest);
    }
}

#[tokio::test]
async fn uploads_are_checked_whole_before_they_are_stored() {
    let (api, admin) = api_and_admin().await;
    let put = |digest: &str| format!("/v1/namespaces/own/artifacts/{digest}");
    let (bytes, digest) = archive("app.py");
    let other = format!("sha256:{}", "1".repeat(64));
    assert_eq!(
        api.call(&admin, "put", &put(&other), bytes.clone()).await.error().code,
        ErrorCode::InvalidRequest
    );
    let junk = b"not an archive".to_vec();
    let junk_digest = {
        use sha2::Digest as _;
        davit_api::Digest::from_bytes(sha2::Sha256::digest(&junk).into())
    };
    assert_eq!(
        api.call(&admin, "put", &put(&junk_digest.to_string()), junk).await.error().code,
        ErrorCode::InvalidRequest
    );
    assert!(!api.registry.has_artifact(junk_digest).await.unwrap());
    let mut huge = Request::put(put(&digest)).header(header::AUTHORIZATION, format!("Bearer {admin}"));
    huge = huge.header(header::CONTENT_LENGTH, "99999999999");
    assert_eq!(api.send(huge.body(Body::empty()).unwrap()).await.error().code, ErrorCode::TooLarge);
    let nowhere = put(&digest).replace("own", "nowhere");
    assert_eq!(api.call(&admin, "put", &nowhere, bytes.clone()).await.error().code, ErrorCode::NotFound);
    assert_eq!(api.call(&admin, "put", &put(&digest), bytes).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_upload_that_broke_off_is_completed_and_by_nothing_else() {
    let (api, admin) = api_and_admin().await;
    let (bytes, digest) = archive("app.py");
    let path = format!("/v1/namespaces/own/artifacts/{digest}");
    let received = async |path: &str| api.call(&admin, "get", path, "").await.json()["received"].clone();
    let send = async |offset: &str, body: Body| {
        let request = Request::put(&path).header(header::AUTHORIZATION, format!("Bearer {admin}"));
        api.send(request.header("upload-offset", offset).body(body).unwrap()).await
    };
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    let breaks: Vec<Result<Vec<u8>, &str>> = vec![Ok(half.to_vec()), Err("gone")];
    let broken = send("0", Body::from_stream(futures_util::stream::iter(breaks))).await;
    assert!(broken.error().message.contains("broke off"), "{broken:?}");
    assert_eq!(received(&path).await, half.len());
    let other = path.replace("own", "other");
    assert_eq!(received(&other).await, 0, "what one namespace sends no other one sees");
    for (offset, code, says) in [
        ("-1", ErrorCode::InvalidRequest, "upload-offset: must be"),
        ("x", ErrorCode::InvalidRequest, "upload-offset: must be"),
        ("99999999999999999999", ErrorCode::InvalidRequest, "upload-offset: must be"),
        ("99999999999", ErrorCode::TooLarge, "64 MiB"),
        ("1", ErrorCode::Conflict, &format!("upload-offset: {} bytes of this archive are here", half.len())),
    ] {
        let error = send(offset, Body::from(rest.to_vec())).await.error();
        assert!(error.code == code && error.message.contains(says), "{offset}: {error:?}");
    }
    assert_eq!(received(&path).await, half.len(), "refused requests change nothing");
    let done = send(&half.len().to_string(), Body::from(rest.to_vec())).await;
    assert_eq!((done.status, &done.json()["bytes"]), (StatusCode::OK, &json!(6)));
    let stored = api.registry.open_artifact(digest.parse().unwrap()).await.unwrap().read_all().await.unwrap();
    assert_eq!(stored, bytes);
    assert_eq!(received(&path).await, 0);
    let again = send(&half.len().to_string(), Body::from(rest.to_vec())).await.error();
    assert!(again.message.contains("nothing of this archive is here"), "{again:?}");
}

#[tokio::test]
async fn a_source_must_be_sound_and_what_it_names_must_be_there() {
    let (api, admin) = api_and_admin().await;
    let create = async |new: Value| api.json(&admin, "post", "/v1/namespaces/own/sources", &new).await;
    let with = |spec: Value| json!({"name": "orders", "function": "f", "spec": spec});
    for (spec, field) in [
        (json!({"kind": "webhook", "verify": "github"}), "secret: "),
        (json!({"kind": "webhook", "verify": "none", "secret": "s"}), "secret: "),
        (json!({"kind": "webhook", "verify": "github", "secret": "s", "header": "x"}), "header: "),
        (json!({"kind": "webhook", "verify": "hmac", "secret": "s", "header": "a b"}), "header: "),
        (
            json!({"kind": "webhook", "verify": "stripe", "secret": "s", "tolerance_seconds": 0}),
            "tolerance_seconds: ",
        ),
        (
            json!({"kind": "webhook", "verify": "github", "secret": "s", "delivery_header": "x"}),
            "delivery_header: ",
        ),
        (json!({"kind": "webhook", "verify": "sha1"}), ""),
        (json!({"kind": "kafka"}), ""),
        (json!({"verify": "none"}), ""),
        (json!({"kind": "webhook", "verify": "none", "unknown": 1}), ""),
    ] {
        let error = create(with(spec.clone())).await.error();
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{spec}");
        assert!(error.message.starts_with(field), "{spec}: {}", error.message);
    }
    let good = json!({"kind": "webhook", "verify": "none"});
    assert_eq!(create(with(good.clone())).await.error().code, ErrorCode::NotFound, "there is no function f");
    let named = json!({"name": "No", "function": "f", "spec": good});
    assert_eq!(create(named).await.error().code, ErrorCode::InvalidRequest);
    for (verb, path) in [("get", ""), ("delete", ""), ("post", "/pause"), ("post", "/resume")] {
        let path = format!("/v1/namespaces/own/sources/orders{path}");
        assert_eq!(
            api.call(&admin, verb, &path, "").await.error().code,
            ErrorCode::NotFound,
            "{verb} {path}"
        );
    }
}

#[tokio::test]
async fn queries_are_strict_and_bounded() {
    let (api, admin) = api_and_admin().await;
    for path in [
        "/v1/audit?limit=0",
        "/v1/audit?limit=-1",
        "/v1/audit?limit=1000000000",
        "/v1/audit?before=x",
        "/v1/audit?unknown=1",
        "/v1/audit?before=99999999999999999999",
        "/v1/namespaces/own/functions?limit=0",
        "/v1/namespaces/own/functions?limit=1001",
        "/v1/namespaces/own/functions?limit=-1",
        "/v1/namespaces/own/functions?limit=1e2",
        "/v1/namespaces/own/functions?limit=1&limit=2",
        "/v1/namespaces/own/functions?after=",
        "/v1/namespaces/own/functions?after=A",
        "/v1/namespaces/own/functions?after=%00",
        "/v1/namespaces/own/functions?search=",
        "/v1/namespaces/own/functions?search=%25",
        "/v1/namespaces/own/functions?search=a_b",
        "/v1/namespaces/own/functions?search=%27%3b--",
        "/v1/namespaces/own/functions?runtime=../up",
        "/v1/namespaces/own/functions?name=a",
        "/v1/namespaces/own/functions/f/versions?limit=201",
        "/v1/namespaces/own/functions/f/versions?limit=0",
        "/v1/namespaces/own/functions/f/versions?after=-1",
        "/v1/namespaces/own/functions/f/versions?after=4294967296",
        "/v1/namespaces/own/functions/f/versions?before=1",
        "/v1/namespaces/own/functions/f/logs?wait=31",
        "/v1/namespaces/own/functions/f/logs?limit=0",
        "/v1/namespaces/own/functions/f/logs?invocation_id=x",
        "/v1/namespaces/own/functions/f/logs?since=never",
        "/v1/namespaces/own/functions/f/logs?version=4294967295",
        "/v1/namespaces/own/functions/f/versions/1/events?after=%00",
    ] {
        assert_eq!(api.call(&admin, "get", path, "").await.error().code, ErrorCode::InvalidRequest, "{path}");
    }
    for path in ["/v1/audit?before=-9223372036854775808", "/v1/audit?before=9223372036854775807"] {
        assert_eq!(api.call(&admin, "get", path, "").await.status, StatusCode::OK, "{path}");
    }
    for description in ["", "a\u{7}b", &"x".repeat(101)] {
        let new = json!({"description": description, "role": "read"});
        assert_eq!(
            api.json(&admin, "post", "/v1/tokens", &new).await.error().code,
            ErrorCode::InvalidRequest
        );
    }
    let secret = json!({"value": "x".repeat(70_000)});
    let answer = api.json(&admin, "put", "/v1/namespaces/own/secrets/s", &secret).await;
    assert_eq!(answer.error().code, ErrorCode::TooLarge);
}

/// JSON of the kind that a confused or hostile client sends.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("a\u{0}")),
        Just(json!("* * * * *")),
    ];
    let key = prop_oneof![
        Just("name".to_owned()),
        Just("spec".into()),
        Just("cron".into()),
        Just("value".into()),
        Just("to".into()),
        Just("role".into()),
        Just("description".into()),
        Just("payload".into()),
        Just("every".into()),
        Just("at".into()),
        Just("start".into()),
        Just("jitter".into()),
        ".{0,6}",
    ];
    leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_json_makes_any_write_fail_on_our_side() {
    let (api, admin) = api_and_admin().await;
    let routes = [
        "/v1/namespaces",
        "/v1/tokens",
        VERSIONS,
        SCHEDULES,
        "/v1/schedules/preview",
        "/v1/namespaces/own/functions/f/rollback",
    ];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(48)
    });
    let handle = tokio::runtime::Handle::current();
    let done = tokio::task::block_in_place(|| {
        runner.run(&any_json(), |body| {
            for path in routes {
                let answer = handle.block_on(api.json(&admin, "post", path, &body));
                prop_assert!(answer.status.as_u16() < 500, "{} with {}: {:?}", path, body, answer);
            }
            Ok(())
        })
    });
    done.unwrap();
}
