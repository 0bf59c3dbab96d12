//! Where a request to the local port goes, and how its head is written there. Pure: bytes in, bytes out.

use davit_api::{Access, FunctionName, MethodMatch, NamespaceName, PathPattern, RouteSpec, VersionSpec};

use super::trial::host;

/// Below this path lies what is davit's own, not a function's.
pub(super) const OWN: &str = "/_davit/";
/// Headers of one request.
const HEADERS: usize = 128;

/// A function that is being worked on.
#[derive(Debug, Clone)]
pub(super) struct Local {
    pub(super) name: String,
    pub(super) access: Access,
    pub(super) routes: Vec<LocalRoute>,
}

/// One of its routes, which may have an access of its own.
#[derive(Debug, Clone)]
pub(super) struct LocalRoute {
    method: MethodMatch,
    path: PathPattern,
    access: Access,
}

impl Local {
    /// A function as it is deployed.
    pub(super) fn of(name: &FunctionName, spec: &VersionSpec) -> Self {
        let route = |route: &RouteSpec| LocalRoute {
            method: route.method,
            path: route.path.clone(),
            access: route.access.unwrap_or(spec.access),
        };
        Self { name: name.to_string(), access: spec.access, routes: spec.routes.iter().map(route).collect() }
    }
}

/// Which of davit's two addresses is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upstream {
    /// Calls of functions.
    Gateway,
    /// Schedules.
    Management,
}

/// A request's head as it goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) upstream: Upstream,
    pub(super) head: Vec<u8>,
    /// How much of what was read the head was; the rest is the beginning of the body.
    pub(super) read: usize,
    /// Method and path, as they came.
    pub(super) said: String,
}

/// Why it goes nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is not whole yet.
    Incomplete,
    /// Status and reason.
    Answer(u16, String),
}

/// What is needed to tell.
pub(super) struct Table<'a> {
    pub(super) namespace: &'a NamespaceName,
    pub(super) token: Option<&'a str>,
    pub(super) functions: &'a [Local],
    /// Host and port of the upstreams.
    pub(super) gateway: &'a str,
    pub(super) management: &'a str,
}

