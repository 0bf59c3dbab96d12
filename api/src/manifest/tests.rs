//! What a `davit.toml` may say, what it may not, and whether the error helps.

use proptest::prelude::*;

use super::*;

const SMALL: &str = "name = \"hello\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n";

const FULL: &str = r#"
name = "orders-api"
namespace = "shop"
description = "Takes orders"
runtime = "node20"
handler = "src/index.handler"
access = "public"
payload = "1.0"
memory_mb = 512
cpu_millis = 500
timeout_seconds = 10
async_timeout_seconds = 7200
concurrency = 1
max_instances = 5
ephemeral_mb = 64
keep_alive_seconds = 120
network = "none"

[env]
LOG_LEVEL = "debug"

[secrets]
API_KEY = "api-key"

[secret_files]
"tls.key" = "tls-key"

[[routes]]
method = "GET"
path = "/orders/{id}"

[[routes]]
host = "api.example.com"
path = "/orders"
payload = "2.0"

[[schedules]]
name = "nightly"
cron = "30 2 * * *"
timezone = "Europe/Berlin"
payload = { kind = "report", days = [1, 2] }
missed = "skip"
enabled = false

[[schedules]]
name = "often"
every = "15m"
start = "2030-01-01T00:00"
end = "2031-01-01T00:00"
jitter = "1m"
missed = "run_all"
missed_limit = 5
overlap = "queue"
retry = { max_attempts = 1 }

[retry]
max_attempts = 5
"#;

fn error(text: &str) -> String {
    Manifest::parse(text).unwrap_err().to_string()
}

#[test]
fn a_small_file_gets_the_defaults() {
    let spec = Manifest::parse(SMALL).unwrap().version_spec();
    let mut expected = VersionSpec::new("python3.13".parse().unwrap(), FunctionKind::Handler);
    expected.handler = "app.handler".into();
    assert_eq!(spec, expected);
}

#[test]
fn every_key_arrives() {
    let manifest = Manifest::parse(FULL).unwrap();
    let spec = manifest.version_spec();
    assert_eq!((spec.memory_mb, spec.cpu_millis, spec.timeout_seconds), (512, 500, 10));
    assert_eq!(spec.async_timeout_seconds, Some(7_200));
    assert_eq!(spec.secret_files["tls.key"].as_str(), "tls-key");
    assert_eq!((spec.max_instances, spec.ephemeral_mb, spec.keep_alive_seconds), (5, 64, Some(120)));
    assert_eq!((spec.access, spec.network), (Access::Public, NetworkClass::None));
    assert_eq!(spec.retry, RetryPolicy { max_attempts: 5, ..RetryPolicy::default() });
    // A route without a format of its own takes the function's.
    assert_eq!([spec.routes[0].payload, spec.routes[1].payload], [PayloadFormat::V1, PayloadFormat::V2]);
    let (name, schedule) = manifest.schedule_specs().remove(0);
    assert_eq!((name.as_str(), schedule.missed, schedule.enabled), ("nightly", MissedPolicy::Skip, false));
    assert_eq!(schedule.payload, Some(serde_json::json!({"kind": "report", "days": [1, 2]})));
    let (_, often) = manifest.schedule_specs().remove(1);
    let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let expected = ScheduleSpec {
        every: Some("15m".into()),
        start: Some("2030-01-01T00:00".into()),
        end: Some("2031-01-01T00:00".into()),
        jitter: Some("1m".into()),
        missed: MissedPolicy::RunAll,
        missed_limit: Some(5),
        overlap: OverlapPolicy::Queue,
        retry: Some(retry),
        ..ScheduleSpec::default()
    };
    assert_eq!(often, expected);
}

#[test]
fn how_long_an_instance_stays_is_automatic_unless_it_is_said_and_the_minimum_is_no_more_than_the_maximum() {
    let spec = |more: &str| Manifest::parse(&format!("{SMALL}{more}")).unwrap().version_spec();
    let automatic = spec("");
    assert_eq!((automatic.keep_alive().as_secs(), automatic.min_instances), (3_600, 0));
    let stored = serde_json::to_value(&automatic).unwrap();
    assert!(stored.get("keep_alive_seconds").is_none() && stored.get("min_instances").is_none());
    assert_eq!(serde_json::from_value::<VersionSpec>(stored).unwrap(), automatic);
    assert_eq!(spec("keep_alive_seconds = 5\n").keep_alive().as_secs(), 5);
    assert_eq!(spec("min_instances = 3\nmax_instances = 3\n").min_instances, 3);
    let text = error(&format!("{SMALL}min_instances = 11\n"));
    assert!(text.contains("min_instances: must be at most max_instances, 10, not 11"), "{text}");
}

