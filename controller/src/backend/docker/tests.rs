//! Against a real engine. Without one they say so and pass, unless `DAVIT_TEST_DOCKER=required`.

mod code;

use std::time::Duration;

use davit_api::{NetworkClass, PoolKey};

use super::super::BuildLimits;
use super::*;

const PROVIDED: &str = "davit/runtime-provided:latest";

struct Stage {
    backend: DockerBackend,
    state: tempfile::TempDir,
}

async fn stage(image: &str) -> Option<Stage> {
    stage_with(image, true).await
}

async fn stage_with(image: &str, share_code: bool) -> Option<Stage> {
    let state = tempfile::tempdir().unwrap();
    let settings = DockerSettings {
        state_dir: state.path().to_owned(),
        installation: InstallationId::new(),
        share_code,
    };
    let ready = match DockerBackend::connect(settings).await {
        Ok(backend) => backend.resolve(image).await.map(|_| backend),
        Err(error) => Err(error),
    };
    match ready {
        Ok(backend) => Some(Stage { backend, state }),
        Err(error) => {
            assert_ne!(std::env::var("DAVIT_TEST_DOCKER").as_deref(), Ok("required"), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

impl Stage {
    async fn request(&self, image: &str, network: NetworkClass) -> StartRequest {
        let key = PoolKey { image: image.into(), memory_mb: 64, cpu_millis: 200, ephemeral_mb: 16, network };
        let image = self.backend.resolve(image).await.unwrap();
        StartRequest { instance: InstanceId::new(), role: Role::Instance, image, key }
    }

    async fn leave_nothing(self) {
        self.backend.uninstall().await.unwrap();
        assert_eq!(self.backend.observe().await.unwrap(), []);
        assert_eq!(self.backend.leftover_dirs(Duration::ZERO).unwrap(), []);
        let network = self.backend.docker.inspect_network(self.backend.network.name(), None).await;
        assert!(network.is_err());
    }
}

#[tokio::test]
async fn a_container_is_started_seen_and_removed() {
    let Some(stage) = stage(PROVIDED).await else { return };
    let request = stage.request(PROVIDED, NetworkClass::Egress).await;
    let id = stage.backend.start(request.clone()).await.unwrap();
    let seen = stage.backend.observe().await.unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].instance, seen[0].role), (Some(request.instance), Some(Role::Instance)));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while stage.backend.ready(request.instance, &id).await.unwrap().is_none() {
        let life = stage.backend.life(&id).await.unwrap();
        let words = stage.backend.last_words(&id).await.unwrap();
        assert_eq!(life, Life::Running, "the agent ended: {words:?}");
        assert!(tokio::time::Instant::now() < deadline, "no socket: {words:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.backend.stop(&id, Some(request.instance)).await.unwrap();
    stage.backend.stop(&id, Some(request.instance)).await.unwrap();
    assert_eq!(stage.backend.life(&id).await.unwrap(), Life::Gone);
    stage.leave_nothing().await;
}

#[tokio::test]
async fn an_image_that_is_not_here_is_named() {
    let Some(stage) = stage(PROVIDED).await else { return };
    let missing = "davit/runtime-missing:latest";
    assert_eq!(stage.backend.resolve(missing).await, Err(BackendError::NoImage(missing.into())));
    let mut request = stage.request(PROVIDED, NetworkClass::None).await;
    request.image = ImageId(format!("sha256:{}", "0".repeat(64)));
    assert!(matches!(stage.backend.start(request).await, Err(BackendError::NoImage(_))));
    assert_eq!(stage.backend.leftover_dirs(Duration::ZERO), Ok(Vec::new()));
    stage.leave_nothing().await;
}

#[tokio::test]
async fn a_build_gets_the_sources_and_gives_a_bundle() {
    let Some(stage) = stage(PROVIDED).await else { return };
    let dir = stage.state.path();
    let mut sources = tar::Builder::new(std::fs::File::create(dir.join("source.tar")).unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_size(10);
    header.set_mode(0o755);
    header.set_cksum();
    sources.append_data(&mut header, "bootstrap", &b"#!/bin/sh\n"[..]).unwrap();
    sources.finish().unwrap();
    let (log, mut lines) = mpsc::channel(1_000);
    let request = BuildRequest {
        id: InstanceId::new(),
        image: stage.backend.resolve(PROVIDED).await.unwrap(),
        source: dir.join("source.tar"),
        deps: None,
        ca_bundle: Some(b"none".to_vec()),
        env: Vec::new(),
        network: NetworkClass::None,
        bundle_out: dir.join("bundle.tar"),
        deps_out: dir.join("deps.tar"),
        limits: BuildLimits {
            memory_mb: 256,
            cpu_millis: 1_000,
            wall: Duration::from_secs(60),
            bundle_bytes: 1 << 20,
            deps_bytes: 1 << 20,
        },
    };
    let outcome = stage.backend.build(request, log).await;
    let mut printed = Vec::new();
    while let Ok(line) = lines.try_recv() {
        printed.push(line);
    }
    let outcome = outcome.unwrap_or_else(|e| panic!("{e}: {printed:?}"));
    assert_eq!((outcome.exit_code, outcome.out_of_memory), (0, false), "{printed:?}");
    let mut bundle = tar::Archive::new(std::fs::File::open(dir.join("bundle.tar")).unwrap());
    let names: Vec<_> =
        bundle.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert!(names.iter().any(|n| n.trim_start_matches("./") == "bootstrap"), "{names:?}");
    stage.leave_nothing().await;
}
