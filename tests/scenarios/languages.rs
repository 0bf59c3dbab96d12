//! Functions that are built from source, with real dependencies, from an empty cache to a live version: the examples that the
//! repository ships, what is said of those that cannot be built, and archives that were built elsewhere.

use std::path::Path;

use davit_e2e::{Cli, Davit, Output, containers_in_role, examples};
use serde_json::{Value, json};

/// A copy of an example that a story may change.
fn copy_of(example: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&examples().join(example), folder.path());
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn change(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from:?}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Deploys what cannot be deployed, and gives all that was said.
async fn refused(cli: &Cli, folder: &Path) -> String {
    let Output { code, stdout, stderr } = cli.try_in(folder, &["deploy"]).await;
    assert_ne!(code, 0, "{stdout}{stderr}");
    format!("{stdout}{stderr}")
}

async fn live(cli: &Cli, function: &str) -> Value {
    cli.json(&["describe", function]).await["live"].clone()
}

/// The bundle's digest of a version: what the same source must give again.
async fn bundle(cli: &Cli, function: &str, number: u64) -> Value {
    let versions = cli.json(&["versions", function]).await;
    let version = versions.as_array().unwrap().iter().find(|v| v["number"] == number).unwrap().clone();
    assert!(version["bundle"].is_string(), "{version}");
    version["bundle"].clone()
}

/// Whether a JSON answer holds this, however it is laid out.
fn holds(answer: &Output, part: &str) -> bool {
    let dense = |text: &str| text.split_whitespace().collect::<String>();
    dense(&answer.stdout).contains(&dense(part))
}

/// A story of a compiled language: built, called, built again from the cache after a change that changes nothing, and not
/// replaced by what does not compile.
struct Compiled<'a> {
    example: &'a str,
    event: Value,
    /// What its answer holds.
    answer: &'a str,
    /// What its own error says, for an empty event.
    error: &'a str,
    /// A file with a comment to add to, which changes the source and not the program.
    source: &'a str,
    comment: &'a str,
    /// What is broken, and how the compiler names the place.
    breaks: (&'a str, &'a str, &'a str),
}

impl Compiled<'_> {
    async fn run(&self) {
        let davit = Davit::up().await;
        let cli = davit.cli();
        let folder = copy_of(self.example);
        let first = cli.deploy(folder.path()).await;
        assert!(first.stderr.contains("built in") && first.stderr.contains("bytes"), "{first:?}");
        let answer = cli.invoke(self.example, &self.event.to_string()).await;
        assert!(holds(&answer, self.answer), "{answer:?}");
        let failed = cli.attempt(&["invoke", self.example, "{}"]).await;
        assert!(failed.code != 0 && format!("{failed:?}").contains(self.error), "{failed:?}");

        let path = folder.path().join(self.source);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{}\n", self.comment)).unwrap();
        let again = cli.deploy(folder.path()).await;
        assert!(again.stderr.contains("taken from the cache"), "{again:?}");
        assert_eq!(bundle(&cli, self.example, 1).await, bundle(&cli, self.example, 2).await);

        let (from, to, place) = self.breaks;
        change(folder.path(), self.source, from, to);
        let said = refused(&cli, folder.path()).await;
        assert!(said.contains(place), "the place is named: {said}");
        assert_eq!(live(&cli, self.example).await["number"], 2);
        let answer = cli.invoke(self.example, &self.event.to_string()).await;
        assert!(holds(&answer, self.answer), "what was live stays live: {answer:?}");
    }
}

#[tokio::test]
async fn a_go_module_is_built_with_the_official_client() {
    let story = Compiled {
        example: "hello-go",
        event: json!({"name": "Ada", "words": "the boat the crane"}),
        answer: "\"the\": 2",
        error: "the event needs a name",
        source: "main.go",
        comment: "// Nothing more.",
        breaks: ("counted[word]++", "counted[wrd]++", "main.go:33"),
    };
    story.run().await;
}

#[tokio::test]
async fn a_rust_package_is_built_with_the_official_client() {
    let story = Compiled {
        example: "hello-rust",
        event: json!({"sensor": "deck", "celsius": [21.5, 23.0, 19.5]}),
        answer: "deck: 21.3 °C",
        error: "missing field",
        source: "src/main.rs",
        comment: "// Nothing more.",
        breaks: ("celsius.len() as f64;", "celsius.length() as f64;", "src/main.rs:23"),
    };
    story.run().await;
}

