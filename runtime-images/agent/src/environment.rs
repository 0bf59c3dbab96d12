//! The environment of the programs that the agent starts.
//!
//! Precedence, last wins: the image's, the user's, the platform's. What AWS reserves cannot be overridden;
//! what it only presets (TZ, LANG, region) can.

use std::collections::BTreeMap;
use std::path::Path;

use davit_link::{InitRequest, Kind};

use crate::image::{IMAGE, Image};
use crate::{RUNTIME_API, SERVER_PORT, TASK_ROOT, builder, door};

/// The setting of a runtime's image: what to start before a function is known.
pub(crate) const RUNTIME_COMMAND: &str = "DAVIT_RUNTIME_COMMAND";

/// The image's environment without the agent's own settings.
pub(crate) fn image() -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| {
            ![RUNTIME_COMMAND, IMAGE, door::SECRET, builder::SETTING].contains(&name.as_str())
        })
        // What a cluster tells every pod is of no use to a function, which reaches none of it.
        .filter(|(name, _)| !name.starts_with("KUBERNETES_"))
        .collect();
    preset(&mut env, "PATH", "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin");
    preset(&mut env, "LANG", "C.UTF-8");
    preset(&mut env, "TZ", ":UTC");
    // Docker gives "/", which nobody can write to.
    if env.get("HOME").is_none_or(|home| home == "/") {
        env.insert("HOME".into(), "/tmp".into());
    }
    env
}

fn preset(env: &mut BTreeMap<String, String>, name: &str, value: &str) {
    env.entry(name.into()).or_insert_with(|| value.into());
}

fn runtime_place(env: &mut BTreeMap<String, String>) {
    for (name, value) in [
        ("AWS_LAMBDA_RUNTIME_API", RUNTIME_API),
        ("LAMBDA_TASK_ROOT", TASK_ROOT),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
    ] {
        env.insert(name.into(), value.into());
    }
}

/// Of a runtime that is started before its function is known.
pub(crate) fn warm() -> BTreeMap<String, String> {
    let mut env = image();
    runtime_place(&mut env);
    env
}

/// Of a function's own program, in a runtime's image or one of its own.
pub(crate) fn of_function(request: &InitRequest, own: Option<&Image>) -> BTreeMap<String, String> {
    let mut env = image();
    if request.kind == Kind::Server {
        env.extend(request.env.clone());
        env.insert("PORT".into(), SERVER_PORT.to_string());
        env.insert("DAVIT_FUNCTION".into(), request.function_name.clone());
        env.insert("DAVIT_NAMESPACE".into(), request.namespace.clone());
        env.insert("DAVIT_VERSION".into(), request.version.clone());
        return env;
    }
    // As at AWS, but only where there is something to find: every program would look there first.
    let libraries = ["/var/task/lib", "/opt/lib"].iter().filter(|folder| Path::new(folder).is_dir());
    let libraries: Vec<&str> = libraries.copied().collect();
    // What an image of its own wants the loader to look at, it has said.
    if !libraries.is_empty() && own.is_none() {
        env.insert("LD_LIBRARY_PATH".into(), libraries.join(":"));
    }
    let region = request.arn.split(':').nth(3).filter(|region| !region.is_empty()).unwrap_or("us-east-1");
    preset(&mut env, "AWS_REGION", region);
    preset(&mut env, "AWS_DEFAULT_REGION", region);
    preset(&mut env, "AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR");
    let execution = env.get("AWS_EXECUTION_ENV").cloned().unwrap_or_else(|| "AWS_Lambda_provided".into());
    env.extend(request.env.clone());
    runtime_place(&mut env);
    for (name, value) in [
        ("_HANDLER", own.map_or(request.handler.as_str(), |image| image.handler(request)).to_owned()),
        ("AWS_EXECUTION_ENV", execution),
        ("AWS_LAMBDA_FUNCTION_NAME", request.function_name.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", request.version.clone()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", request.memory_mb.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".into()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", request.log_group.clone()),
        ("AWS_LAMBDA_LOG_STREAM_NAME", request.log_stream.clone()),
    ] {
        env.insert(name.into(), value);
    }
    if request.concurrency > 1 {
        env.insert("AWS_LAMBDA_MAX_CONCURRENCY".into(), request.concurrency.to_string());
    }
    env
}

