//! `davit dev --debug`, attached to as an editor would: the debuggers' own protocols over the port, down to a breakpoint in a
//! function's container and back.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use davit_e2e::{Davit, eventually, folder_of};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::dev::Dev;

const PYTHON: &str = "\
def handler(event, context):
    total = 41
    total += 1
    return {'statusCode': 200, 'body': str(total)}
";
/// Where `total` is 41.
const LINE: u64 = 3;

/// A client of the Debug Adapter Protocol, which debugpy speaks.
struct Dap {
    stream: BufReader<TcpStream>,
    seq: u64,
}

/// A call that stands at the breakpoint.
struct Stop {
    thread: u64,
    frame: u64,
    /// The variable there.
    total: String,
}

impl Dap {
    async fn connect(address: &str) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(address).await.unwrap()), seq: 0 }
    }

    async fn send(&mut self, command: &str, arguments: Value) {
        self.seq += 1;
        let body = json!({"seq": self.seq, "type": "request", "command": command, "arguments": arguments});
        let body = body.to_string();
        let message = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        self.stream.write_all(message.as_bytes()).await.unwrap();
    }

    /// The next message, or none at the connection's end.
    async fn next(&mut self) -> Option<Value> {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return None;
            }
            match line.trim().split_once(": ") {
                Some((_, value)) => length = value.parse().unwrap(),
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        Some(serde_json::from_slice(&body).unwrap())
    }

    /// The event of that name, or the good answer to that command.
    async fn until(&mut self, name: &str) -> Value {
        let found = async {
            loop {
                let message = self.next().await.unwrap_or_else(|| panic!("the end instead of {name}"));
                if message["event"] == name || message["command"] == name {
                    assert_ne!(message["success"], false, "{message}");
                    return message["body"].clone();
                }
            }
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(60), found).await;
        found.unwrap_or_else(|_| panic!("no {name} came"))
    }

    async fn ask(&mut self, command: &str, arguments: Value) -> Value {
        self.send(command, arguments).await;
        self.until(command).await
    }

    /// As an editor does it: with the folder on this machine for the one in the container, and a breakpoint.
    async fn attach(address: &str, folder: &Path) -> Self {
        let mut dap = Self::connect(address).await;
        dap.ask("initialize", json!({"adapterID": "story", "pathFormat": "path", "linesStartAt1": true}))
            .await;
        let mapping = json!([{"localRoot": folder, "remoteRoot": "/var/task"}]);
        dap.send("attach", json!({"pathMappings": mapping, "justMyCode": true})).await;
        dap.until("initialized").await;
        let place = json!({"source": {"path": folder.join("app.py")}, "breakpoints": [{"line": LINE}]});
        let set = dap.ask("setBreakpoints", place).await;
        assert_eq!(set["breakpoints"][0]["verified"], true, "{set}");
        dap.ask("configurationDone", json!({})).await;
        dap
    }

    /// Waits until the breakpoint is reached.
    async fn stopped(&mut self, folder: &Path) -> Stop {
        let stopped = self.until("stopped").await;
        assert_eq!(stopped["reason"], "breakpoint");
        let thread = stopped["threadId"].as_u64().unwrap();
        let stack = self.ask("stackTrace", json!({"threadId": thread})).await;
        let top = &stack["stackFrames"][0];
        assert_eq!((top["name"].as_str(), top["line"].as_u64()), (Some("handler"), Some(LINE)));
        assert_eq!(top["source"]["path"].as_str(), folder.join("app.py").to_str(), "the file as it is here");
        let scopes = self.ask("scopes", json!({"frameId": top["id"]})).await;
        let locals = &scopes["scopes"][0]["variablesReference"];
        let variables = self.ask("variables", json!({"variablesReference": locals})).await;
        let mut variables = variables["variables"].as_array().unwrap().iter();
        let total = variables.find(|variable| variable["name"] == "total").unwrap();
        let total = total["value"].as_str().unwrap().to_owned();
        Stop { thread, frame: top["id"].as_u64().unwrap(), total }
    }

    async fn closed(mut self) {
        let end = async { while self.next().await.is_some() {} };
        tokio::time::timeout(std::time::Duration::from_secs(60), end).await.expect("the port lets go");
    }
}

fn call(davit: &Davit, url: &str) -> tokio::task::JoinHandle<String> {
    let request = davit.http.get(url).send();
    tokio::spawn(async move { request.await.unwrap().text().await.unwrap() })
}