#[tokio::test]
async fn a_maven_project_is_built_and_called_by_the_official_client() {
    let story = Compiled {
        example: "hello-java",
        event: json!({"csv": "port,tons\nKiel,3\nOslo,4\nKiel,5\n", "by": "port", "of": "tons"}),
        answer: "\"Kiel\": 8.0",
        error: "the event needs csv",
        source: "src/main/java/com/example/Handler.java",
        comment: "// Nothing more.",
        breaks: ("sums.size()", "sums.length()", "Handler.java:[35,"),
    };
    story.run().await;
}

#[tokio::test]
async fn a_gradle_project_is_built_and_called_by_the_official_client() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let folder = copy_of("hello-java");
    std::fs::remove_file(folder.path().join("pom.xml")).unwrap();
    let build = "plugins { id 'java' }\nrepositories { mavenCentral() }\ndependencies {\n    \
        implementation 'com.amazonaws:aws-lambda-java-core:1.4.0'\n    implementation 'org.apache.commons:commons-csv:1.14.1'\n}\n";
    std::fs::write(folder.path().join("build.gradle"), build).unwrap();
    cli.deploy(folder.path()).await;
    let event = json!({"csv": "port,tons\nKiel,3\nOslo,4\nKiel,5\n", "by": "port", "of": "tons"}).to_string();
    let answer = cli.invoke("hello-java", &event).await;
    assert!(holds(&answer, "\"Kiel\": 8.0"), "{answer:?}");
    let source = "src/main/java/com/example/Handler.java";
    change(folder.path(), source, "package com.example;", "package com.example; // Nothing more.");
    let again = cli.deploy(folder.path()).await;
    assert!(again.stderr.contains("taken from the cache"), "{again:?}");
    assert_eq!(bundle(&cli, "hello-java", 1).await, bundle(&cli, "hello-java", 2).await);
    change(folder.path(), source, "sums.size()", "sums.length()");
    let said = refused(&cli, folder.path()).await;
    assert!(said.contains("Handler.java:35: error"), "the place is named: {said}");
    change(folder.path(), "build.gradle", "1.14.1", "0.0.0-none");
    let said = refused(&cli, folder.path()).await;
    assert!(said.contains("commons-csv:0.0.0-none"), "{said}");
    assert_eq!(live(&cli, "hello-java").await["number"], 2);
}

#[tokio::test]
async fn typescript_is_compiled_and_type_checked() {
    let story = Compiled {
        example: "hello-typescript",
        event: json!({"item": "rope", "quantity": 2, "cents": 450}),
        answer: "900",
        error: "",
        source: "src/app.ts",
        comment: "",
        breaks: ("total(order.data)", "total(order.dat)", "src/app.ts(12,"),
    };
    let davit = Davit::up().await;
    let cli = davit.cli();
    let folder = copy_of(story.example);
    cli.deploy(folder.path()).await;
    let answer = cli.invoke(story.example, &story.event.to_string()).await;
    assert!(holds(&answer, story.answer), "{answer:?}");
    let wrong = cli.invoke(story.example, r#"{"item":"rope","quantity":-1,"cents":1}"#).await.json();
    assert_eq!(wrong["statusCode"], 400, "{wrong}");
    std::fs::write(folder.path().join("src/note.txt"), "more").unwrap();
    let again = cli.deploy(folder.path()).await;
    assert!(again.stderr.contains("taken from the cache"), "{again:?}");
    let (from, to, place) = story.breaks;
    change(folder.path(), story.source, from, to);
    let said = refused(&cli, folder.path()).await;
    assert!(said.contains(place), "the place is named: {said}");
    assert_eq!(live(&cli, story.example).await["number"], 2);
}

#[tokio::test]
async fn what_a_build_needs_and_does_not_find_is_named() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let go = copy_of("hello-go");
    std::fs::remove_file(go.path().join("go.sum")).unwrap();
    let rust = copy_of("hello-rust");
    std::fs::remove_file(rust.path().join("Cargo.lock")).unwrap();
    let java = copy_of("hello-java");
    change(java.path(), "pom.xml", "1.14.1", "0.0.0-none");
    let typescript = copy_of("hello-typescript");
    change(typescript.path(), "package.json", "\"typescript\": \"^5.9.0\"", "\"typescript\": \"^4.0.0\"");
    let handler = copy_of("hello-go");
    change(handler.path(), "davit.toml", "runtime = \"go\"", "runtime = \"go\"\nhandler = \"cmd/none\"");
    for (folder, words) in [
        (&go, ["go.sum: there is none", "go mod tidy"]),
        (&rust, ["Cargo.lock: there is none", "cargo generate-lockfile"]),
        (&java, ["commons-csv", "0.0.0-none"]),
        (&typescript, ["package.json", "package-lock.json"]),
        (&handler, ["handler: cmd/none", "main package"]),
    ] {
        let said = refused(&cli, folder.path()).await;
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not in: {said}");
    }
    assert_eq!(containers_in_role(&davit.endpoint("installation"), "builder"), Vec::<String>::new());
    for name in ["hello-go", "hello-rust", "hello-java", "hello-typescript"] {
        assert!(live(&cli, name).await.is_null(), "{name} is half deployed");
    }
}

