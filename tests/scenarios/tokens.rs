//! Who may do what.

use std::process::Command;
use std::time::Duration;

use davit_e2e::{Davit, Steady, eventually, folder_of};
use serde_json::{Value, json};

#[tokio::test]
async fn a_reader_reads_and_does_nothing_else() {
    let davit = Davit::up().await;
    let admin = davit.cli();
    admin.deploy_example("user-auth").await;
    let made = admin.json(&["token", "create", "--role", "read", "--namespace", "default", "a reader"]).await;
    let reader = admin.with_token(made["token"].as_str().expect("the secret is shown once"));
    reader.run(&["list"]).await;
    for refused in [
        vec!["invoke", "user-auth", "{}"],
        vec!["delete", "user-auth", "--yes"],
        vec!["rollback", "user-auth"],
        vec!["token", "list"],
        vec!["schedule", "add", "user-auth", "x", "* * * * *"],
    ] {
        let output = reader.attempt(&refused).await;
        assert_eq!(output.code, 4, "{refused:?}: {output:?}");
    }
    let stranger = admin.with_token("dvt_nonsense");
    assert_eq!(stranger.attempt(&["list"]).await.code, 4);
}

#[tokio::test]
async fn secrets_reach_the_function_and_nothing_else() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let file = davit.state().join("value");
    std::fs::write(&file, "correct horse").unwrap();
    cli.run(&["secret", "set", "api-key", "--file", file.to_str().unwrap()]).await;
    cli.deploy_files(&[
        ("davit.toml", "name = \"keeper\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n[secrets]\nAPI_KEY = \"api-key\"\n"),
        ("app.py", "import os\ndef handler(event, context):\n    return len(os.environ['API_KEY'])\n"),
    ])
    .await;
    assert_eq!(cli.invoke("keeper", "{}").await.stdout.trim(), "13");
    for shown in [
        cli.run(&["secret", "list"]).await.stdout,
        cli.run(&["describe", "keeper"]).await.stdout,
        davit.log(),
    ] {
        assert!(!shown.contains("correct horse"), "{shown}");
    }
}