#[tokio::test]
async fn python_stops_at_a_breakpoint_and_a_change_is_debugged_by_the_same_port() {
    let davit = Davit::up().await;
    let toml = "name = \"adder\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\naccess = \"public\"\ntimeout_seconds = 1\n";
    let folder = folder_of(&[("davit.toml", toml), ("app.py", PYTHON)]);
    let folder = folder.path();
    let dev = Dev::start(&davit, folder, &["--debug=0"]);
    let debugger = dev.debugger("adder").await;

    // Who comes early is waited with.
    let mut dap = Dap::attach(&debugger, folder).await;
    dev.says("listening on ").await;
    let url = dev.port();
    let answer = call(&davit, &url);
    let Stop { thread, frame, total } = dap.stopped(folder).await;
    assert_eq!(total, "41");
    // Longer than the function may take when nobody debugs it.
    let long = json!({"expression": "__import__('time').sleep(1.5) or total * 2", "frameId": frame});
    assert_eq!(dap.ask("evaluate", long).await["result"], "82");
    dap.ask("continue", json!({"threadId": thread})).await;
    assert_eq!(answer.await.unwrap(), "42");

    // A change lets go of a call that stands at a breakpoint; it ends as what it was, and the next one is the new code's.
    let answer = call(&davit, &url);
    dap.stopped(folder).await;
    std::fs::write(folder.join("app.py"), PYTHON.replace("41", "51")).unwrap();
    dev.says("✓ adder: version 2").await;
    dap.closed().await;
    assert_eq!(answer.await.unwrap(), "42");
    let mut dap = Dap::attach(&debugger, folder).await;
    let answer = call(&davit, &url);
    let Stop { thread, total, .. } = dap.stopped(folder).await;
    assert_eq!(total, "51");
    dap.ask("continue", json!({"threadId": thread})).await;
    assert_eq!(answer.await.unwrap(), "52");

    // The gateway's door is for those who may deploy, and for nothing that was not deployed for it.
    let cli = davit.cli();
    let api = davit.api();
    let ask = async |namespace: &str, name: &str, token: &str| {
        let url = format!("{}/v1/namespaces/{namespace}/functions/{name}/debugger", api.gateway);
        let request = davit.http.get(url).header("connection", "upgrade").header("upgrade", "davit-debugger");
        let answer = request.bearer_auth(token).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, if status == 101 { String::new() } else { answer.text().await.unwrap() })
    };
    assert_eq!(ask("dev", "adder", &api.token).await.0, 101);
    let made = cli.json(&["token", "create", "caller", "--role", "invoke", "-n", "dev"]).await;
    let token = made["token"].as_str().unwrap();
    let refused = eventually_known(async || ask("dev", "adder", token).await).await;
    assert!(refused.0 == 403 && refused.1.contains("this needs deploy"), "{refused:?}");
    cli.deploy_files(&[("davit.toml", toml), ("app.py", PYTHON)]).await;
    let refused = ask("default", "adder", &api.token).await;
    assert!(
        refused.0 == 409 && refused.1.contains("version 1 of default/adder is not deployed for debugging"),
        "{refused:?}"
    );
    let described = cli.run(&["describe", "adder", "-n", "dev"]).await;
    assert!(described.stdout.contains("for debugging"), "{described:?}");

    dap.send("disconnect", json!({})).await;
    dev.end().await;
    assert!(cli.json(&["list", "-n", "dev"]).await.as_array().unwrap().is_empty());
}

/// A gateway learns of a token a moment after it was made.
async fn eventually_known(ask: impl AsyncFn() -> (u16, String)) -> (u16, String) {
    let answer = Mutex::new((0, String::new()));
    eventually("the gateway to know the token", async || {
        let (status, text) = ask().await;
        *answer.lock().unwrap() = (status, text.clone());
        if status == 401 { Err(text) } else { Ok(()) }
    })
    .await;
    answer.into_inner().unwrap()
}

/// Node's own debugger on a terminal, `node inspect`, out of the runtime's image.
struct Inspect {
    name: String,
    child: Mutex<Child>,
    keys: ChildStdin,
    said: Arc<Mutex<String>>,
}

