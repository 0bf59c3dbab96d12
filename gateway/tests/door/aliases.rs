//! Which version answers at which address, and who may ask for another one than everybody gets.

use davit_api::{AliasName, Sticky};
use davit_gateway::routes::gather;
use davit_registry::RoutedAlias;

use super::*;

const TOKEN: &str = "authorization: Bearer dvt_shop\r\n";
const INVOCATIONS: &str = "/v1/namespaces/shop/functions/orders/invocations";

/// The function's version of that number, beside the first one.
fn another(first: &LiveVersion, number: u32, access: Access) -> Arc<LiveVersion> {
    let mut version = first.clone();
    version.number = number;
    version.version_id = davit_api::VersionId::new();
    version.spec.access = access;
    Arc::new(version)
}

fn alias(name: &str, shares: &[(&Arc<LiveVersion>, u32)], public: bool, sticky: Option<&str>) -> RoutedAlias {
    RoutedAlias {
        function_id: shares[0].0.function_id,
        name: name.parse::<AliasName>().unwrap(),
        shares: shares.iter().map(|(version, weight)| (version.version_id, *weight)).collect(),
        sticky: sticky.map(|s| s.parse::<Sticky>().unwrap()),
        public,
        canary: None,
    }
}

impl Door {
    /// Puts the aliases of the one function in force.
    fn alias(&self, live: &Arc<LiveVersion>, others: &[&Arc<LiveVersion>], aliases: Vec<RoutedAlias>) {
        let entry = |role| TokenEntry {
            id: TokenId::new(),
            namespace: Some("shop".parse().unwrap()),
            role,
            expires_at: None,
        };
        let tokens = HashMap::from([
            (hash_token("dvt_shop"), entry(Role::Invoke)),
            (hash_token("dvt_reader"), entry(Role::Read)),
        ]);
        let live = vec![live.clone()];
        let aliases = gather(&live, others.iter().map(|v| (*v).clone()).collect(), aliases);
        self.routes.store(Table::build(live, tokens).with_aliases(aliases));
    }

    /// Status, and the version that answered where the answer says so.
    async fn asks(&self, path: &str, headers: &str) -> (u16, Option<u32>) {
        let answer = self.get(path, headers).await;
        let version = answer.lines().find_map(|line| line.strip_prefix("x-davit-version: "));
        (status(&answer), version.map(|v| v.trim().parse().unwrap()))
    }
}

#[tokio::test]
async fn an_alias_has_an_address_that_strangers_cannot_use_unless_it_is_opened() {
    let one = public(|_| {});
    let two = another(&one, 2, Access::Public);
    let closed = another(&one, 3, Access::Private);
    let door = door(std::slice::from_ref(&one), |_| {}).await;
    for version in [&one, &two, &two] {
        door.world.container(version).await;
    }
    door.alias(
        &one,
        &[&two, &closed],
        vec![
            alias("beta", &[(&two, 100)], false, None),
            alias("open", &[(&two, 100)], true, None),
            alias("closed", &[(&closed, 100)], true, None),
        ],
    );
    assert_eq!(door.asks("/shop/orders", "").await, (200, None));
    assert_eq!(door.asks("/shop/orders@beta/x?a=b", "").await, (401, None));
    assert_eq!(door.asks("/shop/orders@beta", "authorization: Bearer dvt_reader\r\n").await.0, 403);
    assert_eq!(door.asks("/shop/orders@beta/x?a=b", TOKEN).await, (200, Some(2)));
    assert_eq!(door.asks("/shop/orders@open", "").await, (200, Some(2)));
    assert_eq!(door.asks("/shop/orders@closed", TOKEN).await.0, 404, "its version has no address");
    for path in ["/shop/orders@none", "/shop/orders@", "/shop/orders@live", "/shop/other@beta", "/shop/@beta"]
    {
        assert_eq!(door.asks(path, TOKEN).await.0, 404, "{path}");
    }
    // What the function sees of the path begins behind the alias.
    let seen = door.get("/shop/orders@open/deep/er", "").await;
    assert_eq!(body(&seen)["event"]["rawPath"], "/deep/er", "{seen}");
}

