//! `davit dev` as somebody uses it who works on a function: a change is live in a moment, logs are shown, and nothing is left at the end.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use davit_e2e::{Davit, eventually, examples};

/// A `davit dev` that runs, and what it has said.
pub(crate) struct Dev {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Dev {
    pub(crate) fn start(davit: &Davit, folder: &Path, options: &[&str]) -> Self {
        let mut command = Command::new(davit.cli().binary());
        command
            .arg("dev")
            .arg(folder)
            .args(["--port", "0"])
            .args(options)
            .env("DAVIT_STATE_DIR", davit.state());
        command.env_remove("DAVIT_URL").env_remove("DAVIT_TOKEN").env_remove("DAVIT_NAMESPACE");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        fn listen(from: impl std::io::Read + Send + 'static, said: Arc<Mutex<String>>) {
            std::thread::spawn(move || {
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    let mut said = said.lock().unwrap();
                    said.push_str(&line);
                    said.push('\n');
                }
            });
        }
        listen(child.stdout.take().unwrap(), said.clone());
        listen(child.stderr.take().unwrap(), said.clone());
        Self { child, said }
    }

    pub(crate) async fn says(&self, what: &str) {
        eventually(&format!("davit dev to say {what:?}"), async || {
            let said = self.said.lock().unwrap().clone();
            if said.contains(what) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    pub(crate) fn port(&self) -> String {
        let said = self.said.lock().unwrap();
        let (_, rest) = said.split_once("listening on ").unwrap();
        rest.split(';').next().unwrap().to_owned()
    }

    /// Everything it has said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Where a debugger of the function attaches.
    pub(crate) async fn debugger(&self, function: &str) -> String {
        let before = format!("{function}: attach a debugger at ");
        self.says(&before).await;
        let said = self.said();
        said.split_once(&before).unwrap().1.lines().next().unwrap().to_owned()
    }

    pub(crate) async fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = async {
            loop {
                if let Some(code) = self.child.try_wait().unwrap() {
                    return code;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let code = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("davit dev ends");
        assert!(code.success(), "{code}: {}", self.said.lock().unwrap());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_change_is_live_in_a_moment_and_nothing_is_left_behind() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    // The real one, which must not notice.
    cli.deploy_example("shop/orders").await;
    let shop = tempfile::tempdir().unwrap();
    let shop = shop.path();
    for name in ["orders/davit.toml", "orders/orders.py", "receipts/davit.toml", "receipts/receipts.py"] {
        std::fs::create_dir_all(shop.join(name).parent().unwrap()).unwrap();
        std::fs::copy(examples().join("shop").join(name), shop.join(name)).unwrap();
    }

    let dev = Dev::start(&davit, shop, &[]);
    dev.says("✓ shop-orders: version 1").await;
    dev.says("receipts/davit.toml, line 7: the secret receipt-key is not set in namespace dev").await;
    dev.says("listening on ").await;
    let port = dev.port();

    // The value is written while it runs; so is a mistake, which does not take away what ran.
    std::fs::write(shop.join(".env"), "RECEIPT_KEY=\"quiet\"\n").unwrap();
    dev.says("✓ shop-receipts: version 1").await;
    let order = || davit.http.post(format!("{port}/shop/orders")).body(r#"{"total": 12}"#).send();
    assert_eq!(order().await.unwrap().status(), 201);
    dev.says("an order of 12").await;
    dev.says("POST /shop/orders → 201").await;
    let code = std::fs::read_to_string(shop.join("orders/orders.py")).unwrap();
    std::fs::write(shop.join("orders/orders.py"), code.replace("\"accepted\"", "\"seen\"")).unwrap();
    dev.says("✓ shop-orders: version 2").await;
    assert!(order().await.unwrap().text().await.unwrap().contains("seen"));
    let toml = std::fs::read_to_string(shop.join("orders/davit.toml")).unwrap();
    std::fs::write(shop.join("orders/davit.toml"), format!("memory = 1\n{toml}")).unwrap();
    dev.says("orders/davit.toml, line 1: memory: unknown key; did you mean memory_mb?").await;
    assert_eq!(order().await.unwrap().status(), 201);
    std::fs::write(shop.join("orders/davit.toml"), toml).unwrap();

    // The clock and a topic, by hand; a private function by an event.
    let post =
        |path: &str, body: &'static str| davit.http.post(format!("{port}/_davit/{path}")).body(body).send();
    assert_eq!(post("schedules/shop-orders/close-of-day", "").await.unwrap().status(), 202);
    dev.says("the day is closed at").await;
    assert_eq!(post("topics/shop-orders?type=order.created", r#"{"total": 7}"#).await.unwrap().status(), 202);
    dev.says("receipt ").await;
    let answer = post("events/shop-receipts", r#"{"data": 1}"#).await.unwrap().text().await.unwrap();
    assert!(answer.contains("receipt"), "{answer}");

    dev.end().await;
    assert!(cli.json(&["list", "-n", "dev"]).await.as_array().unwrap().is_empty());
    assert!(cli.json(&["secret", "list", "-n", "dev"]).await.as_array().unwrap().is_empty());
    assert!(cli.json(&["topic", "list", "-n", "dev"]).await.as_array().unwrap().is_empty());
    let real = cli.json(&["versions", "shop-orders"]).await;
    assert_eq!(real.as_array().unwrap().len(), 1, "no version of the real one was made");

    // One call through a folder, and what it was deployed for is gone.
    let local = format!("--local={}", shop.display());
    let once = cli.run(&["invoke", "shop-receipts", r#"{"data": 1}"#, &local]).await;
    assert!(once.stdout.contains("receipt"), "{once:?}");
    let lacking = cli.attempt(&["invoke", "nobody", "{}", &local]).await;
    assert!(
        lacking.code == 2 && lacking.stderr.contains("there is: shop-orders, shop-receipts"),
        "{lacking:?}"
    );
    assert!(cli.json(&["list", "-n", "dev"]).await.as_array().unwrap().is_empty());
}
