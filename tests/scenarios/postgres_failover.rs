//! Postgres moves to another machine: its standby takes over at an address of its own, and the name that everybody knows leads there.

use std::time::Duration;

use davit_e2e::{Davit, Postgres, Steady, eventually, is_root, python_folder};

const HANDLER: &str = "
def handler(event, context):
    return 'fine'
";
const PUBLIC: &str = "access = \"public\"\npayload = \"body\"\nmax_instances = 2";
/// Gives a process names of its own, in a file that can be changed while it runs.
const WITH_NAMES: &str = "mount --bind \"$DAVIT_STATE_DIR/hosts\" /etc/hosts && exec \"$0\" \"$@\"";

#[tokio::test]
async fn davit_follows_a_postgres_that_moves_to_its_standby_without_a_restart() {
    if !is_root() {
        eprintln!("skipped: names of its own are given to a process by root alone");
        return;
    }
    let mut first = Postgres::start_new_with_port().await;
    let second = first.start_standby().await;
    let url = first.url().replace("127.0.0.1", "postgres.davit.test");
    let names = |address: &str| format!("127.0.0.1 localhost\n{address} postgres.davit.test\n");
    let settings = [("DATABASE_URL", &*url), ("DAVIT_SHARE_CODE", "false")];
    let davit = Davit::up_as(&["unshare", "--mount", "sh", "-c", WITH_NAMES], &settings, |state| {
        std::fs::write(state.join("hosts"), names("127.0.0.1")).unwrap();
    })
    .await;
    let (cli, api) = (davit.cli(), davit.api());
    cli.deploy_python("warm", PUBLIC, HANDLER).await;
    cli.invoke("warm", "{}").await;
    let url = davit.url("/default/warm");
    let steady = Steady::calling(&davit.http, url, "{}".into(), Duration::from_millis(20));
    let mut promised = Vec::new();
    for n in 0..20 {
        promised.push(api.promised("warm", n).await.expect("it is up"));
    }

    first.kill();
    let refused = api.promised("warm", 20).await.expect_err("nothing can be promised without a database");
    assert_eq!((refused.status, refused.code()), (503, "unavailable"), "{refused:?}");
    second.promote();
    std::fs::write(davit.state().join("hosts"), names("127.0.0.2")).unwrap();

    let id = eventually("the queue to take work", async || api.promised("warm", 21).await).await;
    for id in promised.iter().chain([&id]) {
        api.succeeded(id).await;
    }
    eventually("a deploy", async || {
        let folder = python_folder("later", PUBLIC, HANDLER);
        let output = cli.try_in(folder.path(), &["deploy"]).await;
        if output.code == 0 { Ok(()) } else { Err(output) }
    })
    .await;
    cli.invoke("later", "{}").await;
    let writes = second.ask("select count(*) from functions");
    assert_eq!(writes, ["2"], "both functions are in the one that took over");
    steady.stop().await.all_good("warm calls while Postgres moved");
}
