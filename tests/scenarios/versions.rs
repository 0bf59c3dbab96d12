//! Aliases, shifts of traffic, and canaries, as users see them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use davit_e2e::{Cli, Davit, Output, Roles, eventually, eventually_within, python_folder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const PUBLIC: &str = "access = \"public\"\npayload = \"body\"\nmax_instances = 4\n";

/// So many calls in a row by one of two versions with equal weights happen once in a million times.
const ENOUGH: usize = 20;

/// Says which version it is; the word makes its content differ.
fn code(word: &str) -> String {
    format!("# {word}\ndef handler(event, context):\n    return {{'version': context.function_version}}\n")
}

/// Deploys with more options, and gives what was printed.
async fn deploy(cli: &Cli, name: &str, code: &str, options: &[&str]) -> Output {
    let folder = python_folder(name, PUBLIC, code);
    let args: Vec<&str> = ["deploy"].iter().chain(options).copied().collect();
    let output = cli.try_in(folder.path(), &args).await;
    assert_eq!(output.code, 0, "davit {args:?}: {output:?}");
    output
}

/// One answer: where and when it was asked for, when it came, its status, and which version it came from.
#[derive(Debug, Clone)]
struct Seen {
    url: String,
    asked: Instant,
    answered: Instant,
    status: u16,
    version: Option<u32>,
    text: String,
}

/// Callers that go on until they are stopped.
struct Callers {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Callers {
    fn start(http: &reqwest::Client, urls: &[String], pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let caller = |url: &String| {
            let (http, url, stop, seen) = (http.clone(), url.clone(), stop.clone(), seen.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = call(&http, &url, &[]).await;
                    seen.lock().unwrap().push(answer);
                    tokio::time::sleep(pause).await;
                }
            })
        };
        let tasks = urls.iter().map(caller).collect();
        Self { stop, seen, tasks }
    }

    /// Until the last [`ENOUGH`] of the calls asked at `url` after `since` were answered by these versions, by each of
    /// them and by no other.
    async fn served_by(&self, url: &str, versions: &[u32], since: Instant) {
        eventually(&format!("{versions:?} to serve the calls at {url}"), async || {
            let seen = self.seen.lock().unwrap();
            let here = seen.iter().filter(|s| s.url == url && s.asked > since);
            let last: Vec<Option<u32>> = here.map(|s| s.version).collect();
            let last = &last[last.len().saturating_sub(ENOUGH)..];
            let each = versions.iter().all(|v| last.contains(&Some(*v)));
            let only = last.iter().all(|v| v.is_some_and(|v| versions.contains(&v)));
            if last.len() == ENOUGH && each && only { Ok(()) } else { Err(last.to_vec()) }
        })
        .await;
    }

    async fn stop(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a caller ends");
        }
        let mut all = std::mem::take(&mut *self.seen.lock().unwrap());
        all.sort_by_key(|seen| seen.asked);
        all
    }
}

async fn call(http: &reqwest::Client, url: &str, headers: &[(&str, &str)]) -> Seen {
    let asked = Instant::now();
    let mut request = http.post(url).body("{}").timeout(Duration::from_secs(60));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (status, text) = match request.send().await {
        Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
        Err(error) => (0, format!("{error:?}")),
    };
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let version = body["version"].as_str().and_then(|v| v.parse().ok());
    Seen { url: url.to_owned(), asked, answered: Instant::now(), status, version, text }
}

fn all_answered(seen: &[Seen]) {
    let bad: Vec<_> = seen.iter().filter(|s| s.status != 200 || s.version.is_none()).collect();
    let bad: Vec<_> = bad.into_iter().map(|s| (s.status, &s.text)).collect();
    assert!(bad.is_empty() && !seen.is_empty(), "of {} calls these failed: {bad:?}", seen.len());
}

