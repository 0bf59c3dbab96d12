//! What a function's code can and cannot do and see, shared and not, in real containers. Sharing needs root; without
//! it, and with `DAVIT_TEST_MOUNTS=required`, these fail.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use davit_link::{InitDone, InitRequest, Kind, Link, LinkEvent};

use super::*;
use crate::probe;

/// Prints what it finds, then serves nothing.
const BOOTSTRAP: &str = r#"#!/bin/sh
say() { printf '%s\n' "$1: $(eval "$2" 2>&1 | tr '\n' ' ')"; }
say code 'cat /var/task/which'
say write 'echo changed > /var/task/which'
say new 'echo new > /var/task/new'
say chmod 'chmod 4777 /var/task/which'
say remove 'rm -f /var/task/which'
say link 'ln -s /etc /var/task/etc'
say mount 'mount -o remount,rw /var/task'
say unmount 'umount /var/task'
say writable 'find /var/task -writable'
say setuid 'find /var/task -perm /6000'
say owners 'find /var/task ! -user 0'
say mounts 'grep -o "/bundles/[^ ]*" /proc/self/mountinfo'
say found 'find / -name "secret-*" -not -path "/proc/*" 2>/dev/null'
say place 'pwd'
curl -s http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next
"#;

/// One container that ran [`BOOTSTRAP`].
struct Ran {
    container: ContainerId,
    instance: InstanceId,
    done: InitDone,
    lines: Vec<String>,
    _link: Link,
}

impl Ran {
    /// What was printed behind `name`.
    fn said(&self, name: &str) -> &str {
        let found = self.lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.lines)).trim()
    }
}

fn bundle(secret: &str) -> (std::fs::File, u64, Digest) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in [("bootstrap", BOOTSTRAP), ("which", secret), (&*format!("lib/secret-{secret}"), "")]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o6777);
        header.set_cksum();
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let bytes = builder.into_inner().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    let digest = Digest::from_bytes(<sha2::Sha256 as sha2::Digest>::digest(&bytes).into());
    (file, bytes.len() as u64, digest)
}

fn init_request(bundle_size: u64, code_mounted: bool) -> InitRequest {
    let text = |word: &str| word.to_owned();
    InitRequest {
        function_name: text("f"),
        version: text("1"),
        namespace: text("n"),
        kind: Kind::Handler,
        handler: text("x"),
        command: Vec::new(),
        env: Default::default(),
        memory_mb: 64,
        timeout_seconds: 5,
        concurrency: 1,
        init_timeout_ms: 20_000,
        arn: text("arn:davit:lambda:local:n:function:f"),
        log_group: text("g"),
        log_stream: text("s"),
        bundle_digest: text(""),
        bundle_size,
        code_mounted,
        answers_asks: false,
        debugger: None,
    }
}

/// Starts a container and makes it a function with this secret in its code.
async fn run(stage: &Stage, secret: &str) -> Ran {
    let request = stage.request(PROVIDED, NetworkClass::None).await;
    let instance = request.instance;
    let container = stage.backend.start(request).await.unwrap();
    let soon = Instant::now() + Duration::from_secs(30);
    let place = probe::wait_ready(&stage.backend, instance, &container).await.unwrap();
    let (link, mut events) = Link::connect(&place, soon).await.unwrap();
    let (file, size, digest) = bundle(secret);
    let shared = stage.backend.share_code(instance, digest, file.try_clone().unwrap()).await.unwrap();
    let done = link.init(init_request(size, shared), file, soon).await.unwrap();
    let mut lines = Vec::new();
    while !lines.iter().any(|line: &String| line.starts_with("place")) {
        match tokio::time::timeout_at(soon.into(), events.recv()).await.unwrap() {
            Some(LinkEvent::Log(more)) => lines.extend(more.into_iter().map(|entry| entry.line)),
            other => panic!("{other:?} after {lines:?}"),
        }
    }
    Ran { container, instance, done, lines, _link: link }
}

