//! Lookups on small tables.

use super::*;
use davit_api::{Digest, FunctionKind, PoolKey, RuntimeName, VersionId, VersionSpec};
use proptest::prelude::*;

pub(in crate::routes) fn version(
    namespace: &str,
    function: &str,
    routes: &[(&str, &str, &str)],
) -> Arc<LiveVersion> {
    let mut spec = VersionSpec::new("provided".parse::<RuntimeName>().unwrap(), FunctionKind::Handler);
    spec.routes = routes
        .iter()
        .map(|(host, method, path)| RouteSpec {
            host: (!host.is_empty()).then(|| host.parse().unwrap()),
            ..RouteSpec::new(method.parse().unwrap(), path.parse().unwrap(), PayloadFormat::V2)
        })
        .collect();
    let function_id = FunctionId::new();
    let (namespace, function) = (namespace.parse().unwrap(), function.parse().unwrap());
    Arc::new(LiveVersion {
        address: LiveVersion::address_of(&namespace, &function),
        namespace,
        function,
        function_id,
        version_id: VersionId::new(),
        number: 1,
        bundle: Digest::from_bytes([0; 32]),
        bundle_size: 0,
        routes: Route::all(function_id, &spec, &Default::default()),
        policy: None,
        env: Box::default(),
        secret_files: Box::default(),
        has_secrets: false,
        missing_secrets: Box::default(),
        pool_key: Arc::new(PoolKey::of(&spec, "")),
        config: Digest::from_bytes([0; 32]),
        spec,
    })
}

fn table(versions: &[Arc<LiveVersion>]) -> Table {
    Table::build(versions.to_vec(), HashMap::new())
}

fn found(table: &Table, host: &str, method: &str, path: &str) -> Option<(String, Vec<(String, String)>)> {
    match table.lookup(host, method, path) {
        Lookup::Found(found) => Some((found.version.function.to_string(), found.params)),
        _ => None,
    }
}

fn name(table: &Table, host: &str, method: &str, path: &str) -> String {
    found(table, host, method, path).map_or("-".into(), |(name, _)| name)
}

#[test]
fn the_most_specific_answers() {
    let table = table(&[
        version("a", "literal", &[("", "GET", "/items/new")]),
        version("a", "param", &[("", "GET", "/items/{id}"), ("", "ANY", "/items/{id}/parts/{part}")]),
        version("a", "rest", &[("", "ANY", "/items/{all+}")]),
        version("a", "exact", &[("api.example.com", "ANY", "/{x+}")]),
        version("a", "wild", &[("*.example.com", "ANY", "/{x+}")]),
        version("a", "wilder", &[("*.com", "ANY", "/{x+}")]),
    ]);
    for (host, method, path, expected) in [
        ("h", "GET", "/items/new", "literal"),
        ("h", "GET", "/items/7", "param"),
        ("h", "PUT", "/items/7/parts/8", "param"),
        ("h", "GET", "/items/7/8", "rest"),
        ("h", "GET", "/items", "-"),
        ("h", "GET", "/items/", "-"),
        ("api.example.com", "GET", "/items/new", "exact"),
        ("b.example.com", "GET", "/items/new", "wild"),
        ("b.org.com", "GET", "/q", "wilder"),
        ("example.com", "GET", "/q", "wilder"),
        ("com", "GET", "/q", "-"),
        ("h", "GET", "/a/param/x", "param"),
    ] {
        assert_eq!(name(&table, host, method, path), expected, "{host} {method} {path}");
    }
}

#[test]
fn parameters_keep_their_own_names_and_are_decoded() {
    let table = table(&[
        version("a", "one", &[("", "GET", "/x/{first}")]),
        version("a", "two", &[("", "POST", "/x/{second}")]),
        version("a", "deep", &[("", "GET", "/x/{third}/{rest+}")]),
    ]);
    let params = |method, path| found(&table, "h", method, path).unwrap().1;
    assert_eq!(params("GET", "/x/a%20b"), [("first".into(), "a b".into())]);
    assert_eq!(params("POST", "/x/1"), [("second".into(), "1".into())]);
    assert_eq!(params("GET", "/x/1/2/3"), [("third".into(), "1".into()), ("rest".into(), "2/3".into())]);
}

