//! A version with an image of its own: the image is fetched or built, judged, and from then on known by its id alone.
//! There is no code to pack: the bundle is a note about the image.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Instant;

use davit_api::{Digest, ImageName, PoolKey};
use davit_registry::BuildJob;
use sha2::{Digest as _, Sha256};

use super::log::BuildLog;
use super::run::{Ahead, accept_bundle, backend, blocking, first_start, refused, seconds, unpack_source};
use super::warm::Class;
use super::{Failed, bundle};
use crate::backend::image::{FetchRequest, HadImage, ImageBuildRequest, ImageFacts, ImageLimits};
use crate::registry_login::Logins;
use crate::world::World;

/// Folders that an image may want to write to.
const VOLUMES: usize = 8;
/// Longest of their names, in bytes.
const VOLUME_BYTES: usize = 200;

/// From the image's name, or the source with its Dockerfile, to the first start.
pub(super) async fn steps(
    world: &std::sync::Arc<World>,
    job: &BuildJob,
    dir: &Path,
    log: &BuildLog,
) -> Result<(), Failed> {
    let begun = Instant::now();
    let logins = logins(world, job).await?;
    let bytes = world.settings.build.image_mb << 20;
    let had = match (&job.spec.image, &job.spec.dockerfile) {
        (Some(image), _) => {
            let limits = ImageLimits { wall: world.settings.build.limits.wall, bytes };
            let request = FetchRequest { image: image.clone(), logins, limits };
            world.backend.fetch_image(request, log.sender()).await.map_err(backend)?
        }
        (None, Some(dockerfile)) => built(world, job, dockerfile, (dir, logins), log).await?,
        (None, None) => {
            return Err(Failed::User("image: say which, or give the dockerfile that builds it".into()));
        }
    };
    let architecture = world.backend.architecture().await.map_err(backend)?;
    judge(&had.facts, !job.spec.command.is_empty(), &architecture, bytes).map_err(Failed::User)?;
    log.say(format!("image: {} MB, {}", had.facts.size / 1_000_000, had.facts.id.0)).await;
    log.say(format!("image ready after {}", seconds(begun.elapsed()))).await;

    let id = had.facts.id.clone();
    let class: Class = (id.clone(), PoolKey::of(&job.spec, &id.0));
    world.spares.want(&class, 1, world.settings.build.keep_spares);
    let ahead = Ahead::begin(world, &class);
    let path = dir.join("bundle.tar");
    let (note, to) = (note(job.spec.image.as_ref(), &had), path.clone());
    blocking(move || write(&note, &to)).await?.map_err(Failed::platform)?;
    let bundle = accept_bundle(&world.registry, &path).await?;
    log.flush().await;
    let finished = world.registry.finish_build(job.version_id, bundle.digest, bundle.size, &id.0);
    finished.await.map_err(refused)?;
    first_start(world, job, (&class, ahead), &path, bundle, log).await
}

/// What the version's secret opens.
async fn logins(world: &World, job: &BuildJob) -> Result<Logins, Failed> {
    let Some(name) = &job.spec.image_secret else { return Ok(Logins::None) };
    let secret = world.registry.secret(&job.namespace, name, &world.master_key).await.map_err(refused)?;
    let Some(secret) = secret else {
        return Err(Failed::User(format!(
            "image_secret: the secret {name} is not set; set it with `davit secret set {name}` and deploy again"
        )));
    };
    Logins::parse(&secret).map_err(|what| Failed::User(format!("image_secret: {name}: {what}")))
}

async fn built(
    world: &World,
    job: &BuildJob,
    dockerfile: &str,
    (dir, logins): (&Path, Logins),
    log: &BuildLog,
) -> Result<HadImage, Failed> {
    if !world.settings.build.dockerfiles {
        return Err(Failed::User(
            "dockerfile: this davit builds no Dockerfiles (DAVIT_BUILD_DOCKERFILES); push the image and name it with image"
                .into(),
        ));
    }
    let source = unpack_source(world, job, dir).await?;
    let (context, name) = (dir.join("context.tar"), dockerfile.to_owned());
    let to = context.clone();
    let made = blocking(move || {
        let text = context_of(&source, &to, &name)?;
        Ok::<_, std::io::Error>((text, bundle::measure(&to)?.digest))
    });
    let (Some(text), made_from) = made.await?.map_err(Failed::platform)? else {
        return Err(Failed::User(format!(
            "dockerfile: there is no {dockerfile} of at most 1 MiB in the folder"
        )));
    };
    let request = ImageBuildRequest {
        context,
        dockerfile: dockerfile.to_owned(),
        content: content(job, made_from, dockerfile),
        logins,
        network: world.settings.build.network,
        arguments: arguments(&text, &world.settings.build.env),
        limits: world.settings.build.limits,
    };
    world.backend.build_image(request, log.sender()).await.map_err(backend)
}