#[tokio::test]
async fn a_runtime_that_is_not_here_says_how_it_comes() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let folder = copy_of("shell-bootstrap");
    change(folder.path(), "davit.toml", "\"provided\"", "\"cobol85\"");
    let said = refused(&cli, folder.path()).await;
    assert!(said.contains("there is no cobol85") && said.contains("python3.13"), "{said}");
}

#[tokio::test]
async fn ruby_and_php_answer_and_fail_with_file_and_line() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let rows =
        r#"{"rows":[{"item":"rope","cents":450},{"item":"tar","cents":90},{"item":"rope","cents":50}]}"#;
    let instants = r#"{"instants":["2026-11-29T10:15:00Z","2026-11-29T12:40:00+02:00"]}"#;
    for (example, event, answer, error) in [
        ("hello-ruby", instants, "\"count\": 2", "app.rb:5"),
        ("hello-php", rows, "\"rope\": 500", "app.php:11"),
    ] {
        cli.deploy_example(example).await;
        let answered = cli.invoke(example, event).await;
        assert!(holds(&answered, answer), "{answered:?}");
        let failed = cli.attempt(&["invoke", example, "{}"]).await;
        assert!(failed.code != 0 && format!("{failed:?}").contains(error), "{failed:?}");
        cli.deploy_example(example).await;
    }
}

/// As uv and Poetry write them, but for the addresses of the files, which nobody asks.
const UV_LOCK: &str = r#"version = 1
revision = 3
requires-python = ">=3.9"

[[package]]
name = "f"
version = "1.0.0"
source = { virtual = "." }
dependencies = [
    { name = "mdurl" },
]

[[package]]
name = "mdurl"
version = "0.1.2"
source = { registry = "https://index.test/simple" }
sdist = { url = "https://index.test/mdurl-0.1.2.tar.gz", hash = "sha256:bb413d29f5eea38f31dd4754dd7377d4465116fb207585f97bf925588687c1ba", size = 8729 }
wheels = [
    { url = "https://index.test/mdurl-0.1.2-py3-none-any.whl", hash = "sha256:84008a41e51615a49fc9966191ff91509e3c40b939176e643fd50a5c2196b8f8", size = 9979 },
]
"#;
const POETRY_LOCK: &str = r#"[[package]]
name = "mdurl"
version = "0.1.2"
description = "Markdown URL utilities"
optional = false
python-versions = ">=3.7"
groups = ["main"]
files = [
    {file = "mdurl-0.1.2-py3-none-any.whl", hash = "sha256:84008a41e51615a49fc9966191ff91509e3c40b939176e643fd50a5c2196b8f8"},
    {file = "mdurl-0.1.2.tar.gz", hash = "sha256:bb413d29f5eea38f31dd4754dd7377d4465116fb207585f97bf925588687c1ba"},
]

[metadata]
lock-version = "2.1"
python-versions = ">=3.9"
content-hash = "x"
"#;

