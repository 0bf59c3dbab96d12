//! Functions that misbehave: each is limited and named, and its neighbour does not notice.

use davit_e2e::{Answer, Cli, Davit, Steady};

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

/// Calls a function until davit has had room for it, and gives status and body.
async fn call(davit: &Davit, name: &str) -> Answer {
    davit_e2e::eventually("room for the call", async || {
        let answer = davit.api().invoke(name, &serde_json::json!({})).await;
        if answer.code() == "no_capacity" { Err(answer) } else { Ok(answer) }
    })
    .await
}

#[tokio::test]
async fn whatever_others_do_a_neighbour_is_answered_all_the_time() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let public = "access = \"public\"\npayload = \"body\"";
    cli.deploy_python("neighbour", public, "def handler(event, context):\n    return 'fine'\n").await;
    cli.invoke("neighbour", "{}").await;
    let pause = std::time::Duration::from_millis(20);
    let neighbour = Steady::calling(&davit.http, davit.url("/default/neighbour"), "{}".into(), pause);

    // Its first start, which lets it go live, is the only one that works.
    let leaves = "
import os, time
if not os.environ['AWS_LAMBDA_LOG_STREAM_NAME'].startswith('first-start'):
    os._exit(7)
def handler(event, context):
    return 'never'
";
    cli.deploy_python("leaves", "timeout_seconds = 20", leaves).await;
    for _ in 0..3 {
        let answer = call(&davit, "leaves").await;
        assert_eq!((answer.status, answer.code()), (502, "function_init_failed"), "{answer:?}");
    }

    // One instance and a handler that is deaf to everything: the next call needs another instance.
    let deaf = "
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def handler(event, context):
    if event.get('deaf'):
        while True: time.sleep(1)
    return 'hears'
";
    cli.deploy_python("deaf", "timeout_seconds = 6\nmax_instances = 1", deaf).await;
    cli.invoke("deaf", "{}").await;
    let answer = davit.api().invoke("deaf", &serde_json::json!({"deaf": true})).await;
    assert_eq!((answer.status, answer.code()), (504, "function_timeout"), "{answer:?}");
    assert_eq!(call(&davit, "deaf").await.body, "hears", "its slot is free, in an instance of its own");

    bombs_are_bounded(&davit, &cli).await;
    neighbour.stop().await.all_good("a neighbour of functions that misbehave");
}

/// Forks, fills disk and memory and floods its output, all at once.
async fn bombs_are_bounded(davit: &Davit, cli: &Cli) {
    let fork = "    n = 0\n    try:\n        while True:\n            if os.fork() == 0: time.sleep(30); os._exit(0)\n            n += 1\n    except OSError: return n < 1000";
    let disk = "    try:\n        with open('/tmp/x', 'wb') as f:\n            while True: f.write(b'x' * 1048576)\n    except OSError: return 'full'";
    let eats = "    x = []\n    while True: x.append('a' * 1000000 + str(len(x)))";
    let shout = "    for _ in range(200000): print('x' * 80)\n    return 'done'";
    let bombs = [("fork", fork), ("disk", disk), ("eats", eats), ("shout", shout)];
    for (name, body) in bombs {
        deploy(cli, name, body).await;
    }
    let calls = bombs.map(|(name, _)| call(davit, name));
    let [forked, full, ate, shouted] = {
        let [a, b, c, d] = calls;
        tokio::join!(a, b, c, d).into()
    };
    // Which of its two limits a fork bomb meets first, processes or memory, is a matter of luck; either is named.
    let named = forked.body == true || forked.code() == "function_out_of_memory";
    assert!(named, "{forked:?}");
    assert_eq!(ate.code(), "function_out_of_memory", "{ate:?}");
    assert_eq!((full.body, shouted.body), ("full".into(), "done".into()));
}