/// Longest Dockerfile.
const DOCKERFILE_BYTES: u64 = 1 << 20;

/// Writes what the engine builds from: the source without its `davit.toml`, so that another setting is no reason to build
/// again. Gives the Dockerfile's text; none when there is no such file.
fn context_of(source: &Path, to: &Path, dockerfile: &str) -> std::io::Result<Option<String>> {
    let mut archive = tar::Archive::new(std::fs::File::open(source)?);
    let mut out = tar::Builder::new(std::io::BufWriter::new(std::fs::File::create(to)?));
    let mut text = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        if name == Path::new("davit.toml") {
            continue;
        }
        let mut header = entry.header().clone();
        if name != Path::new(dockerfile) {
            out.append_data(&mut header, &name, entry)?;
            continue;
        }
        if entry.size() > DOCKERFILE_BYTES {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, &name, bytes.as_slice())?;
        text = Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    out.into_inner()?.flush()?;
    Ok(text)
}

/// What an image is made from. With the namespace, so that nobody can ask whether another namespace has such a source.
fn content(job: &BuildJob, context: Digest, dockerfile: &str) -> Digest {
    let mut hash = Sha256::new();
    for part in [job.namespace.as_str(), &context.to_string(), dockerfile] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    Digest::from_bytes(hash.finalize().into())
}

/// Of what builders get in their environment, that which a Dockerfile asks for by `ARG`; proxies it need not ask for.
fn arguments(dockerfile: &str, env: &[(String, String)]) -> HashMap<String, String> {
    let asked: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| {
            let (word, rest) = line.trim().split_once(char::is_whitespace)?;
            word.eq_ignore_ascii_case("arg")
                .then(|| rest.split(['=', ' ', '\t']).find(|part| !part.is_empty()))?
        })
        .collect();
    let proxy = |name: &str| name.to_ascii_lowercase().ends_with("_proxy");
    env.iter().filter(|(name, _)| proxy(name) || asked.contains(&name.as_str())).cloned().collect()
}

/// Pure: whether an image can be run here; the error is for the function's owner.
fn judge(facts: &ImageFacts, has_command: bool, architecture: &str, bytes: u64) -> Result<(), String> {
    if facts.os != "linux" || facts.architecture != architecture {
        return Err(format!(
            "image: it is for {}/{}, and this host is linux/{architecture}; build it for that, such as with \
             `docker build --platform linux/{architecture}`",
            facts.os, facts.architecture
        ));
    }
    if facts.size > bytes {
        return Err(format!(
            "image: {} MB unpacked; at most {} MB are taken (DAVIT_IMAGE_MB)",
            facts.size >> 20,
            bytes >> 20
        ));
    }
    if facts.entrypoint.is_empty() && facts.cmd.is_empty() && !has_command {
        return Err("image: it has neither ENTRYPOINT nor CMD; say what to start with command".into());
    }
    // Old engines could be led out of the container by such a folder.
    if facts.folder.starts_with("/proc") || facts.folder.contains("..") {
        return Err(format!("image: its WORKDIR {} is not taken", facts.folder));
    }
    if facts.volumes.len() > VOLUMES {
        return Err(format!("image: {} VOLUMEs; at most {VOLUMES} are taken", facts.volumes.len()));
    }
    match facts.volumes.iter().find(|path| !is_volume(path)) {
        Some(path) => {
            Err(format!("image: its VOLUME {path:?} is not taken: a folder of its own has to be named"))
        }
        None => Ok(()),
    }
}

/// Whether a folder may be laid over by an empty one. What davit or the kernel has put there may not.
fn is_volume(path: &str) -> bool {
    const TAKEN: [&str; 9] =
        ["/proc", "/sys", "/dev", "/run/davit", "/opt/davit", "/tmp", "/etc", "/bin", "/usr"];
    let within = |taken: &str| {
        path == taken || path.starts_with(&format!("{taken}/")) || taken.starts_with(&format!("{path}/"))
    };
    path.len() <= VOLUME_BYTES
        && path.starts_with('/')
        && path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."))
        // The engine takes options after a colon or comma.
        && !path.contains([':', ',', '\\'])
        && !path.contains(char::is_control)
        && !TAKEN.iter().any(|taken| within(taken))
}

/// What is on record about the image, as the version's bundle.
fn note(asked: Option<&ImageName>, had: &HadImage) -> String {
    let facts = &had.facts;
    let said = serde_json::json!({
        "asked": asked,
        "id": facts.id.0,
        "repo_digest": had.repo_digest,
        "entrypoint": facts.entrypoint,
        "cmd": facts.cmd,
        "workdir": facts.folder,
        "bytes": facts.size,
    });
    format!("{said:#}\n")
}