#[tokio::test]
async fn a_version_that_is_asked_for_answers_who_shows_a_token() {
    let one = public(|_| {});
    let two = another(&one, 2, Access::Public);
    let door = door(std::slice::from_ref(&one), |_| {}).await;
    for version in [&one, &two] {
        door.world.container(version).await;
    }
    door.alias(&one, &[&two], vec![alias("beta", &[(&two, 100)], false, None)]);
    let pinned = async |value: &str, token: &str| {
        door.asks("/shop/orders", &format!("x-davit-version: {value}\r\n{token}")).await
    };
    assert_eq!(pinned("2", "").await, (401, None), "a public function's other versions are not public");
    assert_eq!(pinned("1", "").await, (401, None), "nor is the question which one is live");
    assert_eq!(pinned("2", TOKEN).await, (200, Some(2)));
    assert_eq!(pinned("beta", TOKEN).await, (200, Some(2)));
    assert_eq!(pinned("live", TOKEN).await, (200, Some(1)));
    assert_eq!(pinned("nothing", TOKEN).await, (404, None));
    for bad in ["0", "x y", "-1", "Beta"] {
        assert_eq!(pinned(bad, TOKEN).await, (400, None), "{bad}");
    }
    // One that no alias leads to has to be looked up, and there is no registry.
    assert_eq!(pinned("7", TOKEN).await, (503, None));
    let post = |headers: &str| {
        format!("POST {INVOCATIONS} HTTP/1.1\r\nhost: a\r\n{TOKEN}content-length: 2\r\n{headers}\r\n{{}}")
    };
    for (wanted, version) in [("2", "2"), ("beta", "2"), ("1", "1")] {
        let answer = door.raw(post(&format!("x-davit-version: {wanted}\r\n")).as_bytes()).await;
        assert!(answer.contains(&format!("x-davit-version: {version}\r\n")), "{answer}");
    }
}

#[tokio::test]
async fn a_private_function_has_no_other_address_either() {
    let one = version(|_| {});
    let two = another(&one, 2, Access::Public);
    let door = door(std::slice::from_ref(&one), |_| {}).await;
    door.world.container(&two).await;
    door.alias(&one, &[&two], vec![alias("beta", &[(&two, 100)], false, None)]);
    assert_eq!(door.asks("/shop/orders", &format!("x-davit-version: 2\r\n{TOKEN}")).await.0, 404);
    assert_eq!(door.asks("/shop/orders@beta", "").await.0, 401);
    // The alias's version is public, and its address asks for a token.
    assert_eq!(door.asks("/shop/orders@beta", TOKEN).await, (200, Some(2)));
}

#[tokio::test]
async fn calls_with_the_same_value_go_to_the_same_version_on_every_way() {
    let one = public(|s| s.max_instances = 1);
    let two = another(&one, 2, Access::Public);
    let door = door(std::slice::from_ref(&one), |_| {}).await;
    for version in [&one, &two] {
        door.world.container(version).await;
    }
    let split = alias("live", &[(&one, 50), (&two, 50)], false, Some("header:x-user"));
    door.alias(&one, &[&two], vec![split]);
    // By the API, whose answers say which version it was.
    let ask = async |user: u32| {
        let head = format!("POST {INVOCATIONS} HTTP/1.1\r\nhost: a\r\n{TOKEN}content-length: 2\r\n");
        let answer = door.raw(format!("{head}x-user: {user}\r\n\r\n{{}}").as_bytes()).await;
        let line = answer.lines().find_map(|line| line.strip_prefix("x-davit-version: ")).unwrap();
        line.trim().parse::<u32>().unwrap()
    };
    let mut seen = [0; 3];
    for user in 0..12 {
        let first = ask(user).await;
        assert_eq!(ask(user).await, first, "user {user}");
        seen[first as usize] += 1;
    }
    assert!(seen[1] > 0 && seen[2] > 0, "{seen:?}");
    let live = door.get("/v1/namespaces/shop/functions/orders/live", TOKEN).await;
    assert_eq!(body(&live)["versions"], json!([{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]));
}