#[tokio::test]
async fn a_shift_reaches_every_gateway_at_once_and_fails_no_call() {
    let roles = Roles::start(2).await;
    let cli = roles.cli();
    deploy(&cli, "shift", &code("one"), &[]).await;
    deploy(&cli, "shift", &code("two"), &["--no-live"]).await;
    let gateways = [0, 1].map(|gateway| format!("{}/default/shift", roles.api(gateway).gateway));
    for url in &gateways {
        eventually("an answer from each gateway", async || {
            let seen = call(&roles.http, url, &[]).await;
            if seen.status == 200 { Ok(()) } else { Err(seen) }
        })
        .await;
    }
    let callers =
        Callers::start(&roles.http, &[&gateways[..], &gateways].concat(), Duration::from_millis(10));
    let shift = async |versions: &[(u32, u32)]| {
        let versions: Vec<Value> =
            versions.iter().map(|(version, weight)| json!({"version": version, "weight": weight})).collect();
        let api = roles.api(0);
        let path = "/v1/namespaces/default/functions/shift/aliases/live";
        let request = roles.http.put(format!("{}{path}", api.management));
        let body = json!({"versions": versions}).to_string();
        let from = Instant::now();
        let set = api.send(request.header("content-type", "application/json").body(body)).await;
        assert_eq!(set.status, 200, "{set:?}");
        from
    };
    let over = shift(&[(2, 100)]).await;
    for url in &gateways {
        callers.served_by(url, &[2], over).await;
    }
    let part = shift(&[(1, 50), (2, 50)]).await;
    for url in &gateways {
        callers.served_by(url, &[1, 2], part).await;
    }
    let back = shift(&[(1, 100)]).await;
    for url in &gateways {
        callers.served_by(url, &[1], back).await;
    }
    let seen = callers.stop().await;
    all_answered(&seen);
    // Each gateway changes over once: after the first answer of the new version no call goes to the old one.
    for url in &gateways {
        let here: Vec<&Seen> = seen.iter().filter(|s| s.url == *url && s.answered < part).collect();
        let first = here.iter().filter(|s| s.version == Some(2)).map(|s| s.answered).min();
        let first = first.expect("version 2 served");
        let strays: Vec<_> = here.iter().filter(|s| s.asked > first && s.version != Some(2)).collect();
        assert!(strays.is_empty(), "after {url} had changed over these went to the old version: {strays:?}");
    }
}

