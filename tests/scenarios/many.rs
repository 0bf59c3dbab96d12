//! Many functions: lists come in pages, and a command fetches those that it was asked for.

use davit_e2e::Davit;
use serde_json::Value;

/// Functions `copy-0001` and so on beside a deployed one, as if their first versions were still to be built.
const COPIES: &str = "
    with made as (insert into functions (id, namespace_id, name, last_number)
        select gen_random_uuid(), f.namespace_id, 'copy-' || to_char(n, 'fm0000'), 0
        from functions f, generate_series(1, 1500) n where f.name = 'first' returning 1)
    select count(*) from made";

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_long_list_is_cut_with_a_hint_and_fetched_whole_when_asked_for() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("first", "", "def handler(event, context):\n    return 1\n").await;
    assert_eq!(davit.ask_postgres(COPIES), ["1500"]);

    let short = cli.run(&["list"]).await;
    assert_eq!(short.stdout.lines().count(), 101, "a heading and a hundred functions");
    assert!(short.stderr.contains("--all"), "{}", short.stderr);
    let some = cli.run(&["list", "--limit", "1200", "--output", "json"]).await;
    let (list, last) = (some.json(), "copy-1200");
    assert_eq!((names(&list).len(), names(&list).last()), (1_200, Some(&last)), "over the bound of one page");
    assert!(some.stderr.contains("more than these 1200"), "{}", some.stderr);
    let all = cli.run(&["list", "--all", "--output", "json"]).await;
    assert_eq!(names(&all.json()).len(), 1_501);
    assert_eq!(all.stderr, "", "nothing is left out");
    let found = cli.run(&["list", "--search", "y-149"]).await;
    assert_eq!((found.stdout.lines().count(), found.stderr.as_str()), (11, ""));
    let live = cli.json(&["list", "--all", "--runtime", "python3.13"]).await;
    assert_eq!(names(&live), ["first"], "the copies have no live version");
    let versions = cli.json(&["versions", "first", "--limit", "1"]).await;
    assert_eq!(versions[0]["number"], 1);
}
