//! Clients that go away in the middle.

use davit_e2e::{Davit, eventually};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

const SLOW: &str = "
import time
def handler(event, context):
    time.sleep(event.get('s', 0))
    return 'ok'
";

#[tokio::test]
async fn a_thousand_clients_that_hang_up_leak_no_slot_and_no_transaction() {
    let davit = Davit::up().await;
    let settings = "access = \"public\"\npayload = \"body\"\nmax_instances = 2";
    davit.cli().deploy_python("slow", settings, SLOW).await;
    let (gateway, token) = (davit.address(), davit.token());
    let management = davit.endpoint("management_url").trim_start_matches("http://").to_owned();
    let head = format!("Host: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n");
    let request = |first: &str, body: &str| {
        format!("{first} HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let invoke = "POST /v1/namespaces/default/functions/slow/invocations?async=true";
    let add = "POST /v1/namespaces/default/functions/slow/schedules";
    let schedule = r#"{"name":"NAME","spec":{"cron":"0 0 1 1 *"}}"#;
    let mut clients = JoinSet::new();
    for n in 0..1000 {
        // Half of them call; the others enqueue, read and write. Each stops somewhere in its request, or right
        // after it.
        let (address, request) = match n % 8 {
            0..4 => (&gateway, request("POST /default/slow", r#"{"s":1}"#)),
            4 => (&gateway, request(invoke, "{}")),
            5 => (&management, request(add, &schedule.replace("NAME", &format!("s{n}")))),
            6 => (&management, request("GET /v1/namespaces/default/functions/slow/logs?wait=20", "")),
            _ => (&management, request("PUT /v1/namespaces/default/secrets/s", r#"{"value":"x"}"#)),
        };
        let (address, whole) = (address.clone(), n % 3 == 0);
        clients.spawn(async move {
            if let Ok(mut stream) = tokio::net::TcpStream::connect(&address).await {
                let length = if whole { request.len() } else { request.len() - n % request.len() };
                let _ = stream.write_all(&request.as_bytes()[..length]).await;
            }
        });
    }
    while clients.join_next().await.is_some() {}

    eventually("the function to answer again", async || {
        let answer = davit.http.post(davit.url("/default/slow")).body("{}").send().await.unwrap();
        if answer.status() == 200 { Ok(()) } else { Err(answer.text().await.unwrap()) }
    })
    .await;
    eventually("every slot and place in line to be free", async || {
        let status = davit.status().await;
        let fleets = status["gateway"]["fleets"].as_array().cloned().unwrap_or_default();
        let busy = fleets.iter().any(|f| f["in_use"] != 0 || f["waiting"] != 0 || f["starting"] != 0);
        if busy { Err(status) } else { Ok(()) }
    })
    .await;
    eventually("their connections to be closed", async || {
        let open = davit.metric("davit_connections_open").await;
        // Our own client keeps one or two for its next request.
        if open <= 2.0 { Ok(()) } else { Err(open) }
    })
    .await;
    eventually("no transaction to be open", async || {
        let open = davit.ask_postgres(
            "select state, query from pg_stat_activity where datname = 'davit' and pid <> pg_backend_pid() \
             and (state like 'idle in transaction%' or (state = 'active' and xact_start < now() - interval '5 s'))",
        );
        if open.is_empty() { Ok(()) } else { Err(open) }
    })
    .await;
    let answer = davit.api().get("/v1/namespaces/default/functions").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