#[tokio::test]
async fn a_canary_goes_on_with_a_good_version_and_back_from_a_bad_one() {
    let mut davit = Davit::up().await;
    let cli = davit.cli();
    deploy(&cli, "careful", &code("one"), &[]).await;
    let steps = ["--canary", "20,60", "--interval", "3s", "--min-calls", "15", "--max-errors", "10%"];
    let first = deploy(&cli, "careful", &code("two"), &steps).await;
    assert!(first.stderr.contains("version 2 gets 20%"), "{first:?}");
    // A controller that dies in the middle of it loses nothing.
    davit.kill();
    davit.start().await;
    let cli = davit.cli();
    let urls = vec![davit.url("/default/careful"); 3];
    let callers = Callers::start(&davit.http, &urls, Duration::from_millis(5));
    let last = async |cli: &Cli| cli.json(&["canary", "status", "careful"]).await[0].clone();
    let ended = eventually_within(Duration::from_secs(120), "the good version to be live", async || {
        let canary = last(&cli).await;
        if canary["state"] == "running" { Err(canary) } else { Ok(canary) }
    })
    .await;
    assert_eq!(
        (&ended["state"], &ended["version"], &ended["step"]),
        (&json!("promoted"), &json!(2), &json!(2))
    );
    assert!(ended["reason"].as_str().unwrap().contains("calls failed (0.00%), at most 10% may"), "{ended}");
    let live = cli.json(&["alias", "describe", "careful", "live"]).await;
    assert_eq!(live["versions"], json!([{"version": 2, "weight": 100}]));
    let seen = callers.stop().await;
    all_answered(&seen);

    // Of the bad one's calls half fail, which its first start does not show.
    let bad = "import random\ndef handler(event, context):\n    if random.random() < 0.5:\n        raise ValueError('bad luck')\n    return {'version': context.function_version}\n";
    deploy(&cli, "careful", bad, &steps).await;
    let callers = Callers::start(&davit.http, &urls, Duration::from_millis(5));
    let ended = eventually_within(Duration::from_secs(120), "the bad version to go back", async || {
        let canary = last(&cli).await;
        if canary["state"] == "running" { Err(canary) } else { Ok(canary) }
    })
    .await;
    assert_eq!(
        (&ended["state"], &ended["version"], &ended["step"]),
        (&json!("rolled_back"), &json!(3), &json!(1))
    );
    let reason = ended["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("calls failed") && reason.contains("at most 10% may"), "{reason}");
    assert!(ended["new"]["errors"].as_u64().unwrap() > 0 && ended["new"]["calls"].as_u64().unwrap() >= 15);
    let back = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let seen = callers.stop().await;
    let late: Vec<&Seen> = seen.iter().filter(|s| s.asked > back + Duration::from_secs(1)).collect();
    assert!(!late.is_empty() && late.iter().all(|s| s.version == Some(2)), "{late:?}");
    for shown in
        [cli.run(&["describe", "careful"]).await.stdout, cli.run(&["versions", "careful"]).await.stderr]
    {
        assert!(
            shown.contains("version 3 was rolled back to 2 in step 1") && shown.contains("calls failed"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn versions_are_named_pinned_previewed_and_compared() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    deploy(&cli, "names", &code("one"), &["--description", "the first"]).await;
    let beta = deploy(&cli, "names", &code("two"), &["--alias", "beta"]).await;
    assert!(beta.stderr.contains("names@beta is version 2"), "{beta:?}");
    deploy(&cli, "names", &code("three"), &["--no-live"]).await;
    let again = deploy(&cli, "names", &code("two"), &["--alias", "beta"]).await;
    assert!(again.stderr.contains("version 2 has this content and configuration already"), "{again:?}");
    let listed = cli.json(&["versions", "names"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    assert_eq!(listed[2]["description"], "the first");

    // Any ready version may be called by who has a token.
    for (which, version) in [("names", "1"), ("names:2", "2"), ("names@beta", "2"), ("names:3", "3")] {
        assert_eq!(cli.invoke(which, "{}").await.json(), json!({"version": version}), "{which}");
    }
    let gone = cli.attempt(&["invoke", "names:9", "{}"]).await;
    assert_eq!(gone.code, 5, "{gone:?}");
    let preview = davit.url("/default/names@beta");
    assert_eq!(call(&davit.http, &preview, &[]).await.status, 401);
    let token = format!("Bearer {}", davit.token());
    let auth = ("authorization", token.as_str());
    assert_eq!(call(&davit.http, &preview, &[auth]).await.version, Some(2));
    let url = davit.url("/default/names");
    assert_eq!(call(&davit.http, &url, &[("x-davit-version", "3")]).await.status, 401);
    assert_eq!(call(&davit.http, &url, &[("x-davit-version", "3"), auth]).await.version, Some(3));
    cli.run(&["alias", "set", "names", "beta", "2", "--public"]).await;
    eventually("the preview to be open", async || {
        let seen = call(&davit.http, &preview, &[]).await;
        if seen.version == Some(2) { Ok(()) } else { Err(seen) }
    })
    .await;

    // What waits in the queue keeps its wish.
    let id = cli.run(&["invoke", "names@beta", "{}", "--async"]).await.stdout.trim().to_owned();
    let done = davit.api().succeeded(&id).await;
    assert!(done["result"].as_str().unwrap().contains("\"2\""), "{done}");

    // The same user gets the same version, and not everybody the same.
    cli.run(&["alias", "set", "names", "live", "1=50", "3=50", "--sticky", "header:x-user"]).await;
    eventually("both versions to answer", async || {
        let mut versions = Vec::new();
        for user in 0..12 {
            let user = user.to_string();
            let first = call(&davit.http, &url, &[("x-user", &user)]).await.version;
            let second = call(&davit.http, &url, &[("x-user", &user)]).await.version;
            versions.push((first, second));
        }
        let steady = versions.iter().all(|(first, second)| first == second);
        let both = [1, 3].iter().all(|v| versions.iter().any(|(first, _)| *first == Some(*v)));
        if steady && both { Ok(()) } else { Err(versions) }
    })
    .await;

    let diff = cli.run(&["diff", "names", "v1", "v3", "--files"]).await.stdout;
    assert!(diff.contains("~ app.py") && diff.contains("-# one") && diff.contains("+# three"), "{diff}");

    for (wrong, code, says) in [
        (&["alias", "set", "names", "live", "1=50", "3=40"][..], 1, "versions: the weights are 90 together"),
        (&["alias", "set", "names", "x", "9"], 5, "versions[0].version: there is no version 9"),
        (&["alias", "set", "names", "v7", "1"], 1, "alias: v7"),
        (&["alias", "delete", "names", "live", "--yes"], 1, "alias: live cannot be removed"),
        (&["versions", "delete", "names", "2", "--yes"], 1, "version 2 is in use"),
        (&["promote", "names", "live"], 1, "several versions"),
        (&["canary", "abort", "names"], 1, "canary: none is running"),
        (&["deploy", "--canary", "50,5"], 1, "rollout.canary.steps: they rise"),
    ] {
        let folder = python_folder("names", PUBLIC, &self::code("three"));
        let output = cli.try_in(folder.path(), wrong).await;
        assert_eq!(output.code, code, "{wrong:?}: {output:?}");
        assert!(output.stderr.contains(says), "{wrong:?}: {output:?}");
    }
    let live = cli.json(&["alias", "describe", "names", "live"]).await;
    assert_eq!(live["versions"], json!([{"version": 1, "weight": 50}, {"version": 3, "weight": 50}]));
    let before = Instant::now();
    cli.run(&["rollback", "names"]).await;
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    cli.run(&["alias", "delete", "names", "beta", "--yes"]).await;
    eventually("version 2 to have no instance", async || {
        let output = cli.attempt(&["versions", "delete", "names", "2", "--yes"]).await;
        if output.code == 0 { Ok(()) } else { Err(output) }
    })
    .await;
}
