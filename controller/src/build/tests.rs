//! Against a real engine and the shipped images. Without one they say so and pass, unless
//! `DAVIT_TEST_DOCKER=required`.

use std::collections::BTreeMap;
use std::path::Path;

use davit_api::{Digest, FunctionKind, InstallationId, NetworkClass, VersionId, VersionSpec};
use davit_daemon::Settings;
use davit_registry::testing::TestDatabase;
use davit_registry::{Changes, MasterKey};

use super::log::BuildLog;
use super::run::{with_builder, without_builder};
use super::*;
use crate::backend::docker::{DockerBackend, DockerSettings};
use crate::backend::{Backend as _, ImageId};
use crate::source::{self, ArchiveLimits};
use crate::world::WorldSettings;

/// A file: its name, whether it may be executed, its content.
type File<'a> = (&'a str, bool, &'a [u8]);

struct Stage {
    world: Arc<World>,
    backend: Arc<DockerBackend>,
    image: ImageId,
    job: BuildJob,
    state: tempfile::TempDir,
    _database: TestDatabase,
}

impl Stage {
    async fn new(runtime: &str) -> Option<Self> {
        let state = tempfile::tempdir().unwrap();
        let installation = InstallationId::new();
        let settings = DockerSettings { state_dir: state.path().to_owned(), installation, share_code: true };
        let runtime: davit_api::RuntimeName = runtime.parse().unwrap();
        let ready = match DockerBackend::connect(settings).await {
            Ok(backend) => backend.resolve(&runtime.image()).await.map(|image| (backend, image)),
            Err(error) => Err(error),
        };
        let (backend, image) = match ready {
            Ok((backend, image)) => (Arc::new(backend), image),
            Err(error) => {
                assert_ne!(std::env::var("DAVIT_TEST_DOCKER").as_deref(), Ok("required"), "{error}");
                eprintln!("skipped: {error}");
                return None;
            }
        };
        let database = TestDatabase::new().await;
        let registry = database.registry().clone();
        let build = BuildSettings::read(&mut Settings::from_env());
        let settings = WorldSettings::for_host(state.path().to_owned(), Uuid::new_v4(), build);
        let changes = Changes::listen(&registry).await.unwrap();
        let key = Arc::new(MasterKey::from_bytes([7; 32]));
        let world = Arc::new(World::new(registry, changes, key, backend.clone(), settings));
        let mut spec = VersionSpec::new(runtime, FunctionKind::Handler);
        spec.network = NetworkClass::None;
        let job = BuildJob {
            version_id: VersionId::new(),
            namespace: "default".parse().unwrap(),
            function: "f".parse().unwrap(),
            number: 1,
            spec,
            source: Digest::from_bytes([0; 32]),
        };
        Some(Self { world, backend, image, job, state, _database: database })
    }

