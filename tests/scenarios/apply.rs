//! A project that is applied as a whole: what is new, changed, gone and somebody else's, and what is refused before anything is done.

use std::path::Path;

use davit_e2e::{Cli, Davit, Output, examples, python_folder};
use serde_json::{Value, json};

/// What a plan has for each object.
fn steps(plan: &Value) -> Vec<String> {
    let steps = plan["steps"].as_array().unwrap().iter();
    steps.map(|s| format!("{} {}", s["action"].as_str().unwrap(), s["object"].as_str().unwrap())).collect()
}

async fn apply(cli: &Cli, project: &Path, options: &[&str]) -> Output {
    let path = project.display().to_string();
    let args: Vec<&str> = ["apply", "-f", &path].iter().chain(options).copied().collect();
    cli.attempt(&args).await
}

async fn applied(cli: &Cli, project: &Path, options: &[&str]) -> Output {
    let output = apply(cli, project, options).await;
    assert_eq!(output.code, 0, "davit apply {options:?}: {output:?}");
    output
}

async fn plan(cli: &Cli, project: &Path, options: &[&str]) -> (i32, Value) {
    let output = apply(cli, project, &[&["--plan", "-o", "json"], options].concat()).await;
    assert!([0, 7].contains(&output.code), "{output:?}");
    (output.code, output.json())
}

fn copy_of_the_shop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "davit.project.toml",
        "orders/davit.toml",
        "orders/orders.py",
        "receipts/davit.toml",
        "receipts/receipts.py",
    ] {
        let to = dir.path().join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(examples().join("shop").join(name), to).unwrap();
    }
    dir
}

fn edit(project: &Path, file: &str, from: &str, to: &str) {
    let path = project.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from:?}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[tokio::test]
async fn a_project_is_made_changed_and_pruned_and_nothing_else_is_touched() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let shop = copy_of_the_shop();
    let shop = shop.path();

    // Without the secret's value nothing is done, and the place is named.
    let refused = apply(&cli, shop, &["--yes"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("receipts/davit.toml, line 7: the secret receipt-key"), "{refused:?}");
    assert!(cli.json(&["list"]).await.as_array().unwrap().is_empty(), "nothing was made");

    let cli = cli.with_setting("RECEIPT_KEY", "hush");
    let (code, first) = plan(&cli, shop, &[]).await;
    assert_eq!(code, 7);
    let all = [
        "create secret/receipt-key",
        "create topic/shop-orders",
        "create function/shop-orders",
        "create function/shop-receipts",
        "create source/shop-payments",
    ];
    assert_eq!(steps(&first), all);
    assert!(cli.json(&["topic", "list"]).await.as_array().unwrap().is_empty(), "a plan makes nothing");
    // Nobody is there to say yes.
    assert_eq!(apply(&cli, shop, &[]).await.code, 2);

    let made = applied(&cli, shop, &["--yes"]).await;
    assert!(!format!("{made:?}").contains("hush"), "{made:?}");
    let answer = davit.http.post(davit.url("/shop/orders")).body(r#"{"total": 12}"#).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    cli.run(&["topic", "publish", "shop-orders", "{}", "--type", "order.created"]).await;

    // The same again is nothing to do, and makes no version.
    let again = applied(&cli, shop, &[]).await;
    assert!(again.stderr.contains("nothing to do"), "{again:?}");
    assert_eq!(plan(&cli, shop, &[]).await.0, 0);
    assert_eq!(cli.json(&["versions", "shop-orders"]).await.as_array().unwrap().len(), 1);

    // Drift by hand is seen, and put back.
    cli.run(&["schedule", "update", "shop-orders", "close-of-day", "--timezone", "UTC"]).await;
    let (_, drift) = plan(&cli, shop, &[]).await;
    assert_eq!(steps(&drift), ["update function/shop-orders"]);
    let changes = &drift["steps"][0]["changes"];
    assert_eq!(changes[0]["setting"], "schedules.close-of-day.timezone");
    assert_eq!((&changes[0]["old"], &changes[0]["new"]), (&json!("UTC"), &json!("Europe/Berlin")));
    applied(&cli, shop, &["--yes"]).await;
    assert_eq!(plan(&cli, shop, &[]).await.0, 0);
    assert_eq!(cli.json(&["versions", "shop-orders"]).await.as_array().unwrap().len(), 1, "the same version");

    // A change of one function is one step; a build that fails changes nothing.
    edit(shop, "orders/davit.toml", "orders.handler", "orders.nobody");
    edit(shop, "receipts/receipts.py", "[:16]", "[:12]");
    let failed = apply(&cli, shop, &["--yes"]).await;
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("shop-orders"), "{failed:?}");
    let live = cli.json(&["describe", "shop-receipts"]).await["live"]["number"].clone();
    assert_eq!(live, 1, "the other one was built, and is not live");
    edit(shop, "orders/davit.toml", "orders.nobody", "orders.handler");
    let (_, one) = plan(&cli, shop, &[]).await;
    assert_eq!(steps(&one), ["update function/shop-receipts"]);
    applied(&cli, shop, &["--yes", "--quiet"]).await;

    // Another value of the secret.
    let cli = davit.cli().with_setting("RECEIPT_KEY", "louder");
    let (_, value) = plan(&cli, shop, &[]).await;
    assert_eq!(steps(&value), ["update secret/receipt-key"]);
    assert!(!value.to_string().contains("louder"));
    applied(&cli, shop, &["--yes"]).await;
    // Whoever does not have it leaves it alone.
    let (without, _) = plan(&davit.cli(), shop, &[]).await;
    assert_eq!(without, 0);

    // What is gone from the files stays until it is asked for; what others made stays in any case.
    cli.run(&["topic", "create", "by-hand"]).await;
    let by_hand = python_folder("by-hand", "", "def handler(event, context):\n    return 1\n");
    cli.deploy(by_hand.path()).await;
    std::fs::remove_dir_all(shop.join("orders")).unwrap();
    let (code, left) = plan(&cli, shop, &[]).await;
    assert_eq!((code, &left["left"]), (0, &json!(["function/shop-orders"])));
    applied(&cli, shop, &["--yes"]).await;
    let (code, gone) = plan(&cli, shop, &["--prune"]).await;
    assert_eq!((code, steps(&gone)), (7, vec!["remove function/shop-orders".to_owned()]));
    applied(&cli, shop, &["--yes", "--prune"]).await;
    let names = cli.json(&["list"]).await;
    let names: Vec<_> =
        names.as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["by-hand", "shop-receipts"]);

    // Another project cannot take what is this one's.
    let other = tempfile::tempdir().unwrap();
    std::fs::write(
        other.path().join("davit.project.toml"),
        "name = \"other\"\n[[topics]]\nname = \"shop-orders\"\n",
    )
    .unwrap();
    let refused = apply(&cli, other.path(), &["--yes"]).await;
    assert!(
        refused.code == 2 && refused.stderr.contains("topic/shop-orders is the project shop's"),
        "{refused:?}"
    );
}
