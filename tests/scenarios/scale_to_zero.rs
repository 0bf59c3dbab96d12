//! To zero and back, and what is visible of it.

use davit_e2e::{Davit, eventually};

#[tokio::test]
async fn an_idle_function_goes_to_zero_and_a_call_brings_it_back() {
    let mut davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_files(&[
        ("davit.toml", "name = \"sleepy\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\nkeep_alive_seconds = 1\n"),
        ("app.py", "def handler(event, context):\n    return 'awake'\n"),
    ])
    .await;
    let row = async || cli.json(&["list"]).await[0].clone();
    cli.invoke("sleepy", "{}").await;
    eventually("no instance to be left", async || {
        let row = row().await;
        let counts = &row["instances"];
        let gone = counts["active"] == 0 && counts["frozen"] == 0 && row["usage"]["cold_starts"] == 1;
        if gone { Ok(()) } else { Err(row) }
    })
    .await;
    cli.invoke("sleepy", "{}").await;
    eventually("the second cold start to be counted", async || {
        let row = row().await;
        if row["usage"]["cold_starts"] == 2 { Ok(()) } else { Err(row) }
    })
    .await;

    // The counters are facts in the registry, not in a process.
    davit.kill();
    davit.start().await;
    assert_eq!(row().await["usage"]["cold_starts"], 2);
    cli.invoke("sleepy", "{}").await;
}