/// Where functions ask for calls, when the gateway answers; SDKs of AWS are led there for Lambda. What the user has set
/// stays: an endpoint of his own, and whatever may name credentials.
pub(crate) fn with_asks(request: &mut InitRequest) {
    if !request.answers_asks {
        return;
    }
    let env = &mut request.env;
    let endpoint = format!("http://{RUNTIME_API}");
    if !env.contains_key("AWS_ENDPOINT_URL") && !env.contains_key("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
        preset(env, "AWS_ENDPOINT_URL_LAMBDA", &endpoint);
    }
    env.insert("DAVIT_ENDPOINT".into(), endpoint);
    // SDKs sign each request and look for something to sign with; nobody checks the signature.
    if !env.keys().any(|name| CREDENTIALS.iter().any(|start| name.starts_with(start))) {
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            preset(env, name, "davit");
        }
        let region = request.arn.split(':').nth(3).filter(|region| !region.is_empty()).unwrap_or("us-east-1");
        preset(env, "AWS_REGION", region);
        preset(env, "AWS_DEFAULT_REGION", region);
    }
}

/// Variables that start so may lead an SDK to credentials or to a region of the user's choice.
const CREDENTIALS: [&str; 11] = [
    "AWS_ACCESS_KEY",
    "AWS_SECRET_",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_",
];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn request(kind: Kind) -> InitRequest {
        InitRequest {
            function_name: "hello".into(),
            version: "3".into(),
            namespace: "default".into(),
            kind,
            handler: "app.handler".into(),
            command: Vec::new(),
            env: BTreeMap::from([
                ("TZ".into(), "Europe/Berlin".into()),
                ("_HANDLER".into(), "mine".into()),
                ("COLOUR".into(), "blue".into()),
            ]),
            memory_mb: 128,
            timeout_seconds: 3,
            concurrency: 2,
            init_timeout_ms: 10_000,
            arn: "arn:aws:lambda:eu-central-1:000000000000:function:hello".into(),
            log_group: "/aws/lambda/hello".into(),
            log_stream: "s".into(),
            bundle_digest: String::new(),
            bundle_size: 0,
            code_mounted: false,
            answers_asks: true,
            debugger: None,
        }
    }

    #[test]
    fn the_user_wins_over_presets_and_loses_against_reserved_names() {
        let env = of_function(&request(Kind::Handler), None);
        assert_eq!(env["TZ"], "Europe/Berlin");
        assert_eq!(env["_HANDLER"], "app.handler");
        assert_eq!(env["COLOUR"], "blue");
        assert_eq!(env["AWS_REGION"], "eu-central-1");
        assert_eq!(env["AWS_LAMBDA_MAX_CONCURRENCY"], "2");
        assert_eq!(env["AWS_LAMBDA_RUNTIME_API"], RUNTIME_API);
    }

    #[test]
    fn functions_are_told_where_to_ask_and_what_the_user_set_stays() {
        let with = |set: &[(&str, &str)], answers_asks| {
            let env = set.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let mut request = InitRequest { env, answers_asks, ..request(Kind::Handler) };
            with_asks(&mut request);
            request.env
        };
        let plain = with(&[], true);
        assert_eq!(plain["DAVIT_ENDPOINT"], "http://127.0.0.1:9001");
        assert_eq!(plain["AWS_ENDPOINT_URL_LAMBDA"], "http://127.0.0.1:9001");
        assert_eq!((&*plain["AWS_ACCESS_KEY_ID"], &*plain["AWS_REGION"]), ("davit", "eu-central-1"));
        assert!(with(&[], false).is_empty(), "an older gateway does not answer");
        let aws = with(&[("AWS_ENDPOINT_URL_LAMBDA", "https://x"), ("AWS_REGION", "eu-west-1")], true);
        assert_eq!((&*aws["AWS_ENDPOINT_URL_LAMBDA"], &*aws["AWS_REGION"]), ("https://x", "eu-west-1"));
        for own in ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
            let env = with(&[(own, "mine")], true);
            assert_eq!((&*env[own], env.contains_key("AWS_SESSION_TOKEN")), ("mine", false), "{own}");
        }
        assert!(!with(&[("AWS_ENDPOINT_URL", "http://x")], true).contains_key("AWS_ENDPOINT_URL_LAMBDA"));
    }

    #[test]
    fn a_server_is_told_its_port_and_does_not_think_it_is_at_aws() {
        let env = of_function(&request(Kind::Server), None);
        assert_eq!(env["PORT"], "8080");
        assert!(!env.contains_key("AWS_LAMBDA_FUNCTION_NAME"));
    }
}