impl Inspect {
    fn attach(address: &str) -> Self {
        let name = format!("davit-e2e-inspect-{}-{}", std::process::id(), address.replace(':', "-"));
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--interactive", "--network", "host", "--name", &name]);
        command.args(["--entrypoint", "node"]);
        command.args(["davit/runtime-node20:latest", "inspect", address]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let (keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let all = said.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = std::io::Read::read(&mut screen, &mut bytes) {
                all.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { name, child: Mutex::new(child), keys, said }
    }

    fn types(&mut self, line: &str) {
        self.said.lock().unwrap().clear();
        std::io::Write::write_all(&mut self.keys, format!("{line}\n").as_bytes()).unwrap();
    }

    async fn shows(&self, what: &str) {
        eventually(&format!("node inspect to show {what:?}"), async || {
            let said = self.said.lock().unwrap().clone();
            if said.contains(what) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    async fn end(mut self) {
        self.types(".exit");
        eventually("node inspect to end", async || {
            let said = self.said.lock().unwrap().clone();
            self.child.lock().unwrap().try_wait().unwrap().map(|_| ()).ok_or(said)
        })
        .await;
    }
}

impl Drop for Inspect {
    fn drop(&mut self) {
        // A client that is killed leaves its container.
        let _ = Command::new("docker").args(["rm", "--force", &self.name]).output();
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[tokio::test]
async fn node_waits_for_its_inspector_and_stops_at_a_breakpoint() {
    let davit = Davit::up().await;
    let toml = "name = \"adder\"\nruntime = \"node20\"\nhandler = \"app.handler\"\n";
    let code = "exports.handler = async (event) => {\n  let total = event.a;\n  total += 1;\n  return { total };\n};\n";
    let folder = folder_of(&[("davit.toml", toml), ("app.js", code), ("event.json", "{\"a\": 41}")]);
    let event = format!("--event={}", folder.path().join("event.json").display());
    let dev = Dev::start(&davit, folder.path(), &["--debug=0", "--debug-wait", &event]);
    let debugger = dev.debugger("adder").await;
    dev.says("davit: the call waits for a debugger").await;

    let list = davit.http.get(format!("http://{debugger}/json/list")).send().await.unwrap();
    let list: Value = serde_json::from_str(&list.text().await.unwrap()).unwrap();
    let socket = list[0]["webSocketDebuggerUrl"].as_str().unwrap();
    assert!(socket.starts_with(&format!("ws://{debugger}/")), "it leads to the same port: {socket}");

    let mut inspect = Inspect::attach(&debugger);
    inspect.shows("debug> ").await;
    inspect.types("setBreakpoint('app.js', 3)");
    inspect.shows("debug> ").await;
    // The event's call began when the debugger was there, and may have gone by; this one stops.
    dev.says("{\"total\":42}").await;
    let answer = call_event(&davit, &dev.port());
    inspect.shows("break in app.js:3").await;
    inspect.types("exec('total')");
    inspect.shows("41").await;
    inspect.types("cont");
    assert_eq!(answer.await.unwrap(), "{\"total\":42}");

    std::fs::write(folder.path().join("app.js"), code.replace("+= 1", "+= 2")).unwrap();
    dev.says("✓ adder: version 2").await;
    dev.says("the debugger of adder is let go: there is another version").await;
    inspect.end().await;

    // The first call of the new code waits as well, and goes on with the next debugger at the same port.
    assert!(!dev.said().contains("{\"total\":43}"));
    let mut inspect = Inspect::attach(&debugger);
    dev.says("{\"total\":43}").await;
    inspect.shows("debug> ").await;
    inspect.types("exec('process.cwd()')");
    inspect.shows("/var/task").await;
    inspect.end().await;
    dev.end().await;
}

fn call_event(davit: &Davit, url: &str) -> tokio::task::JoinHandle<String> {
    let request = davit.http.post(format!("{url}/_davit/events/adder")).body("{\"a\": 41}").send();
    tokio::spawn(async move { request.await.unwrap().text().await.unwrap() })
}

#[tokio::test]
async fn what_cannot_be_debugged_is_said_before_anything_is_deployed() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let folder = tempfile::tempdir().unwrap();
    for (name, settings) in [
        ("a", "runtime = \"go\"\n"),
        ("b", "runtime = \"python3.13\"\nkind = \"server\"\ncommand = [\"python3\", \"app.py\"]\n"),
    ] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let text = format!("name = \"{name}\"\n{settings}");
        std::fs::write(folder.path().join(name).join("davit.toml"), text).unwrap();
    }
    let path = folder.path().to_str().unwrap();
    for (more, says) in [
        (&[][..], "say which with --debug-function; there is: a, b"),
        (&["--debug-function", "c"], "there is no function c here"),
        (&["--debug-function", "a"], "go has no debugger here; python3.13 and node20 have one"),
        (&["--debug-function", "b"], "is for handlers"),
    ] {
        let mut words = vec!["dev", path, "--debug"];
        words.extend(more);
        let refused = cli.attempt(&words).await;
        assert!(refused.code == 2 && refused.stderr.contains(says), "{words:?}: {refused:?}");
        assert!(!refused.stderr.contains("version 1"), "{refused:?}");
    }
    let alone = cli.attempt(&["dev", path, "--debug-wait"]).await;
    assert!(alone.code == 2 && alone.stderr.contains("--debug"), "{alone:?}");
}
