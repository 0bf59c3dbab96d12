//! Cross-origin resource sharing (Fetch standard, section 3.3), decided by the gateway for a function. Pure.

use davit_api::{FieldName, MethodMatch};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use crate::http::Body;

/// What an answer to a preflight depends on.
const PREFLIGHT_VARIES: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");
/// Headers of other answers that say who may read them; a function's own would contradict the gateway's.
const OURS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
];

/// The method that a preflight asks about; none when the request is no preflight.
pub(crate) fn preflight_method(request: &Request<Body>) -> Option<&str> {
    if *request.method() != Method::OPTIONS || !request.headers().contains_key(header::ORIGIN) {
        return None;
    }
    request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()
}

/// The setting, with what of it is sent as it is.
#[derive(Debug, PartialEq)]
pub(super) struct Cors {
    spec: davit_api::Cors,
    /// Every page may read, whatever it is: the answer is the same for all of them.
    any_origin: bool,
    any_header: bool,
    methods: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

impl Cors {
    pub(super) fn new(spec: &davit_api::Cors) -> Self {
        let list = |names: Vec<&str>| {
            (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).ok()).flatten()
        };
        let any_method = spec.methods.contains(&MethodMatch::Any);
        let methods = spec.methods.iter().filter(|_| !any_method).map(|method| method.as_str()).collect();
        Self {
            any_origin: spec.origins.iter().any(davit_api::Origin::is_any),
            any_header: spec.headers.iter().any(|name| name.as_str() == "*"),
            methods: list(methods),
            exposed: list(spec.exposed_headers.iter().map(FieldName::as_str).collect()),
            max_age: spec.max_age_seconds.map(HeaderValue::from),
            spec: spec.clone(),
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let origin = origin.to_str().unwrap_or_default();
        self.spec.origins.iter().any(|one| one.matches(origin))
    }