    /// Builds the files both ways: the bundle made here, if no builder is needed, and the builder's.
    async fn both(&self, files: &[File<'_>]) -> (Option<Vec<u8>>, Vec<u8>) {
        let dir = tempfile::tempdir_in(self.state.path()).unwrap();
        let source = clean(dir.path(), files);
        let recipe = self.world.recipes.of(&self.world, &self.image).await;
        assert!(
            recipe.is_some(),
            "the image has no label that says how it builds; scripts/images.sh makes it"
        );
        let class = (self.image.clone(), davit_api::PoolKey::of(&self.job.spec, &self.image.0));
        let (direct, built) = (dir.path().join("direct.tar"), dir.path().join("bundle.tar"));
        let (log, _lines) = BuildLog::start(self.world.registry.clone(), self.job.version_id);
        let without =
            without_builder(&self.world, &self.job, (recipe.as_ref(), &class), (&source, &direct), &log);
        let without = without.await.unwrap();
        with_builder(&self.world, &self.job, &self.image, (source, built.clone()), &log).await.unwrap();
        (without.then(|| std::fs::read(direct).unwrap()), std::fs::read(built).unwrap())
    }

    async fn leave_nothing(self) {
        let patience = tokio::time::Instant::now() + Duration::from_secs(20);
        while !self.world.errands.now().is_empty() {
            assert!(tokio::time::Instant::now() < patience, "a container is not removed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.backend.observe().await.unwrap(), []);
        self.backend.uninstall().await.unwrap();
    }
}

/// As an upload becomes a source: packed by a client, checked and cleaned by the controller.
fn clean(dir: &Path, files: &[File<'_>]) -> std::path::PathBuf {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (name, executable, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(if *executable { 0o775 } else { 0o664 });
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        tar.append_data(&mut header, name, *content).unwrap();
    }
    let packed = tar.into_inner().unwrap().finish().unwrap();
    let path = dir.join("source.tar");
    source::sanitise(packed.as_slice(), std::fs::File::create(&path).unwrap(), ArchiveLimits::default())
        .unwrap();
    path
}

/// What a difference between two bundles is, for people: names, modes, sizes.
fn listing(bundle: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(bundle);
    let entries = archive.entries().unwrap().map(|entry| {
        use sha2::Digest as _;
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        let digest = Digest::from_bytes(sha2::Sha256::digest(&content).into());
        (entry.path().unwrap().display().to_string(), format!("{:?} {digest}", entry.header()))
    });
    entries.collect()
}

async fn same(runtime: &str, sources: &[&[File<'_>]]) {
    let Some(stage) = Stage::new(runtime).await else { return };
    for files in sources {
        let (direct, built) = stage.both(files).await;
        let direct = direct.expect("this source needs no builder");
        assert_eq!(listing(&direct), listing(&built));
        assert!(direct == built, "the bytes differ somewhere between the entries");
    }
    stage.leave_nothing().await;
}

const APP: &[u8] = b"import json, os\n\nNAMES = {'a', 'b'}\n\n\nclass Thing:\n    \"\"\"Docs.\"\"\"\n\n    def f(self, x=(1, 2), *, y=None):\n        return [json.dumps(n) for n in NAMES if n != os.sep]\n\n\ndef handler(event, context):\n    x = lambda v: v ** 2\n    return {'statusCode': 200, 'body': f'{x(3)} {event!r}'}\n";

#[tokio::test]
async fn a_python_bundle_is_the_same_with_and_without_a_builder() {
    let folders: &[File<'_>] = &[
        ("app.py", false, APP),
        ("pkg/__init__.py", false, b""),
        (
            "pkg/deep/er/mod.py",
            false,
            b"from app import handler as h\nX = 1.5 + 2j\nasync def g():\n    yield b'x'\n",
        ),
        ("pkg.txt", false, b"between pkg and pkg/ in a dictionary, and not in the order of bytes"),
        ("tool.py", true, b"#!/usr/bin/env python3\nprint('run')\n"),
        ("broken.py", false, b"def (:\n"),
        ("nul.py", false, b"x = '\0'\n"),
        ("latin.py", false, b"# -*- coding: latin-1 -*-\nname = '\xe9'\n"),
        ("garbled.py", false, b"name = '\xe9'\n"),
        ("warns.py", false, b"assert (1, 'always true')\nx = '\\d'\n"),
        (".hidden.py", false, b"a = 1\n"),
        (".py", false, b"a = 2\n"),
        ("two.dots.py", false, b"a = 3\n"),
        ("upper.PY", false, b"a = 4\n"),
        ("with space.py", false, b"a = 5\n"),
        ("folder.py/inner.py", false, b"a = 6\n"),
        ("empty/", false, b""),
        ("data.bin", false, &[0xa5; 70_000]),
    ];
    same("python3.13", &[&[("app.py", false, APP)], folders, &[("only.txt", false, b"no code")]]).await;
}

#[tokio::test]
async fn a_node_bundle_is_the_same_with_and_without_a_builder() {
    let index: File<'_> = ("index.mjs", false, b"export const handler = async () => 1;\n");
    let package: File<'_> =
        ("package.json", false, b"{\"name\":\"x\",\"version\":\"1.0.0\",\"type\":\"module\"}");
    let nested: File<'_> = ("lib/package.json", false, b"{\"dependencies\":{\"left\":\"1\"}}");
    same("node20", &[&[index], &[package, index, nested]]).await;
}

#[tokio::test]
async fn a_program_is_the_same_with_and_without_a_builder() {
    let bootstrap: File<'_> = ("bootstrap", true, b"#!/bin/sh\nexec sleep 1\n");
    same("provided", &[&[bootstrap, ("a/b/c", false, b"1")], &[("server", true, b"\x7fELF\r\n")]]).await;
}

#[tokio::test]
async fn what_only_a_builder_can_do_is_left_to_it() {
    let Some(stage) = Stage::new("provided").await else { return };
    let (direct, built) = stage.both(&[("bootstrap", false, b"#!/bin/sh\n")]).await;
    assert_eq!(direct, None, "it is made executable");
    assert!(listing(&built).contains_key("bootstrap"));
    let long = format!("{}/{}", "n".repeat(90), "m".repeat(90));
    let (direct, built) = stage.both(&[("bootstrap", true, b"#!/bin/sh\n"), (&long, false, b"1")]).await;
    assert_eq!(direct, None, "a long name needs an extension header");
    assert!(listing(&built).contains_key(&long));
    stage.leave_nothing().await;
}
