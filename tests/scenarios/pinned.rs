//! A version runs in the image that its runtime had when it was built, until somebody moves the function on: on an engine of
//! the story's own, since it gives the runtime other images.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use davit_e2e::{Cli, Davit, Engine, eventually, eventually_within};
use serde_json::{Value, json};

const RUNTIME: &str = "davit/runtime-python3.13:latest";
/// What the story's images are made from, so that none is made from another.
const BASE: &str = "story/base";
/// Which image it runs in, by a file that only images of this story have. In the bad one half of the calls fail, which no
/// first start shows.
const HANDLER: &str = "
import os, random
def handler(event, context):
    image = open('/etc/mark').read().strip() if os.path.exists('/etc/mark') else 'first'
    if image == 'bad' and random.random() < 0.5:
        raise ValueError('an image that does not do')
    return image
";

struct Story {
    cli: Cli,
    davit: Davit,
    /// Last, since davit stops before its engine does.
    engine: Engine,
}

impl Story {
    async fn new() -> Option<Self> {
        let engine = Engine::start_with(&[RUNTIME]).await?;
        let host = engine.host();
        // Without its way to iptables it leaves the firewall of this machine alone, where the engine's bridge is not.
        let settings = [("DOCKER_HOST", host.as_str()), ("PATH", "/usr/bin:/bin"), ("DAVIT_POOL_BASE", "1")];
        let davit = Davit::up_with(&settings).await;
        let cli = davit.cli();
        let tagged = engine.docker().args(["tag", RUNTIME, BASE]).status().expect("the docker client runs");
        assert!(tagged.success());
        Some(Self { cli, davit, engine })
    }

    async fn deploy(&self, function: &str) -> Value {
        let options = "access = \"public\"\npayload = \"body\"\nnetwork = \"none\"\nmax_instances = 1";
        self.cli.deploy_python(function, options, HANDLER).await;
        self.live(function).await
    }

    async fn live(&self, function: &str) -> Value {
        self.cli.json(&["describe", function]).await["live"].clone()
    }

