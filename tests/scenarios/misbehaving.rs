//! Functions that misbehave: each is limited and named, and its neighbour does not notice.

use davit_e2e::{Cli, Davit};

const TOML: &str = "name = \"NAME\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\ntimeout_seconds = SECONDS\nmemory_mb = 128\nephemeral_mb = 16\n";

async fn deploy(cli: &Cli, name: &str, body: &str) {
    let code = format!("import os, sys, time\ndef handler(event, context):\n{body}\n");
    // Only the one that sleeps is to meet its timeout; the others may take as long as a busy machine needs.
    let seconds = if name == "sleeps" { "6" } else { "60" };
    let toml = TOML.replace("NAME", name).replace("SECONDS", seconds);
    cli.deploy_files(&[("davit.toml", &toml), ("app.py", &code)]).await;
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_name() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    deploy(&cli, "neighbour", "    return 'fine'").await;
    for (name, body, code) in [
        ("raises", "    raise ValueError('boom')", "function_error"),
        ("exits", "    os._exit(3)", "function_exited"),
        ("sleeps", "    time.sleep(60)", "function_timeout"),
        (
            "eats",
            "    x = []\n    while True: x.append('a' * 1000000 + str(len(x)))",
            "function_out_of_memory",
        ),
    ] {
        deploy(&cli, name, body).await;
        let url = davit.url(&format!("/v1/namespaces/default/functions/{name}/invocations"));
        let text = davit_e2e::eventually("room for the call", async || {
            let answer = davit.http.post(&url).bearer_auth(davit.token()).body("{}").send().await.unwrap();
            let text = answer.text().await.unwrap();
            if text.contains("no_capacity") { Err(text) } else { Ok(text) }
        })
        .await;
        assert!(text.contains(&format!("\"{code}\"")), "{name}: {text}");
        assert_eq!(cli.invoke("neighbour", "{}").await.stdout.trim(), "\"fine\"");
    }
}

#[tokio::test]
async fn bombs_are_bounded() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    deploy(&cli, "fork", "    n = 0\n    try:\n        while True:\n            if os.fork() == 0: time.sleep(30); os._exit(0)\n            n += 1\n    except OSError: return n < 1000").await;
    deploy(&cli, "disk", "    try:\n        with open('/tmp/x', 'wb') as f:\n            for _ in range(64): f.write(b'x' * 1048576)\n    except OSError: return 'full'").await;
    deploy(&cli, "shout", "    for _ in range(200000): print('x' * 80)\n    return 'done'").await;
    // Which of its two limits a fork bomb meets first, processes or memory, is a matter of luck; either is named.
    let forked = davit_e2e::eventually("room for the call", async || {
        let output = cli.attempt(&["invoke", "fork", "{}"]).await;
        if output.code == 6 { Err(output) } else { Ok(output) }
    })
    .await;
    let named = forked.stdout.trim() == "true" || (forked.code == 3 && forked.stderr.contains("OutOfMemory"));
    assert!(named, "{forked:?}");
    assert_eq!(cli.invoke("disk", "{}").await.stdout.trim(), "\"full\"");
    assert_eq!(cli.invoke("shout", "{}").await.stdout.trim(), "\"done\"");
}