fn write(note: &str, to: &Path) -> std::io::Result<()> {
    let mut tar = tar::Builder::new(std::fs::File::create(to)?);
    let mut header = tar::Header::new_ustar();
    header.set_size(note.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "image.json", note.as_bytes())?;
    tar.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ImageId;
    use proptest::prelude::*;

    fn facts() -> ImageFacts {
        ImageFacts {
            id: ImageId("sha256:aa".into()),
            os: "linux".into(),
            architecture: "amd64".into(),
            size: 5 << 20,
            entrypoint: vec!["/app".into()],
            cmd: Vec::new(),
            folder: "/srv".into(),
            volumes: vec!["/data".into(), "/var/cache/app".into()],
        }
    }

    fn said(change: impl FnOnce(&mut ImageFacts)) -> String {
        let mut facts = facts();
        change(&mut facts);
        judge(&facts, false, "amd64", 10 << 20).err().unwrap_or_default()
    }

    #[test]
    fn an_image_that_cannot_run_here_is_refused_with_the_reason() {
        assert_eq!(said(|_| {}), "");
        assert!(
            said(|f| f.architecture = "arm64".into()).contains("linux/arm64, and this host is linux/amd64")
        );
        assert!(said(|f| f.os = "windows".into()).contains("windows/amd64"));
        assert!(said(|f| f.size = 11 << 20).contains("DAVIT_IMAGE_MB"));
        assert!(said(|f| f.entrypoint.clear()).contains("neither ENTRYPOINT nor CMD"));
        assert!(judge(&ImageFacts { entrypoint: vec![], ..facts() }, true, "amd64", 10 << 20).is_ok());
        assert!(said(|f| f.folder = "/proc/self/fd/8".into()).contains("WORKDIR"));
        assert!(said(|f| f.volumes = vec!["/v".into(); 9]).contains("9 VOLUMEs"));
        for path in [
            "/", "", "data", "/a/../b", "/proc/x", "/dev", "/run", "/opt", "/tmp/x", "/a:ro", "/a,exec",
            "/a//b",
        ] {
            assert!(said(|f| f.volumes = vec![path.into()]).contains("VOLUME"), "{path:?}");
        }
    }

    #[test]
    fn a_dockerfile_gets_the_proxies_and_what_it_asks_for() {
        let env =
            [("HTTP_PROXY", "p"), ("PIP_INDEX_URL", "i"), ("GOPROXY", "g"), ("NPM_CONFIG_REGISTRY", "n")];
        let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let text = "FROM a\nARG PIP_INDEX_URL\n  arg GOPROXY=direct\n# ARG NPM_CONFIG_REGISTRY\nRUN x\n";
        let mut given: Vec<_> = arguments(text, &env).into_keys().collect();
        given.sort();
        assert_eq!(given, ["GOPROXY", "HTTP_PROXY", "PIP_INDEX_URL"]);
    }

    #[test]
    fn settings_are_no_part_of_what_an_image_is_made_from() {
        let dir = tempfile::tempdir().unwrap();
        let made = |settings: &str, dockerfile: &str| {
            let (source, to) = (dir.path().join("source.tar"), dir.path().join("context.tar"));
            let mut tar = tar::Builder::new(std::fs::File::create(&source).unwrap());
            for (name, text) in [("app.py", "x"), ("davit.toml", settings), ("sub/Dockerfile", dockerfile)] {
                let mut header = tar::Header::new_ustar();
                header.set_size(text.len() as u64);
                tar.append_data(&mut header, name, text.as_bytes()).unwrap();
            }
            tar.finish().unwrap();
            let text = context_of(&source, &to, "sub/Dockerfile").unwrap();
            assert_eq!(context_of(&source, &dir.path().join("x"), "Dockerfile").unwrap(), None);
            (text, bundle::measure(&to).unwrap().digest)
        };
        let first = made("memory_mb = 1", "FROM a\n");
        assert_eq!(first.0.as_deref(), Some("FROM a\n"));
        assert_eq!(first, made("memory_mb = 2", "FROM a\n"));
        assert_ne!(first.1, made("memory_mb = 1", "FROM b\n").1);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_as_a_volume_is_a_plain_folder_of_its_own(path in "[/a-z.:,]{0,12}|/(proc|sys|tmp|a|b|run)(/[a-z.]{1,3}){0,2}") {
            if is_volume(&path) {
                let parts: Vec<_> = Path::new(&path).components().collect();
                prop_assert!(parts.len() > 1 && !path.contains([':', ',']) && !path.ends_with('/'));
                prop_assert!(!["/proc", "/sys", "/dev", "/tmp"].iter().any(|taken| Path::new(&path).starts_with(taken)));
            }
        }

        #[test]
        fn no_dockerfile_makes_it_panic(text in "\\PC{0,80}|(ARG[ =\t]?[A-Z_=\n]{0,9}){0,5}") {
            let _ = arguments(&text, &[]);
        }
    }
}
