//! Any process may die at any moment.

use davit_e2e::{Davit, containers_of, eventually};

#[tokio::test]
async fn after_a_kill_it_comes_back_with_its_functions_and_without_its_old_containers() {
    let mut davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_example("user-auth").await;
    cli.invoke("user-auth", r#"{"request":{"type":"login"}}"#).await;
    let before = davit.containers();
    assert!(!before.is_empty());
    let installation = davit.endpoint("installation");
    davit.kill();
    davit.start().await;
    cli.invoke("user-auth", r#"{"request":{"type":"login"}}"#).await;
    eventually("the old containers to be removed", async || {
        let now = containers_of(&installation);
        let left: Vec<_> = before.iter().filter(|id| now.contains(id)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn clients_that_hang_up_leak_nothing() {
    use tokio::io::AsyncWriteExt;
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_files(&[
        ("davit.toml", "name = \"slow\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\naccess = \"public\"\npayload = \"body\"\nmax_instances = 2\n"),
        ("app.py", "import time\ndef handler(event, context):\n    time.sleep(event.get('s', 0))\n    return 'ok'\n"),
    ])
    .await;
    let address = davit.endpoint("gateway_url");
    let address = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let body = r#"{"s":1}"#;
    let request =
        format!("POST /default/slow HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let (address, request) = (address.clone(), request.clone());
        tasks.spawn(async move {
            if let Ok(mut stream) = tokio::net::TcpStream::connect(&address).await {
                let _ = stream.write_all(&request.as_bytes()[..request.len() - n % request.len()]).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    eventually("the function to answer again", async || {
        let answer = davit.http.post(davit.url("/default/slow")).body("{}").send().await.unwrap();
        if answer.status() == 200 { Ok(()) } else { Err(answer.text().await.unwrap()) }
    })
    .await;
}