impl Table<'_> {
    /// Reads a head and writes it anew. Every connection carries one request: what follows it needs no looking at.
    pub(super) fn forward(&self, bytes: &[u8]) -> Result<Forward, Refused> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let bad = |text: &str| Refused::Answer(400, text.to_owned());
        let read = match request.parse(bytes) {
            Ok(httparse::Status::Complete(read)) => read,
            Ok(httparse::Status::Partial) => return Err(Refused::Incomplete),
            Err(error) => return Err(bad(&format!("not an HTTP/1.1 request: {error}"))),
        };
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Err(bad("not an HTTP/1.1 request"));
        };
        if !target.starts_with('/') {
            return Err(bad("write the path alone"));
        }
        let header = |name: &str| {
            let found = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
            found.map(|h| String::from_utf8_lossy(h.value).into_owned())
        };
        // A page of somebody else's must not reach it by a name that leads here.
        if !header("host").is_some_and(|host| is_local(&host)) {
            return Err(Refused::Answer(421, "call it as localhost or 127.0.0.1".into()));
        }
        let to = self.target(method, target)?;
        if to.own && header("origin").is_some() {
            return Err(Refused::Answer(403, "not from a web page".into()));
        }
        let host = to.host.as_deref().unwrap_or(match to.upstream {
            Upstream::Gateway => self.gateway,
            Upstream::Management => self.management,
        });
        let mut head = format!("{method} {} HTTP/1.1\r\nhost: {host}\r\n", to.path).into_bytes();
        let upgrades = header("upgrade").is_some();
        for one in request.headers.iter() {
            let is = |name: &str| one.name.eq_ignore_ascii_case(name);
            let replaced = is("host")
                || (is("connection") && !upgrades)
                || is("keep-alive")
                || (is("authorization") && to.token)
                || (is("content-type") && to.own);
            if !replaced {
                head.extend_from_slice(one.name.as_bytes());
                head.extend_from_slice(b": ");
                head.extend_from_slice(one.value);
                head.extend_from_slice(b"\r\n");
            }
        }
        if !upgrades {
            head.extend_from_slice(b"connection: close\r\n");
        }
        if to.own {
            head.extend_from_slice(b"content-type: application/json\r\n");
        }
        if let Some(token) = self.token.filter(|_| to.token) {
            head.extend_from_slice(format!("authorization: Bearer {token}\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        Ok(Forward { upstream: to.upstream, head, read, said: format!("{method} {target}") })
    }

    fn target(&self, method: &str, target: &str) -> Result<Target, Refused> {
        let path = target.split('?').next().unwrap_or_default();
        if let Some(rest) = path.strip_prefix(OWN) {
            return self.own(rest, target);
        }
        let routes = self.functions.iter().flat_map(|f| f.routes.iter().map(move |route| (f, route)));
        let mut fitting =
            routes.filter(|(_, route)| route.method.matches(method) && matches(&route.path, path));
        if let Some((function, route)) = fitting.next() {
            let host = Some(host(self.namespace, &function.name));
            return Ok(Target::to(route.access, host, target.to_owned()));
        }
        if let [only] = self.functions {
            return Ok(Target::to(only.access, None, format!("/{}/{}{target}", self.namespace, only.name)));
        }
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match self.functions.iter().find(|function| function.name == first) {
            Some(function) => Ok(Target::to(function.access, None, format!("/{}{target}", self.namespace))),
            None if self.functions.is_empty() => {
                Err(Refused::Answer(503, "no function is built yet; the output of davit dev says why".into()))
            }
            None => {
                let names: Vec<String> = self.functions.iter().map(|f| format!("/{}", f.name)).collect();
                Err(Refused::Answer(
                    404,
                    format!("no route has this path; functions are at {}", names.join(", ")),
                ))
            }
        }
    }

    /// `events/FUNCTION`, `topics/TOPIC`, `schedules/FUNCTION/SCHEDULE`.
    fn own(&self, rest: &str, target: &str) -> Result<Target, Refused> {
        let at = format!("/v1/namespaces/{}", self.namespace);
        let query = target.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
        let named = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let (upstream, path) = match parts.as_slice() {
            ["events", function] if named(function) => {
                (Upstream::Gateway, format!("{at}/functions/{function}/invocations{query}"))
            }
            ["topics", topic] if named(topic) => {
                (Upstream::Gateway, format!("{at}/topics/{topic}/messages{query}"))
            }
            ["schedules", function, schedule] if named(function) && named(schedule) => {
                (Upstream::Management, format!("{at}/functions/{function}/schedules/{schedule}/run"))
            }
            _ => {
                let text = format!(
                    "write {OWN}events/FUNCTION, {OWN}topics/TOPIC or {OWN}schedules/FUNCTION/SCHEDULE"
                );
                return Err(Refused::Answer(404, text));
            }
        };
        Ok(Target { upstream, host: None, path, token: true, own: true })
    }
}

struct Target {
    upstream: Upstream,
    /// Another host than the upstream's own.
    host: Option<String>,
    path: String,
    /// davit asks for a token, which the caller need not have.
    token: bool,
    own: bool,
}

impl Target {
    fn to(access: Access, host: Option<String>, path: String) -> Self {
        Self { upstream: Upstream::Gateway, host, path, token: access == Access::Token, own: false }
    }
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a path is one of the pattern's.
fn matches(pattern: &PathPattern, path: &str) -> bool {
    let mut parts = path.split('/');
    for segment in pattern.as_str().split('/') {
        if segment.ends_with("+}") {
            return parts.next().is_some_and(|part| !part.is_empty());
        }
        let Some(part) = parts.next() else { return false };
        let fits = if segment.starts_with('{') { !part.is_empty() } else { segment == part };
        if !fits {
            return false;
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn local(name: &str, access: Access, routes: &[&str]) -> Local {
        let mut spec = VersionSpec::new("node20".parse().unwrap(), davit_api::FunctionKind::Handler);
        spec.access = access;
        let route = |path| serde_json::from_value(serde_json::json!({ "path": path })).unwrap();
        spec.routes = routes.iter().map(route).collect();
        Local::of(&name.parse().unwrap(), &spec)
    }

    fn forward(functions: &[Local], request: &str) -> Result<(Upstream, String), (u16, String)> {
        let namespace = "dev".parse().unwrap();
        let table =
            Table { namespace: &namespace, token: Some("t0"), functions, gateway: "g:1", management: "m:2" };
        match table.forward(request.as_bytes()) {
            Ok(forward) => {
                assert_eq!(forward.read, request.find("\r\n\r\n").unwrap() + 4);
                Ok((forward.upstream, String::from_utf8(forward.head).unwrap()))
            }
            Err(Refused::Incomplete) => Err((0, String::new())),
            Err(Refused::Answer(status, text)) => Err((status, text)),
        }
    }

    fn get(functions: &[Local], path: &str) -> Result<String, u16> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost:8000\r\n\r\n");
        forward(functions, &request).map(|(_, head)| head).map_err(|(status, _)| status)
    }

    #[test]
    fn one_function_has_the_port_for_itself_and_several_their_names() {
        let one = [local("orders", Access::Public, &["/v2/{rest+}"])];
        assert!(get(&one, "/a?x=1").unwrap().starts_with("GET /dev/orders/a?x=1 HTTP/1.1\r\nhost: g:1\r\n"));
        let by_route = get(&one, "/v2/a/b").unwrap();
        assert!(by_route.starts_with("GET /v2/a/b HTTP/1.1\r\nhost: orders.dev.localhost\r\n"), "{by_route}");
        let two = [local("a", Access::Token, &["/only/{id}"]), local("b", Access::Public, &[])];
        assert!(get(&two, "/b/x").unwrap().starts_with("GET /dev/b/x "));
        assert!(get(&two, "/only/7").unwrap().contains("host: a.dev.localhost"));
        assert_eq!(get(&two, "/c"), Err(404));
    }

    #[test]
    fn a_token_is_added_where_davit_asks_for_one_and_nowhere_else() {
        let request =
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: mine\r\nConnection: keep-alive\r\n\r\n";
        let (_, with) = forward(&[local("a", Access::Token, &[])], request).unwrap();
        assert!(with.contains("authorization: Bearer t0\r\n") && !with.contains("mine"), "{with}");
        let (_, without) = forward(&[local("a", Access::Public, &[])], request).unwrap();
        assert!(without.contains("Authorization: mine\r\n") && !without.contains("t0"), "{without}");
        assert!(without.contains("connection: close") && !without.contains("keep-alive"));
        let mut routed = local("a", Access::Public, &["/mine"]);
        routed.routes[0].access = Access::Token;
        let of = |path: &str| get(&[routed.clone()], path).unwrap().contains("Bearer t0");
        assert!(of("/mine") && !of("/other"), "a route has an access of its own");
        let upgrade =
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        let (_, head) = forward(&[local("a", Access::Public, &[])], upgrade).unwrap();
        assert!(head.contains("Connection: Upgrade\r\n") && !head.contains("close"));
    }

    #[test]
    fn events_topics_and_schedules_have_paths_of_their_own() {
        let functions = [local("a", Access::Public, &[])];
        let post = |path: &str, more: &str| {
            forward(&functions, &format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"))
        };
        let (_, head) = post("/_davit/events/a?async=true", "Content-Type: text/plain\r\n").unwrap();
        assert!(head.starts_with("POST /v1/namespaces/dev/functions/a/invocations?async=true "), "{head}");
        assert!(
            head.contains("application/json") && !head.contains("text/plain") && head.contains("Bearer t0")
        );
        assert!(
            post("/_davit/topics/t", "").unwrap().1.starts_with("POST /v1/namespaces/dev/topics/t/messages ")
        );
        let (upstream, head) = post("/_davit/schedules/a/nightly", "").unwrap();
        assert_eq!(upstream, Upstream::Management);
        assert!(head.contains("/functions/a/schedules/nightly/run "), "{head}");
        assert_eq!(post("/_davit/events/..", "").unwrap_err().0, 404);
        assert_eq!(post("/_davit/events/a", "Origin: https://evil.example\r\n").unwrap_err().0, 403);
    }

    #[test]
    fn only_this_machines_names_are_answered() {
        let functions = [local("a", Access::Token, &[])];
        let ask =
            |host: &str| forward(&functions, &format!("GET / HTTP/1.1\r\n{host}\r\n")).map_err(|(s, _)| s);
        for good in
            ["Host: localhost:1\r\n", "Host: a.localhost\r\n", "Host: 127.0.0.1:9\r\n", "Host: [::1]:9\r\n"]
        {
            assert!(ask(good).is_ok(), "{good}");
        }
        for bad in ["", "Host: evil.example\r\n", "Host: localhost.evil.example\r\n", "Host: 10.0.0.1\r\n"] {
            assert_eq!(ask(bad), Err(421), "{bad}");
        }
    }

    #[test]
    fn patterns_match_as_at_the_gateway() {
        for (pattern, path, fits) in [
            ("/", "/", true),
            ("/a/{b}", "/a/x", true),
            ("/a/{b}", "/a/", false),
            ("/a/{b}", "/a/x/y", false),
            ("/a/{b+}", "/a/x/y", true),
            ("/a/{b+}", "/a", false),
            ("/a", "/b", false),
        ] {
            assert_eq!(matches(&pattern.parse().unwrap(), path), fits, "{pattern} {path}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let namespace = "dev".parse().unwrap();
            let functions = [local("a", Access::Token, &[])];
            let table = Table { namespace: &namespace, token: None, functions: &functions, gateway: "g", management: "m" };
            let _ = table.forward(&bytes);
        }
    }
}