#[test]
fn an_unknown_key_is_refused_with_a_hint() {
    let text = error(&format!("{SMALL}memory = 512\n"));
    assert_eq!(text, "davit.toml, line 4: memory: unknown key; did you mean memory_mb?");
    let text = error(&format!("{SMALL}keep-alive-seconds = 5\n"));
    assert!(text.ends_with("did you mean keep_alive_seconds?"), "{text}");
    let text = error(&format!("{SMALL}[[schedules]]\nname = \"x\"\ncorn = \"* * * * *\"\n"));
    assert!(text.contains("line 6") && text.ends_with("did you mean cron?"), "{text}");
    let text = error(&format!("{SMALL}zzzz = 1\n"));
    assert!(text.contains("known keys: name, namespace"), "{text}");
}

#[test]
fn a_wrong_value_names_its_line_and_key() {
    for (line, expected) in [
        ("memory_mb = 63", "line 4: memory_mb: must be 64 to 10240"),
        ("memory_mb = \"512\"", "line 4: memory_mb: invalid type"),
        ("access = \"everyone\"", "line 4: access: unknown variant"),
        ("timeout_seconds = -1", "line 4: timeout_seconds:"),
        ("async_timeout_seconds = 0", "line 4: async_timeout_seconds: must be 1 to 43200, not 0"),
        ("async_timeout_seconds = 43201", "line 4: async_timeout_seconds: must be 1 to 43200"),
        ("[secret_files]\n\"../x\" = \"s\"", "file name \"../x\" is not valid"),
        ("[secret_files]\nx = \"S\"", "secret name"),
        ("[env]\nLD_PRELOAD = \"x\"", "LD_PRELOAD"),
        ("[[routes]]\npath = \"/a//b\"", "line 5: path:"),
        ("[retry]\nmax_attempts = 0", "line 4: retry: max_attempts must be"),
        ("[[schedules]]\nname = \"x\"", "line 4: schedules: x: give exactly one of cron, every and at"),
        (
            "[[schedules]]\nname = \"x\"\ncron = \"@daily\"\nmissed_limit = 3",
            "schedules: x: missed_limit: is for missed = run_all",
        ),
        (
            "[[schedules]]\nname = \"x\"\ncron = \"@daily\"\noverlap = \"no\"",
            "line 7: overlap: unknown variant",
        ),
        ("name = \"again\"", "line 4"),
    ] {
        let text = error(&format!("{SMALL}{line}\n"));
        assert!(text.contains(expected), "{line}: {text}");
    }
    assert!(error("runtime = \"provided\"\n").contains("name: is missing"));
    for (line, wanted) in [
        ("image = \"team/app:1\"", "line 2: runtime: leave it out"),
        ("image_secret = \"registry\"", "line 4: image_secret: is for functions with an image"),
        ("image = \"App\"", "line 4: image: write an image like"),
    ] {
        let said = error(&format!("{SMALL}{line}\n"));
        assert!(said.contains(wanted), "{line}: {said}");
    }
    assert!(error("name = \"x\"\nruntime = \"python3.13\"\n").contains("handler: write module.function"));
    assert!(error("name = \"x\"\nruntime = \"node20\"\nkind = \"server\"\n").contains("command: say what"));
}

#[test]
fn the_checked_in_schema_is_fresh() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/davit.schema.json");
    let stored: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap_or_default()).unwrap_or_default();
    assert!(stored == Manifest::json_schema(), "run: davit schema > docs/davit.schema.json");
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "[a-z_=\"\\[\\]{}.\n\\PC]{0,80}") {
        let _ = Manifest::parse(&text);
        let _ = Manifest::parse(&format!("{SMALL}{text}"));
    }

    #[test]
    fn what_is_written_reads_back_the_same(
        memory in proptest::option::of(64u32..=10_240),
        timeout in proptest::option::of(1u32..=900),
        value in "[^\\p{C}]{0,20}",
        enabled: bool,
    ) {
        let mut manifest = Manifest::parse(FULL).unwrap();
        manifest.memory_mb = memory;
        manifest.timeout_seconds = timeout;
        manifest.env.insert("VALUE".parse().unwrap(), value);
        manifest.schedules[0].enabled = enabled;
        let text = toml::to_string(&manifest).unwrap();
        prop_assert_eq!(Manifest::parse(&text), Ok(manifest));
    }
}