#[tokio::test]
async fn a_secret_that_is_set_anew_reaches_calls_without_a_deployment_and_fails_none() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let file = davit.state().join("value");
    let set = async |value: &str| {
        std::fs::write(&file, value).unwrap();
        cli.run(&["secret", "set", "api-key", "--file", file.to_str().unwrap()]).await;
    };
    set("old").await;
    let settings = "access = \"public\"\n[secrets]\nAPI_KEY = \"api-key\"";
    let code = "import os\ndef handler(event, context):\n    return os.environ['API_KEY']\n";
    cli.deploy_python("keeper", settings, code).await;
    let seen =
        async || davit.http.get(davit.url("/default/keeper")).send().await.unwrap().text().await.unwrap();
    assert_eq!(seen().await, "old");
    let steady =
        Steady::calling(&davit.http, davit.url("/default/keeper"), String::new(), Duration::from_millis(5));
    set("new").await;
    eventually("calls see the new value", async || match seen().await.as_str() {
        "new" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    for _ in 0..20 {
        assert_eq!(seen().await, "new", "once it has come it stays");
    }
    steady.stop().await.all_good("while the secret changed");
    assert_eq!(cli.json(&["describe", "keeper"]).await["live"]["number"], 1, "nothing was deployed");
}

/// A server that shows what it finds of its secrets.
const SHOWS: &str = "
import http.server, json, os
class Show(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        names = os.listdir('/run/secrets') if os.path.isdir('/run/secrets') else []
        found = {n: open('/run/secrets/' + n, newline='').read() for n in names}
        try:
            open('/run/secrets/db.txt', 'w')
            written = True
        except OSError:
            written = False
        modes = [oct(os.stat('/run/secrets/' + n).st_mode) for n in names]
        body = json.dumps({'found': found, 'modes': modes, 'written': written, 'env': dict(os.environ)}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Show).serve_forever()
";

/// What a caller is shown.
async fn shown(davit: &Davit, function: &str) -> Value {
    let answer = davit.http.get(davit.url(&format!("/default/{function}"))).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// What can be seen of the host's processes and the containers from outside.
fn from_outside(davit: &Davit) -> String {
    let mut all = vec!["inspect".to_owned()];
    all.extend(davit.containers());
    let inspected = Command::new("docker").args(&all).output().unwrap().stdout;
    let processes = Command::new("ps").args(["axeww"]).output().unwrap().stdout;
    String::from_utf8_lossy(&[inspected, processes].concat()).into_owned()
}

#[tokio::test]
async fn a_secret_is_a_file_of_its_function_alone_and_a_new_value_comes_without_a_failed_call() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let file = davit.state().join("value");
    let set = async |value: &str| {
        std::fs::write(&file, value).unwrap();
        cli.run(&["secret", "set", "db-key", "--file", file.to_str().unwrap()]).await;
    };
    let settings = "access = \"public\"\n[secret_files]\n\"db.txt\" = \"db-key\"";
    let server = format!(
        "name = \"NAME\"\nruntime = \"python3.13\"\nkind = \"server\"\ncommand = [\"python3\", \"server.py\"]\n{settings}\n"
    );
    let unset = folder_of(&[("davit.toml", &server.replace("NAME", "shows")), ("server.py", SHOWS)]);
    let refused = cli.try_in(unset.path(), &["deploy"]).await;
    assert!(refused.code != 0 && refused.stderr.contains("secret_files: db.txt"), "{refused:?}");

    // Several lines, quotes, a control character: as it is.
    let old = "two\n\"lines\" é\u{1} hunter2-old";
    set(old).await;
    cli.deploy(unset.path()).await;
    let code = "def handler(event, context):\n    return open('/run/secrets/db.txt', newline='').read()\n";
    cli.deploy_python("reads", settings, code).await;
    let other = server.replace("NAME", "other").replace(settings, "access = \"public\"");
    cli.deploy_files(&[("davit.toml", &other), ("server.py", SHOWS)]).await;
    // An image with things of its own in that place.
    let image = "FROM davit/runtime-python3.13\nUSER root\nRUN mkdir -p /run/secrets && echo mine > /run/secrets/db.txt\n\
        VOLUME /run/secrets\nCOPY server.py /srv/\nENTRYPOINT [\"python3\", \"/srv/server.py\"]\n";
    let own = format!("name = \"own\"\nkind = \"server\"\n{settings}\n");
    cli.deploy_files(&[("davit.toml", &own), ("Dockerfile", image), ("server.py", SHOWS)]).await;

    for function in ["shows", "own"] {
        let seen = shown(&davit, function).await;
        assert_eq!(seen["found"], json!({"db.txt": old}), "{function}: {seen}");
        assert_eq!((&seen["modes"], &seen["written"]), (&json!(["0o100400"]), &json!(false)), "{function}");
        assert!(!seen["env"].to_string().contains("hunter2"), "in no variable: {seen}");
    }
    assert_eq!(shown(&davit, "other").await["found"], json!({}), "another function's");
    let outside = from_outside(&davit);
    assert!(outside.contains("/run/secrets") && !outside.contains("hunter2"), "the place, not the value");
    for told in [
        davit.log(),
        cli.run(&["describe", "reads"]).await.stdout,
        cli.run(&["logs", "reads"]).await.stdout,
        cli.run(&["versions", "reads", "-o", "json"]).await.stdout,
    ] {
        assert!(!told.contains("hunter2"), "{told}");
    }
    assert!(cli.run(&["describe", "reads"]).await.stdout.contains("/run/secrets/db.txt"));

    let url = davit.url("/default/reads");
    let steady = Steady::calling(&davit.http, url.clone(), String::new(), Duration::from_millis(5));
    set("hunter2-new").await;
    let seen = async || davit.http.get(&url).send().await.unwrap().text().await.unwrap();
    eventually("calls see the new file", async || match seen().await.as_str() {
        "hunter2-new" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    for _ in 0..20 {
        assert_eq!(seen().await, "hunter2-new", "once it has come it stays");
    }
    steady.stop().await.all_good("while the secret changed");
    assert_eq!(cli.json(&["describe", "reads"]).await["live"]["number"], 1, "nothing was deployed");
}