    fn engine_says(&self, args: &[&str]) -> String {
        let output = self.engine.docker().args(args).output().expect("the docker client runs");
        assert!(output.status.success(), "docker {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Gives the runtime's name to an image that differs from the one before by its mark, as `make images` would.
    async fn another_image(&self, mark: &str) -> String {
        let mut build = self.engine.docker();
        build
            .args(["build", "--quiet", "--network", "none", "--tag", RUNTIME, "-"])
            .env("DOCKER_BUILDKIT", "0");
        let mut build =
            build.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("docker build runs");
        let dockerfile = format!("FROM {BASE}\nUSER root\nRUN echo {mark} > /etc/mark\n");
        build.stdin.take().expect("its input").write_all(dockerfile.as_bytes()).unwrap();
        assert!(build.wait_with_output().expect("docker build ends").status.success());
        let id = self.engine_says(&["image", "inspect", "--format", "{{.Id}}", RUNTIME]);
        eventually("davit to see it", async || {
            let all = self.cli.json(&["runtimes", "list"]).await;
            let seen = all.as_array().unwrap().iter().any(|runtime| runtime["image_id"] == id.as_str());
            if seen { Ok(()) } else { Err(all) }
        })
        .await;
        id
    }

    async fn asked(&self, function: &str) -> Value {
        self.cli.json(&["invoke", function, "{}"]).await
    }

    /// The same, of an instance that is started from now on: all that there are end.
    async fn asked_anew(&self, function: &str) -> Value {
        let all = self.engine_says(&["ps", "-aq"]);
        let _ = self.engine.docker().args(["rm", "--force"]).args(all.lines()).output();
        eventually("an answer", async || {
            let answer = self.cli.attempt(&["invoke", function, "{}"]).await;
            if answer.code == 0 { Ok(serde_json::from_str(&answer.stdout).unwrap()) } else { Err(answer) }
        })
        .await
    }

    async fn counts(&self) -> (Value, Value) {
        let all = self.cli.json(&["runtimes", "list"]).await;
        let ours = all.as_array().unwrap().iter().find(|r| r["runtime"] == "python3.13").cloned().unwrap();
        (ours["current"].clone(), ours["behind"].clone())
    }

    /// Calls the function until its canary has ended.
    async fn canary(&self, function: &str) -> Value {
        eventually_within(Duration::from_secs(120), "the canary to end", async || {
            let _ =
                self.davit.http.post(self.davit.url(&format!("/default/{function}"))).body("{}").send().await;
            let canary = self.cli.json(&["canary", "status", function]).await[0].clone();
            if canary["state"] == "running" { Err(canary) } else { Ok(canary) }
        })
        .await
    }
}

#[tokio::test]
async fn a_newer_image_is_taken_when_somebody_says_so_and_given_back_when_it_is_bad() {
    let Some(story) = Story::new().await else {
        eprintln!("skipped: an engine of its own needs root");
        return;
    };
    let cli = &story.cli;
    let first = story.deploy("old").await;
    let first_image = first["image_id"].as_str().unwrap().to_owned();
    assert_eq!(story.asked("old").await, "first");
    assert_eq!(story.counts().await, (json!(1), json!(0)));

    let second_image = story.another_image("second").await;
    assert_ne!(second_image, first_image);
    assert_eq!(story.counts().await, (json!(0), json!(1)));
    assert_eq!(
        story.asked_anew("old").await,
        "first",
        "in the image that it was built for, with the agent of now"
    );
    assert_eq!(story.deploy("new").await["image_id"], second_image.as_str());
    assert_eq!(story.asked("new").await, "second");
    assert_eq!(story.deploy("old").await["number"], 1, "the same content is the same version");

    let behind = cli.json(&["runtimes", "upgrade", "--dry-run"]).await;
    assert_eq!(
        behind,
        json!([{"name": "old", "version": 1, "runtime": "python3.13", "image_id": first_image}])
    );
    let asked = cli.attempt(&["runtimes", "upgrade"]).await;
    assert!(asked.code != 0 && asked.stderr.contains("--yes"), "{asked:?}");
    let steps = ["--canary", "50", "--interval", "1s", "--min-calls", "5", "--max-errors", "10%"];
    cli.run(&[&["runtimes", "upgrade", "old"], &steps[..]].concat()).await;
    let ended = story.canary("old").await;
    assert_eq!((&ended["state"], &ended["version"]), (&json!("promoted"), &json!(2)), "{ended}");
    assert_eq!(story.asked("old").await, "second");
    let (live, was) = (story.live("old").await, &first);
    assert_eq!((&live["spec"], &live["source"]), (&was["spec"], &was["source"]));
    let difference = cli.run(&["diff", "old", "1", "2"]).await.stdout;
    assert!(difference.contains("image_id"), "{difference}");
    let again = cli.run(&["runtimes", "upgrade", "--yes"]).await.stderr;
    assert!(again.contains("every function runs in its runtime's newest image"), "{again}");
    cli.run(&["rollback", "old"]).await;
    assert_eq!(story.asked("old").await, "first", "going back is going back");

    story.another_image("bad").await;
    cli.run(&[&["runtimes", "upgrade", "new"], &steps[..]].concat()).await;
    let ended = story.canary("new").await;
    assert_eq!((&ended["state"], &ended["version"]), (&json!("rolled_back"), &json!(2)), "{ended}");
    // The engine's own clean-up does not take away what a version runs in.
    story.engine_says(&["image", "prune", "--force"]);
    assert_eq!(story.asked_anew("new").await, "second");

    // Somebody takes it away all the same: calls are answered by the image that has the name.
    story.another_image("third").await;
    let names = story.engine_says(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "--no-trunc"]);
    let kept = names.lines().find_map(|line| line.strip_suffix(&format!(" {second_image}"))).unwrap();
    eventually_within(Duration::from_secs(60), "the image to be removed", async || {
        let containers = story.engine_says(&["ps", "-aq", "--filter", &format!("ancestor={second_image}")]);
        let _ = story.engine.docker().args(["rm", "--force"]).args(containers.lines()).output();
        for name in [kept, &second_image] {
            let _ = story.engine.docker().args(["rmi", "--force", name]).output();
        }
        let left = story.engine.docker().args(["image", "inspect", &second_image]).output().unwrap();
        if left.status.success() { Err(String::from_utf8_lossy(&left.stdout).into_owned()) } else { Ok(()) }
    })
    .await;
    assert_eq!(story.asked_anew("new").await, "third");
}