#[tokio::test]
async fn locks_of_uv_and_poetry_are_followed_to_the_hash() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let app =
        "import mdurl\ndef handler(event, context):\n    return mdurl.parse('http://a.test/b').pathname\n";
    let project = "[project]\nname = \"f\"\nversion = \"1.0.0\"\nrequires-python = \">=3.9\"\ndependencies = [\"mdurl==0.1.2\"]\n";
    for (name, lock) in [("uv.lock", UV_LOCK), ("poetry.lock", POETRY_LOCK)] {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        write("davit.toml", "name = \"locked\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n");
        write("app.py", app);
        write("pyproject.toml", project);
        write(name, lock);
        cli.deploy(folder.path()).await;
        assert_eq!(cli.invoke("locked", "{}").await.json(), json!("/b"), "{name}");
        write("pyproject.toml", &project.replace("mdurl==0.1.2\"", "mdurl==0.1.2\", \"idna\""));
        let said = refused(&cli, folder.path()).await;
        assert!(said.contains(name) && said.contains("idna"), "{said}");
        write("pyproject.toml", project);
        let wrong = ["84008a41", "bb413d29"]
            .iter()
            .fold(lock.to_owned(), |lock, hash| lock.replace(hash, "00000000"));
        write(name, &wrong);
        let said = refused(&cli, folder.path()).await;
        assert!(said.contains("mdurl") && said.to_lowercase().contains("hash"), "{said}");
    }
}

fn zip_of(path: &Path, files: &[(&str, u32, &[u8])]) {
    use std::io::Write as _;
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, mode, content) in files {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(*mode);
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

#[tokio::test]
async fn an_archive_made_for_lambda_runs_with_its_layers_and_without_a_build() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let folder = tempfile::tempdir().unwrap();
    let app = b"import subprocess, greeting, boto3\n\
        def handler(event, context):\n    \
            return {'word': greeting.WORD, 'boto3': boto3.__file__, 'tool': subprocess.check_output(['tool']).decode().strip()}\n";
    // A lock file that would fail a build, and a name that is long.
    let long = format!("data/{}.txt", "n".repeat(150));
    zip_of(
        &folder.path().join("shipped.zip"),
        &[
            ("app.py", 0o644, app),
            ("requirements.txt", 0o644, b"no-such-package-anywhere==0"),
            (&long, 0o644, b"1"),
        ],
    );
    zip_of(
        &folder.path().join("one.zip"),
        &[("python/greeting.py", 0o644, b"WORD = 'old'\n"), ("bin/tool", 0o755, b"#!/bin/sh\necho ran\n")],
    );
    zip_of(
        &folder.path().join("two.zip"),
        &[("python/greeting.py", 0o644, b"WORD = 'new'\n"), ("python/boto3/__init__.py", 0o644, b"")],
    );
    let deploy = [
        "deploy",
        "--zip",
        "shipped.zip",
        "--runtime",
        "python3.13",
        "--handler",
        "app.handler",
        "--layer",
        "one.zip",
        "--layer",
        "two.zip",
    ];
    let output = cli.try_in(folder.path(), &deploy).await;
    assert_eq!(output.code, 0, "{output:?}");
    let answer = cli.invoke("shipped", "{}").await.json();
    assert_eq!(answer, json!({"word": "new", "boto3": "/opt/python/boto3/__init__.py", "tool": "ran"}));

    let index = b"const left = require('left');\nexports.handler = async () => left;\n";
    zip_of(&folder.path().join("node.zip"), &[("index.js", 0o644, index)]);
    zip_of(
        &folder.path().join("modules.zip"),
        &[("nodejs/node_modules/left/index.js", 0o644, b"module.exports = 'from a layer';\n")],
    );
    let deploy = [
        "deploy",
        "--zip",
        "node.zip",
        "--runtime",
        "node20",
        "--handler",
        "index.handler",
        "--layer",
        "modules.zip",
    ];
    let output = cli.try_in(folder.path(), &deploy).await;
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(cli.invoke("node", "{}").await.json(), json!("from a layer"));
}

#[tokio::test]
async fn a_program_for_another_processor_is_refused_as_such() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let folder = tempfile::tempdir().unwrap();
    let mut head = [0_u8; 128];
    head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    head[16..20].copy_from_slice(&[2, 0, if cfg!(target_arch = "aarch64") { 62 } else { 183 }, 0]);
    zip_of(&folder.path().join("foreign.zip"), &[("bootstrap", 0o755, &head)]);
    let output =
        cli.try_in(folder.path(), &["deploy", "--zip", "foreign.zip", "--runtime", "provided"]).await;
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("it is a program for"), "{output:?}");
    assert!(live(&cli, "foreign").await.is_null());
}