/// Mounts of this host that lie in the state directory.
fn mounted(state: &Path) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(state)).map(str::to_owned).collect()
}

/// Whether this host can share; said aloud when not.
fn shares(stage: &Stage) -> bool {
    let shares = !mounted(stage.state.path()).is_empty();
    if !shares {
        assert_ne!(std::env::var("DAVIT_TEST_MOUNTS").as_deref(), Ok("required"), "code cannot be shared");
        eprintln!("skipped: code cannot be shared here");
    }
    shares
}

#[tokio::test]
async fn shared_code_is_read_only_and_ones_own() {
    let Some(stage) = stage(PROVIDED).await else { return };
    if shares(&stage) {
        let (one, two) = (run(&stage, "one").await, run(&stage, "two").await);
        for (ran, secret) in [(&one, "one"), (&two, "two")] {
            assert!(ran.done.code_mounted, "{:?}", ran.done);
            assert_eq!((ran.said("code"), ran.said("place")), (secret, "/var/task"));
            for attempt in ["write", "new", "chmod", "link"] {
                assert!(ran.said(attempt).contains("Read-only file system"), "{attempt}: {:?}", ran.lines);
            }
            assert_eq!(ran.said("found"), format!("/var/task/lib/secret-{secret}"));
            assert_eq!((ran.said("writable"), ran.said("setuid"), ran.said("owners")), ("", "", ""));
            assert_eq!(ran.said("mounts"), format!("/bundles/{}", bundle(secret).2.hex()));
        }
        let tree = stage.state.path().join("bundles").join(bundle("one").2.hex());
        stage.backend.stop(&one.container, Some(one.instance)).await.unwrap();
        assert!(mounted(stage.state.path()).iter().all(|at| !at.contains(&one.instance.to_string())));
        assert_eq!(std::fs::read_to_string(tree.join("which")).unwrap(), "one", "only the mount is removed");
    }
    let state = stage.state.path().to_owned();
    stage.leave_nothing().await;
    assert_eq!(mounted(&state), [""; 0]);
}

#[tokio::test]
async fn without_sharing_each_instance_unpacks_its_own() {
    let Some(stage) = stage_with(PROVIDED, false).await else { return };
    let ran = run(&stage, "one").await;
    assert!(!ran.done.code_mounted && mounted(stage.state.path()).is_empty());
    assert_eq!((ran.said("code"), ran.said("setuid"), ran.said("mounts")), ("one", "", ""));
    stage.leave_nothing().await;
}

#[tokio::test]
async fn a_place_for_shared_code_is_good_for_unpacking_too() {
    let Some(stage) = stage(PROVIDED).await else { return };
    if shares(&stage) {
        // No tree can be made: as with a full disk.
        let bundles = stage.state.path().join("bundles");
        let (_, _, digest) = bundle("one");
        std::fs::write(bundles.join(digest.hex()), "in the way").unwrap();
        let ran = run(&stage, "one").await;
        assert!(!ran.done.code_mounted);
        assert_eq!((ran.said("code"), ran.said("setuid"), ran.said("mounts")), ("one", "", ""));
    }
    stage.leave_nothing().await;
}

#[tokio::test]
async fn an_engine_that_sees_other_mounts_gets_containers_without() {
    let Some(stage) = stage(PROVIDED).await else { return };
    if shares(&stage) {
        let tasks = stage.state.path().join("tasks");
        let made = Command::new("mount").arg("--make-private").arg(&tasks).status().unwrap();
        assert!(made.success());
        let ran = run(&stage, "one").await;
        assert!(!ran.done.code_mounted);
        assert_eq!(ran.said("code"), "one");
        assert_eq!(mounted(stage.state.path()).len(), 2, "no mount point of the container is left");
    }
    let state = stage.state.path().to_owned();
    stage.leave_nothing().await;
    let _ = Command::new("umount").args(["-l"]).arg(state.join("tasks")).status();
    assert_eq!(mounted(&state), [""; 0]);
}
