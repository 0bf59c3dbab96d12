//! Changes of a user's own table reach a function, each committed one once, whoever is killed meanwhile.

use std::time::Duration;

use davit_e2e::{Cli, Postgres, Roles, Who, eventually, eventually_within};
use serde_json::Value;

/// Connections that insert.
const WRITERS: u32 = 4;
/// Transactions of each; every fourth is rolled back.
const EACH: u32 = 40;
/// Longer than the others together, and than it takes to notice that a gateway is gone.
const LONG: &str = "begin; insert into orders values (1, 'long'); select pg_sleep(18); commit";

/// A table in a Postgres of the user's own, and a function that gets its changes.
struct Story {
    roles: Roles,
    theirs: Postgres,
    cli: Cli,
}

impl Story {
    async fn new() -> Self {
        let allow = |_: Who, _: &std::path::Path| vec![("DAVIT_OUTBOUND_ALLOW".into(), "127.0.0.1".into())];
        let roles = Roles::start_with(2, allow).await;
        let theirs = Postgres::start_new_with_port().await;
        theirs.ask("create table orders (id int primary key, item text)");
        let cli = roles.cli();
        cli.deploy_example("order-changes").await;
        Self { roles, theirs, cli }
    }

    async fn set_secret(&self, value: &str) {
        let file = self.roles.state().join("orders-db");
        std::fs::write(&file, value).unwrap();
        self.cli.run(&["secret", "set", "orders-db", "--file", file.to_str().unwrap()]).await;
    }

    async fn status(&self) -> Value {
        self.cli.json(&["source", "describe", "orders"]).await["status"].clone()
    }

    /// Which gateway fetches, of those that run.
    async fn holder(&self) -> usize {
        eventually("a gateway to fetch", async || {
            let status = self.status().await;
            for number in 0..2 {
                let gateway = self.roles.find_status(number).await;
                if gateway.is_some_and(|gateway| gateway["gateway"]["gateway"] == status["gateway"]) {
                    return Ok(number);
                }
            }
            Err(status)
        })
        .await
    }

    /// Ids of the rows whose inserts were accepted, whether they have been carried out or not.
    fn accepted(&self) -> Vec<u32> {
        let of = |table: &str| {
            format!(
                "select (convert_from(payload, 'UTF8')::json -> 'key' ->> 'id')::int as id from {table} where source = 'event_source'"
            )
        };
        let question = format!(
            "select id from ({} union all {}) a order by id",
            of("invocations"),
            of("ended_invocations")
        );
        numbers(self.roles.postgres.ask(&question))
    }

    fn committed(&self) -> Vec<u32> {
        numbers(self.theirs.ask("select id from orders order by id"))
    }

    async fn all_accepted(&self) {
        eventually_within(Duration::from_secs(90), "every committed change to be accepted", async || {
            let (committed, accepted) = (self.committed(), self.accepted());
            if committed == accepted { Ok(()) } else { Err((committed, accepted, self.status().await)) }
        })
        .await;
    }
}

fn numbers(lines: Vec<String>) -> Vec<u32> {
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

fn transactions(writer: u32) -> String {
    let one = |n: u32| {
        let (id, end) = (1_000 * (writer + 1) + n, if n % 4 == 3 { "rollback" } else { "commit" });
        format!(
            "begin; insert into orders values ({id}, 'w{writer}'); select pg_sleep(0.1); {end}; select pg_sleep(0.1);"
        )
    };
    (0..EACH).map(one).collect()
}

#[tokio::test]
async fn every_committed_change_is_one_call_though_the_gateway_that_fetches_is_killed() {
    let mut story = Story::new().await;
    let url = story.theirs.url();
    let create = ["source", "create", "postgres", "orders", "--to", "function:order-changes"];
    let create = [&create[..], &["--connection-secret", "orders-db", "--batch", "7", "--table"]].concat();
    let refused = async |table: &str, why: &str| {
        let output = story.cli.attempt(&[&create[..], &[table]].concat()).await;
        assert!(output.code != 0 && output.stderr.contains(why), "{why}: {output:?}");
    };
    refused("orders", "secret: there is none named orders-db").await;
    story.set_secret("mysql://u:hunter2@127.0.0.1/d").await;
    refused("orders", "secret: the secret's value is not an address").await;
    story.set_secret(&url.replace("127.0.0.1", "10.255.255.1")).await;
    refused("orders", "secret: 10.255.255.1 is not an address of the public internet").await;
    story.set_secret(&url).await;
    refused("public.order", "table: there is no table public.order").await;
    story.cli.run(&[&create[..], &["public.orders"]].concat()).await;
    let pid = story.holder().await;

    let long = story.theirs.ask_aside(LONG.to_owned());
    let writers: Vec<_> = (0..WRITERS).map(|writer| story.theirs.ask_aside(transactions(writer))).collect();
    eventually("some to be accepted", async || {
        let accepted = story.accepted().len();
        if accepted > 20 { Ok(()) } else { Err(accepted) }
    })
    .await;
    story.roles.kill_gateway(pid);
    for writer in writers {
        assert!(writer.await.unwrap(), "users notice nothing");
    }
    assert!(!story.accepted().contains(&1), "what is not committed is not accepted");
    assert!(long.await.unwrap());
    assert_eq!(story.committed().len() as u32, WRITERS * EACH * 3 / 4 + 1);
    story.all_accepted().await;
    let other = story.holder().await;
    assert_ne!(other, pid, "the other one has taken over");
    story.roles.start_gateway(pid).await;

    story.cli.run(&["source", "pause", "orders"]).await;
    story.theirs.ask("insert into orders values (2, 'while paused')");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!story.accepted().contains(&2));
    story.cli.run(&["source", "resume", "orders"]).await;
    story.all_accepted().await;

    story.theirs.kill();
    eventually("the outage to be seen", async || {
        let status = story.status().await;
        let seen =
            status["state"] == "failing" && status["last_error"].as_str().is_some_and(|e| !e.is_empty());
        if seen { Ok(()) } else { Err(status) }
    })
    .await;
    let refused = story.cli.attempt(&["source", "delete", "orders", "--yes"]).await;
    assert!(refused.code != 0 && refused.stderr.contains("--remove"), "{refused:?}");
    story.theirs.start().await;
    story.theirs.ask("insert into orders values (3, 'after the outage')");
    story.all_accepted().await;

    let path = "/v1/namespaces/default/functions/order-changes/invocations?limit=1000";
    eventually_within(Duration::from_secs(120), "every call to succeed", async || {
        let list = story.roles.api(other).get(path).await;
        let all = list.body["items"].as_array().cloned().unwrap_or_default();
        let done = all.iter().filter(|view| view["state"] == "succeeded").count();
        if done == story.committed().len() { Ok(()) } else { Err(done) }
    })
    .await;
    let shown = story.cli.run(&["source", "describe", "orders"]).await.stdout;
    assert!(shown.contains("public.orders") && shown.contains("active"), "{shown}");
    let sql = story.cli.run(&["source", "sql", "orders"]).await.stdout;
    story.theirs.ask(&sql);

    story.cli.run(&["source", "delete", "orders", "--yes"]).await;
    let left = "select count(*) from pg_trigger where tgname like 'davit%' union all select count(*) from pg_namespace where nspname = 'davit_source'";
    assert_eq!(story.theirs.ask(left), ["0", "0"]);
    story.theirs.ask("insert into orders values (4, 'nobody listens')");
    let log = story.roles.log();
    assert!(!log.contains("hunter2") && !log.contains(&url), "addresses are secrets");
}