#[test]
fn a_subscription_says_what_it_wants_and_what_is_wrong_with_it_is_named() {
    let with = |more: &str| format!("{SMALL}[[subscriptions]]\ntopic = \"orders\"\n{more}");
    let text = with(
        "filter = { type = [\"order.created\"], data = { total = [{ numeric = [\">=\", 100] }] } }\nordering = \"subject\"\n",
    );
    let spec = Manifest::parse(&text).unwrap().version_spec();
    let [one] = spec.subscriptions.as_slice() else { panic!("{spec:?}") };
    assert!(
        one.filter
            .as_ref()
            .unwrap()
            .matches(&serde_json::json!({"type": "order.created", "data": {"total": 100.5}}))
    );
    assert_eq!((one.topic.as_str(), one.ordering.as_deref(), &one.name), ("orders", Some("subject"), &None));
    let stored = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<VersionSpec>(&stored).unwrap(), spec);
    for (more, wanted) in [
        ("filter = { data = { total = 5 } }\n", "filter: data.total: write a list, such as [5]"),
        ("filter = { Type = [\"x\"] }\n", "subscriptions: orders: filter: Type: no attribute is called so"),
        ("colour = \"red\"\n", "colour: unknown key"),
        ("ordering = \"Subject\"\n", "subscriptions: orders: ordering: names an attribute"),
        ("[[subscriptions]]\ntopic = \"orders\"\n", "subscriptions: orders is listed twice"),
        ("name = \"Not A Label\"\n", "subscription name \"Not A Label\" is not valid"),
    ] {
        let text = error(&with(more));
        assert!(text.starts_with("davit.toml, line ") && text.contains(wanted), "{more}: {text}");
    }
}

#[test]
fn what_holds_for_addresses_is_read_and_refused_by_line() {
    let text = format!(
        "{SMALL}access = \"private\"\n[http]\ncompression = true\ncors = {{ origins = [\"https://a.example.com\"] }}\n\
         [[routes]]\npath = \"/api/{{id}}\"\naccess = \"public\"\nstrip_prefix = \"/api\"\n\
         http = {{ rate_limit = {{ requests = 5, by = \"all\" }}, compression = false }}\n"
    );
    let spec = Manifest::parse(&text).unwrap().version_spec();
    let (http, route) = (spec.http.as_deref().unwrap(), &spec.routes[0]);
    assert_eq!((http.compression, route.access), (Some(true), Some(Access::Public)));
    let both = route.http.as_deref().unwrap().over(http);
    assert_eq!((both.compression, both.cors.is_some()), (Some(false), true));
    let json = serde_json::to_value(&spec).unwrap();
    assert_eq!(serde_json::from_value::<VersionSpec>(json).unwrap(), spec);

    let refused = |from: &str, to: &str| Manifest::parse(&text.replace(from, to)).unwrap_err().to_string();
    for (from, to, said) in [
        (
            "compression = true",
            "max_request_bytes = 0",
            "davit.toml, line 6: http.max_request_bytes: must be",
        ),
        ("[\"https://a.example.com\"]", "[]", "davit.toml, line 7: http.cors.origins: name at least one"),
        ("https://a.example.com", "a.example.com", "line 7: cors: origin \"a.example.com\": write scheme://"),
        (
            "\"/api\"",
            "\"/v1\"",
            "line 8: routes: ANY /api/{id}: strip_prefix: the path does not begin with /v1",
        ),
        (
            "requests = 5",
            "requests = 0",
            "routes: ANY /api/{id}: http.rate_limit.requests: must be 1 to 1000000, not 0",
        ),
        (
            "compression = true",
            "compresion = true",
            "line 6: compresion: unknown key; did you mean compression?",
        ),
    ] {
        let refused = refused(from, to);
        assert!(refused.contains(said), "{to}: {refused}");
    }
}

#[test]
fn specs_from_before_there_were_settings_of_addresses_read_and_write_as_they_did() {
    let spec = Manifest::parse(&format!("{SMALL}[[routes]]\npath = \"/a\"\n")).unwrap().version_spec();
    let json = serde_json::to_string(&spec).unwrap();
    for new in ["\"http\"", "strip_prefix", "add_prefix", "\"timeout_seconds\":null"] {
        assert!(!json.contains(new), "{new}: {json}");
    }
    assert!(json.contains(r#"{"method":"ANY","path":"/a","payload":"2.0"}"#), "{json}");
}

#[test]
fn without_a_runtime_the_image_is_named_or_built() {
    let spec = |more: &str| Manifest::parse(&format!("name = \"app\"\n{more}")).unwrap().version_spec();
    let built = spec("");
    assert!(built.runtime.is_own_image() && built.image.is_none());
    assert_eq!(built.dockerfile.as_deref(), Some("Dockerfile"));
    assert_eq!(spec("dockerfile = \"build/Dockerfile\"\n").dockerfile.as_deref(), Some("build/Dockerfile"));
    let named = spec("image = \"team/app:1.4\"\nimage_secret = \"registry\"\nkind = \"server\"\n");
    assert_eq!(named.image.as_ref().unwrap().as_str(), "team/app:1.4");
    assert_eq!((named.dockerfile.as_ref(), named.is_fixed(), named.check()), (None, false, Ok(())));
    // As the registry keeps it.
    let stored = serde_json::to_string(&named).unwrap();
    assert_eq!(serde_json::from_str::<VersionSpec>(&stored).unwrap(), named);
}
