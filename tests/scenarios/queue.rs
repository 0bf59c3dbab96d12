//! Accepted work is never lost.

use davit_e2e::{Davit, eventually};

#[tokio::test]
async fn work_accepted_before_a_crash_is_done_after_it_exactly_once() {
    let mut davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_files(&[
        ("davit.toml", "name = \"worker\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n"),
        ("app.py", "def handler(event, context):\n    return {'n': event['n']}\n"),
    ])
    .await;
    let mut accepted = Vec::new();
    for n in 0..20 {
        let answer = cli
            .run(&["invoke", "worker", &format!("{{\"n\":{n}}}"), "--async", "--output", "json"])
            .await
            .json();
        accepted.push(answer["invocation_id"].as_str().expect("an id").to_owned());
        if n == 10 {
            davit.kill();
            davit.start().await;
        }
    }
    for id in &accepted {
        eventually("the invocation to succeed", async || {
            let url = davit.url(&format!("/v1/namespaces/default/invocations/{id}"));
            let text =
                davit.http.get(url).bearer_auth(davit.token()).send().await.unwrap().text().await.unwrap();
            if text.contains("\"succeeded\"") { Ok(()) } else { Err(text) }
        })
        .await;
    }
}