    /// The headers of the answer to a preflight, or why the page may not call.
    pub(super) fn preflight(&self, request: &HeaderMap) -> Result<HeaderMap, String> {
        let origin = request.get(header::ORIGIN).ok_or("the Origin header is missing")?;
        if !self.allows(origin) {
            return Err(format!("pages of the origin {origin:?} may not call this address"));
        }
        let method = request.get(header::ACCESS_CONTROL_REQUEST_METHOD).ok_or("no method is asked for")?;
        let known = |m: &MethodMatch| m.matches(method.to_str().unwrap_or_default());
        if !self.spec.methods.is_empty() && !self.spec.methods.iter().any(known) {
            return Err(format!("pages of other origins may not call this address with {method:?}"));
        }
        let mut answer = HeaderMap::with_capacity(7);
        let wanted = request.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS);
        for name in wanted.iter().flat_map(|value| value.as_bytes().split(|b| *b == b',')) {
            let name = name.trim_ascii();
            let known = |one: &FieldName| one.as_str().as_bytes().eq_ignore_ascii_case(name);
            if !name.is_empty() && !self.any_header && !self.spec.headers.iter().any(known) {
                let name = String::from_utf8_lossy(name);
                return Err(format!("pages of other origins may not send the header {name:?} here"));
            }
        }
        // They were all found to be allowed, so what was asked is the answer.
        for value in wanted {
            answer.append(header::ACCESS_CONTROL_ALLOW_HEADERS, value.clone());
        }
        let methods = self.methods.clone().unwrap_or_else(|| method.clone());
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        if let Some(seconds) = &self.max_age {
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, seconds.clone());
        }
        self.allow(origin, &mut answer);
        answer.insert(header::VARY, PREFLIGHT_VARIES);
        Ok(answer)
    }

    /// Says in an answer who may read it.
    pub(super) fn mark(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        for name in OURS {
            answer.remove(name);
        }
        if !self.any_origin && !varies(answer) {
            answer.append(header::VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else { return };
        self.allow(origin, answer);
        if let Some(exposed) = &self.exposed {
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    fn allow(&self, origin: &HeaderValue, answer: &mut HeaderMap) {
        let allowed = if self.any_origin { HeaderValue::from_static("*") } else { origin.clone() };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.spec.credentials {
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// Whether an answer says already that it depends on the origin.
fn varies(answer: &HeaderMap) -> bool {
    let mut names =
        answer.get_all(header::VARY).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"origin") || name.trim_ascii() == b"*")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cors(json: serde_json::Value) -> Cors {
        Cors::new(&serde_json::from_value(json).unwrap())
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        pairs.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn asking(origin: &str, method: &str, names: &str) -> HeaderMap {
        headers(&[
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", names),
        ])
    }

    #[test]
    fn a_preflight_is_told_what_it_asked_or_why_not() {
        let strict = cors(serde_json::json!({
            "origins": ["https://a.example.com", "https://*.example.org"], "methods": ["GET", "PUT"],
            "headers": ["content-type", "X-Mine"], "credentials": true, "max_age_seconds": 600,
        }));
        let answer =
            strict.preflight(&asking("https://b.example.org", "PUT", "x-mine,Content-Type")).unwrap();
        assert_eq!(answer["access-control-allow-origin"], "https://b.example.org");
        assert_eq!(answer["access-control-allow-credentials"], "true");
        assert_eq!(answer["access-control-allow-methods"], "GET, PUT");
        assert_eq!(answer["access-control-allow-headers"], "x-mine,Content-Type");
        assert_eq!(answer["access-control-max-age"], "600");
        assert!(answer["vary"].to_str().unwrap().starts_with("origin"));
        for (asked, why) in [
            (asking("https://evil.example", "GET", ""), "origin"),
            (asking("https://a.example.com.evil", "GET", ""), "origin"),
            (asking("https://a.example.com", "DELETE", ""), "DELETE"),
            (asking("https://a.example.com", "get", ""), "get"),
            (asking("https://a.example.com", "GET", "x-other"), "x-other"),
        ] {
            let refused = strict.preflight(&asked).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        let open = cors(serde_json::json!({"origins": ["*"], "headers": ["*"]}));
        let answer = open.preflight(&asking("null", "DELETE", "authorization")).unwrap();
        assert_eq!(answer["access-control-allow-origin"], "*");
        assert_eq!(answer["access-control-allow-methods"], "DELETE");
        assert_eq!(answer["access-control-allow-headers"], "authorization");
    }

    #[test]
    fn an_answer_says_who_may_read_it_whatever_the_function_said() {
        let strict =
            cors(serde_json::json!({"origins": ["https://a.example.com"], "exposed_headers": ["ETag"]}));
        let own = [("access-control-allow-origin", "*"), ("vary", "accept-encoding")];
        let mut answer = headers(&own);
        strict.mark(Some(&HeaderValue::from_static("https://a.example.com")), &mut answer);
        assert_eq!(answer["access-control-allow-origin"], "https://a.example.com");
        assert_eq!(answer["access-control-expose-headers"], "etag");
        assert_eq!(answer.get_all("vary").iter().count(), 2);
        for origin in [None, Some(&HeaderValue::from_static("https://evil.example"))] {
            let mut answer = headers(&own);
            strict.mark(origin, &mut answer);
            assert!(!answer.contains_key("access-control-allow-origin"));
            assert!(varies(&answer), "or a cache would give it to others");
        }
        let mut answer = HeaderMap::new();
        cors(serde_json::json!({"origins": ["*"]})).mark(None, &mut answer);
        assert!(!varies(&answer));
    }

    #[test]
    fn only_options_with_an_origin_and_a_method_is_a_preflight() {
        let request = |method: &str, pairs: &[(&'static str, &str)]| {
            let mut request = Request::builder().method(method).body(Body::empty()).unwrap();
            *request.headers_mut() = headers(pairs);
            preflight_method(&request).map(str::to_owned)
        };
        let (origin, asked) = (("origin", "https://a"), ("access-control-request-method", "PUT"));
        assert_eq!(request("OPTIONS", &[origin, asked]).as_deref(), Some("PUT"));
        for (method, pairs) in [("GET", &[origin, asked][..]), ("OPTIONS", &[origin]), ("OPTIONS", &[asked])]
        {
            assert_eq!(request(method, pairs), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_allowed_that_is_not_listed(origin in "[ -~]{0,30}", method in "[A-Za-z]{1,8}", names in "[ -~]{0,30}") {
            let strict = cors(serde_json::json!({"origins": ["https://a.b"], "methods": ["GET"], "headers": ["x-a"]}));
            if strict.preflight(&asking(&origin, &method, &names)).is_ok() {
                prop_assert_eq!((origin.as_str(), method.as_str()), ("https://a.b", "GET"));
                prop_assert!(names.split(',').all(|n| n.trim().is_empty() || n.trim().eq_ignore_ascii_case("x-a")));
            }
        }
    }
}