#[test]
fn a_method_that_is_not_served_is_told_from_a_path_that_is_not() {
    let table = table(&[version("a", "f", &[("", "GET", "/x"), ("", "PUT", "/x")])]);
    let Lookup::MethodNotAllowed(mut methods) = table.lookup("h", "POST", "/x") else { panic!() };
    methods.sort_unstable();
    assert_eq!(methods, ["GET", "PUT"]);
    assert!(matches!(table.lookup("h", "POST", "/y"), Lookup::NotFound));
}

#[test]
fn a_route_cannot_catch_what_lies_under_another_namespace() {
    let table = table(&[
        version("victim", "shop", &[]),
        version(
            "thief",
            "grab",
            &[("", "ANY", "/victim/shop"), ("", "ANY", "/victim/{x+}"), ("", "ANY", "/{a}/{b+}")],
        ),
    ]);
    assert_eq!(name(&table, "h", "GET", "/victim/shop"), "shop");
    assert_eq!(name(&table, "h", "GET", "/victim/shop/x"), "shop");
    // What nobody in that namespace serves, a pattern without a fixed first segment may still answer.
    assert_eq!(name(&table, "h", "GET", "/elsewhere/x"), "grab");
}

#[test]
fn an_address_is_cut_right_behind_the_function() {
    let table = table(&[version("ns", "fn", &[])]);
    for (path, rest) in [("/ns/fn", ""), ("/ns/fn/", "/"), ("/ns/fn/a/b", "/a/b")] {
        let Lookup::Found(found) = table.lookup("h", "GET", path) else { panic!("{path}") };
        assert_eq!(&path[found.prefix..], rest);
    }
    for path in ["/ns", "/ns/", "/ns/fnx", "/ns/f", "/", "/NS/fn", "/ns/fn%20"] {
        assert!(matches!(table.lookup("h", "GET", path), Lookup::NotFound), "{path}");
    }
}

#[test]
fn tokens_expire() {
    let entry = |expires_at| TokenEntry { id: TokenId::new(), namespace: None, role: Role::Read, expires_at };
    let now = Utc::now();
    let tokens = HashMap::from([([1; 32], entry(None)), ([2; 32], entry(Some(now)))]);
    let table = Table::build(Vec::new(), tokens);
    assert!(
        table.token(&[1; 32], now).is_some()
            && table.token(&[2; 32], now).is_none()
            && table.token(&[3; 32], now).is_none()
    );
}

proptest! {
    #[test]
    fn any_set_of_routes_builds_and_any_path_is_answered(
        patterns in proptest::collection::vec("(/([ab]|\\{[xy]\\})){1,3}(/\\{z\\+\\})?", 0..12),
        path in "(/[abc]{0,2}){1,4}",
    ) {
        let versions: Vec<_> = patterns
            .iter()
            .enumerate()
            .filter(|(_, p)| p.parse::<davit_api::PathPattern>().is_ok())
            .map(|(n, p)| version("zz", &format!("f{n}"), &[("", "GET", p)]))
            .collect();
        let table = table(&versions);
        for route in versions.iter().flat_map(|v| &v.routes) {
            let concrete = route.spec.path.as_str().replace("{z+}", "q/q").replace("{x}", "q").replace("{y}", "q");
            prop_assert!(matches!(table.lookup("h", "GET", &concrete), Lookup::Found(_)), "{} is not served", concrete);
        }
        if let Lookup::Found(found) = table.lookup("h", "GET", &path) {
            // What matched really fits: same number of segments, or a rest.
            let pattern = found.route.unwrap().path.clone();
            let (segments, given) = (pattern.as_str().split('/').count(), path.split('/').count());
            prop_assert!(segments == given || (pattern.as_str().contains('+') && given >= segments), "{} {}", pattern, path);
        }
    }
}
