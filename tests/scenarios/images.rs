//! Functions with an image of their own: built from a folder's Dockerfile, named, fetched from a registry that asks for a
//! password; and those that come to nothing, of which nothing is left.

mod registry;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use davit_e2e::{
    Cli, Davit, Output, containers_in_role, eventually, eventually_within, examples, kept_images,
};
use registry::ImageRegistry;
use serde_json::Value;

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).env("DOCKER_BUILDKIT", "0").output().unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// An image that is made for a story and gone after it.
struct Made(String);

impl Made {
    /// From a Dockerfile and other files: names and texts. A name that ends in `*` is of an executable, and without it.
    fn of(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = folder_of(files);
        let name = format!("davit-e2e-{}/{name}", std::process::id());
        docker(&["build", "-q", "-t", &name, folder.path().to_str().unwrap()]);
        Self(name)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["image", "rm", "-f", &self.0]).output();
    }
}

fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name.trim_end_matches('*'));
        std::fs::write(&path, text).unwrap();
        let mode = if name.ends_with('*') { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// Deploys what cannot be deployed, and gives all that was said.
async fn refused(cli: &Cli, folder: &Path, args: &[&str]) -> String {
    let Output { code, stdout, stderr } = cli.try_in(folder, args).await;
    assert_ne!(code, 0, "{stdout}{stderr}");
    format!("{stdout}{stderr}")
}

async fn live(cli: &Cli, function: &str) -> Value {
    cli.json(&["describe", function]).await["live"].clone()
}

async fn get(davit: &Davit, path: &str) -> Value {
    let url = davit.url(path);
    eventually(&format!("an answer of {path}"), async || {
        let answer = davit.http.get(&url).send().await.map_err(|e| e.to_string())?;
        let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
        if status == 200 {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            Err(format!("{status} {text}"))
        }
    })
    .await
}

#[tokio::test]
async fn a_folder_with_a_dockerfile_is_built_once_and_what_breaks_leaves_the_live_version() {
    // A container kept warm for the next deploy would keep its image for as long.
    let davit = Davit::up_with(&[("DAVIT_BUILD_KEEP_WARM", "0s")]).await;
    let cli = davit.cli();
    let folder = tempfile::tempdir().unwrap();
    for file in ["davit.toml", "Dockerfile", "server.py"] {
        std::fs::copy(examples().join("own-image").join(file), folder.path().join(file)).unwrap();
    }
    let first = cli.deploy(folder.path()).await;
    assert!(first.stderr.contains("COPY server.py"), "the engine's steps are shown: {first:?}");
    let answer = get(&davit, "/default/own-image/x").await;
    assert_eq!(
        (&answer["path"], &answer["folder"], &answer["user"]),
        (&"/x".into(), &"/srv/app".into(), &993.into())
    );
    let image = live(&cli, "own-image").await["image_id"].clone();
    assert!(image.as_str().unwrap().starts_with("sha256:"), "{image}");

    // Other settings are no reason to build again.
    let settings = std::fs::read_to_string(folder.path().join("davit.toml")).unwrap();
    write(folder.path(), "davit.toml", &settings.replace("128", "192"));
    let again = cli.deploy(folder.path()).await;
    assert!(again.stderr.contains("not built again") && !again.stderr.contains("COPY"), "{again:?}");
    let version = live(&cli, "own-image").await;
    assert_eq!((&version["number"], &version["image_id"]), (&2.into(), &image));
    assert!(cli.deploy(folder.path()).await.stderr.contains("version 2 has this content"));

    let dockerfile = std::fs::read_to_string(folder.path().join("Dockerfile")).unwrap();
    for (broken, wanted) in [
        (dockerfile.replace("WORKDIR", "WORKDIRS"), "WORKDIRS"),
        (format!("{dockerfile}RUN echo this far && false\n"), "returned a non-zero code: 1"),
        (dockerfile.replace("server.py .", "no-such-file ."), "no-such-file"),
        (dockerfile.replace("[\"server.py\"]", "[\"other.py\"]"), "other.py"),
        ("FROM scratch\nCOPY server.py /\n".to_owned(), "neither ENTRYPOINT nor CMD"),
    ] {
        write(folder.path(), "Dockerfile", &broken);
        let said = refused(&cli, folder.path(), &["deploy"]).await;
        assert!(said.contains(wanted), "{wanted} is not in: {said}");
    }
    std::fs::remove_file(folder.path().join("Dockerfile")).unwrap();
    let said = refused(&cli, folder.path(), &["deploy"]).await;
    assert!(said.contains("runtime: is missing") && said.contains("Dockerfile"), "{said}");
    assert_eq!(live(&cli, "own-image").await["number"], 2);
    assert_eq!(get(&davit, "/default/own-image/y").await["path"], "/y");
    let installation = davit.endpoint("installation");
    assert_eq!(containers_in_role(&installation, "builder"), Vec::<String>::new());
    // By its id, and by what it is built from.
    eventually_within(Duration::from_secs(180), "images that came to nothing to be removed", async || {
        let names = kept_images(&installation);
        if names.len() == 2 { Ok(()) } else { Err(names) }
    })
    .await;
}

#[tokio::test]
async fn images_of_the_engine_run_as_handler_and_server_on_a_root_that_cannot_be_written() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let bootstrap = std::fs::read_to_string(examples().join("shell-bootstrap/bootstrap")).unwrap();
    let handler = Made::of(
        "shell:1",
        &[
            (
                "Dockerfile",
                "FROM davit/runtime-provided\nUSER 0\nWORKDIR /srv\nCOPY run .\nENTRYPOINT [\"./run\"]\n",
            ),
            ("run*", &bootstrap),
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let deploy = ["deploy", "--image", &handler.0, "--name", "shell"];
    let output = cli.try_in(folder.path(), &deploy).await;
    assert_eq!(output.code, 0, "{output:?}");
    let answer = cli.invoke("shell", r#"{"name":"Ada"}"#).await;
    assert!(answer.stdout.contains("Ahoy, Ada!"), "{answer:?}");
    let failed = cli.attempt(&["invoke", "shell", "{}"]).await;
    assert!(failed.code == 3 && format!("{failed:?}").contains("the event needs a name"), "{failed:?}");

    let server = "import http.server, json, os\n\
        class P(http.server.BaseHTTPRequestHandler):\n    \
            def do_GET(self):\n        \
                wrote = {}\n        \
                for folder in ('/', '/srv', '/tmp', '/data', '/opt/davit', '/run/davit'):\n            \
                    try:\n                \
                        open(folder + '/x', 'w').close()\n                \
                        wrote[folder] = True\n            \
                    except OSError:\n                \
                        wrote[folder] = False\n        \
                caps = [l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')][0]\n        \
                told = sorted(n for n in os.environ if n.startswith('DAVIT'))\n        \
                body = json.dumps({'wrote': wrote, 'caps': caps, 'args': os.environ['WORD'], 'told': told}).encode()\n        \
                self.send_response(200)\n        \
                self.send_header('content-length', str(len(body)))\n        \
                self.end_headers()\n        \
                self.wfile.write(body)\n\
        http.server.HTTPServer(('', int(os.environ['PORT'])), P).serve_forever()\n";
    let image = Made::of(
        "web:1",
        &[
            (
                "Dockerfile",
                "FROM davit/runtime-python3.13\nUSER 0\nENV WORD=image\nVOLUME /data\nHEALTHCHECK CMD false\nWORKDIR /srv\n\
                 COPY web.py .\nENTRYPOINT []\nCMD python3 web.py\n",
            ),
            ("web.py", server),
        ],
    );
    let toml = format!(
        "name = \"web\"\nimage = \"{}\"\nkind = \"server\"\naccess = \"public\"\n[env]\nWORD = \"mine\"\n",
        image.0
    );
    write(folder.path(), "davit.toml", &toml);
    cli.deploy(folder.path()).await;
    let seen = get(&davit, "/default/web").await;
    for (place, wrote) in [
        ("/", false),
        ("/srv", false),
        ("/tmp", true),
        ("/data", true),
        ("/opt/davit", false),
        ("/run/davit", false),
    ] {
        assert_eq!(seen["wrote"][place], wrote, "{place}: {seen}");
    }
    assert_eq!((&seen["caps"], &seen["args"]), (&"0000000000000000".into(), &"mine".into()), "{seen}");
    let told = serde_json::json!(["DAVIT_ENDPOINT", "DAVIT_FUNCTION", "DAVIT_NAMESPACE", "DAVIT_VERSION"]);
    assert_eq!(seen["told"], told);

    // The name goes; what versions run in stays, and so do they, also after a restart.
    drop(image);
    let mut davit = davit;
    davit.stop();
    davit.start().await;
    assert_eq!(get(&davit, "/default/web").await["args"], "mine");
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_named_and_nothing_is_half_deployed() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there.
    let said = refused(&cli, folder.path(), &["deploy", "--image", "127.0.0.1:9/team/app:1"]).await;
    assert!(said.contains("127.0.0.1:9 is not reached"), "{said}");
    let detail = cli.json(&["describe", "app"]).await;
    assert_eq!((&detail["live"], &detail["latest"]["state"]), (&Value::Null, &"failed".into()), "{detail}");
    assert!(detail["latest"]["image_id"].is_null(), "{detail}");
    for (args, wanted) in [
        (["deploy", "--image", "Team/App:1"], "write an image like"),
        (
            ["deploy", "--image", "sha256:84008a41e51615a49fc9966191ff91509e3c40b939176e643fd50a5c2196b8f8"],
            "not said by its id",
        ),
        (["deploy", "--image", "davit/image:x"], "davit/image"),
    ] {
        let said = refused(&cli, folder.path(), &args).await;
        assert!(said.contains(wanted), "{said}");
    }
    let secret = ["deploy", "--image", "127.0.0.1:9/team/app:1", "--image-secret", "nobody-set-it"];
    let said = refused(&cli, folder.path(), &secret).await;
    assert!(said.contains("image_secret: the secret nobody-set-it is not set"), "{said}");
    let installation = davit.endpoint("installation");
    assert_eq!(kept_images(&installation), Vec::<String>::new());
    assert_eq!(containers_in_role(&installation, "smoke"), Vec::<String>::new());
}

const PASSWORD: &str = "hush-hush-77";

#[tokio::test]
async fn a_private_registry_is_opened_by_a_secret_that_nobody_sees() {
    let Some(registry) = ImageRegistry::start("ada", PASSWORD).await else {
        eprintln!("skipped: docker-registry and htpasswd (apache2-utils) are not installed");
        return;
    };
    let davit = Davit::up().await;
    let cli = davit.cli();
    let bootstrap = std::fs::read_to_string(examples().join("shell-bootstrap/bootstrap")).unwrap();
    let name = registry.name("team/shell:1");
    let push = |word: &str| {
        let run = bootstrap.replace("Ahoy", word);
        let dockerfile = "FROM davit/runtime-provided\nCOPY run /srv/\nENTRYPOINT [\"/srv/run\"]\n";
        let tag = format!("shell:{}", word.to_lowercase());
        let image = Made::of(&tag, &[("Dockerfile", dockerfile), ("run*", &run)]);
        registry.push(&image.0, "team/shell:1");
    };
    push("Ahoy");
    let folder = tempfile::tempdir().unwrap();
    let said = refused(&cli, folder.path(), &["deploy", "--image", &name]).await;
    assert!(said.contains("name the secret that opens it: image_secret"), "{said}");

    let with_secret = ["deploy", "--image", &name, "--image-secret", "registry"];
    let set = async |value: &str| {
        write(folder.path(), "value", value);
        let output = cli.try_in(folder.path(), &["secret", "set", "registry", "--file", "value"]).await;
        assert_eq!(output.code, 0, "{output:?}");
    };
    for (value, wanted) in
        [("ada:wrong-77", "image_secret does not open it"), ("wrong-77", "neither user:password nor")]
    {
        set(value).await;
        let said = refused(&cli, folder.path(), &with_secret).await;
        assert!(said.contains(wanted) && !said.contains("wrong-77"), "{said}");
    }
    set(&format!("ada:{PASSWORD}")).await;
    let deployed = cli.try_in(folder.path(), &with_secret).await;
    assert!(deployed.code == 0 && deployed.stderr.contains("@sha256:"), "{deployed:?}");
    assert!(cli.invoke("shell", r#"{"name":"Ada"}"#).await.stdout.contains("Ahoy, Ada!"));
    let first = live(&cli, "shell").await["image_id"].clone();
    // It is here under davit's name alone, so no Dockerfile of somebody else can start from it.
    assert!(!docker(&["images", "--digests"]).contains(&registry.name("team/shell")));

    // The tag moves; the next deploy follows it, by a Docker config this time.
    push("Hello");
    set(&registry.docker_config()).await;
    let deployed = cli.try_in(folder.path(), &with_secret).await;
    assert_eq!(deployed.code, 0, "{deployed:?}");
    assert!(cli.invoke("shell", r#"{"name":"Ada"}"#).await.stdout.contains("Hello, Ada!"));
    assert_ne!(live(&cli, "shell").await["image_id"], first);
    assert!(!deployed.stderr.contains(PASSWORD) && !davit.log().contains(PASSWORD));
    assert!(!davit.log().contains("wrong-77"));

    // Versions are pinned: without the registry, going back is going back.
    drop(registry);
    cli.run(&["rollback", "shell"]).await;
    eventually("the first image to answer again", async || {
        let answer = cli.invoke("shell", r#"{"name":"Ada"}"#).await;
        if answer.stdout.contains("Ahoy, Ada!") { Ok(()) } else { Err(answer) }
    })
    .await;
}
