//! `davit deploy`: packs a folder, uploads it, follows the build, and says where the function answers.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use davit_api::{
    AliasName, ErrorCode, FunctionKind, FunctionName, ImageName, Manifest, NewVersion, Rollout, RuntimeName,
    SecretName, VersionAccepted, VersionSpec, VersionState, VersionView,
};

use super::apply::load::{MANIFEST, manifest_text};
use super::canary::CanaryOptions;
use crate::api::Api;
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::openapi::attach;
use crate::output;
use crate::own_image;
use crate::pack::{Packed, pack};
use crate::prebuilt;
use crate::progress::Progress;

/// How long a gateway may take to hear of a version that is live; it reads everything every few seconds anyway.
const SERVED: Duration = Duration::from_secs(1);
/// Between two questions to it.
const AGAIN: Duration = Duration::from_millis(3);

/// Build a folder and make it live
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit deploy                     the folder that you are in
  davit deploy examples/user-auth  another one
  davit deploy --no-wait           do not wait for the build
  davit deploy --description \"faster search\"
  davit deploy --alias beta        reached as hello@beta; what is live stays
  davit deploy --no-live           built and kept; `davit promote` makes it live
  davit deploy --canary 5,25,50 --interval 2m --max-errors 1% --max-latency p95:1.2x
  davit deploy --zip function.zip --runtime python3.13 --handler app.handler --layer deps.zip
  davit deploy --image registry.example.com/team/app:1.4 --kind server --image-secret registry

An archive that was made for AWS Lambda (--zip) is deployed as it is, without a build; its settings come from
the options, and from the folder's davit.toml if there is one. Layers are shown below /opt, in the order given,
later ones over earlier ones.

A container image (--image, or image in davit.toml) is deployed as it is, too, and so is what a Dockerfile in
the folder builds when davit.toml names no runtime.

Ctrl-C cancels the build. What .gitignore and .davitignore name is not uploaded. A version becomes live only after it has
been built and has started once; until then, and if that fails, the one before stays live. The
same content with the same settings is the same version: nothing is built.")]
pub(crate) struct Deploy {
    /// Folder with a davit.toml
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Deploy this archive as it is, built elsewhere, instead of building the folder
    #[arg(long, value_name = "FILE", group = "ready_made")]
    zip: Option<PathBuf>,
    /// Deploy this container image, from the engine or a registry, instead of building the folder
    #[arg(long, value_name = "IMAGE", group = "ready_made")]
    image: Option<ImageName>,
    /// The secret that opens the image's registry: user:password, or a Docker config in JSON
    #[arg(long, value_name = "SECRET", requires = "image")]
    image_secret: Option<SecretName>,
    /// What the image is: handler or server
    #[arg(long, requires = "image", value_parser = own_image::kind)]
    kind: Option<FunctionKind>,
    /// A layer's archive, up to 5; may be repeated
    #[arg(long = "layer", value_name = "FILE", requires = "zip")]
    layers: Vec<PathBuf>,
    /// The archive's or image's function; the name of the file or image without it
    #[arg(long, requires = "ready_made")]
    name: Option<FunctionName>,
    /// The archive's runtime
    #[arg(long, requires = "zip")]
    runtime: Option<RuntimeName>,
    /// The archive's or image's handler
    #[arg(long, requires = "ready_made")]
    handler: Option<String>,
    /// Return as soon as the version is accepted
    #[arg(long)]
    no_wait: bool,
    /// Show only the outcome, not the build's output
    #[arg(short, long)]
    quiet: bool,
    /// What is new in this version
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Let this alias lead to the version, and leave what is live alone
    #[arg(long, conflicts_with_all = ["no_live", "canary"])]
    alias: Option<AliasName>,
    /// Build it and leave what is live alone
    #[arg(long, conflicts_with = "canary")]
    no_live: bool,
    /// Make it live at once, whatever davit.toml says about a canary
    #[arg(long, conflicts_with_all = ["alias", "no_live", "canary"])]
    now: bool,
    #[command(flatten)]
    canary: CanaryOptions,
}

impl Deploy {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let begun = Instant::now();
        let manifest = self.manifest()?;
        let namespace = match (&globals.namespace, &manifest.namespace) {
            (None, Some(name)) => name.clone(),
            _ => globals.namespace()?,
        };
        let api = globals.api_in(namespace)?;
        let imported = manifest.imported.iter().flat_map(|imported| imported.overridden(&manifest.routes));
        for route in imported {
            output::note(format!("{}: its settings are those of [[routes]] in davit.toml", route.operation));
        }
        let (progress, packed) = self.pack(&manifest)?;
        progress.step(&format!(
            "uploading {} files, {} KiB",
            packed.files,
            packed.bytes.len().div_ceil(1024)
        ));
        api.put_artifact(&packed.digest, packed.bytes, &progress).await?;
        let new = NewVersion {
            spec: VersionSpec { prebuilt: self.zip.is_some(), ..manifest.version_spec() },
            source: packed.digest,
            git_commit: git_commit(&self.folder),
            schedules: manifest.schedule_specs().into_iter().collect(),
            description: self.description.clone(),
            rollout: self.rollout(&manifest),
        };
        let name = &manifest.name;
        let VersionAccepted { unchanged, mut version } = api.create_version(name, &new).await?;
        if unchanged {
            progress.step(&format!("version {} has this content and configuration already", version.number));
        }
        if self.no_wait {
            progress.done(&format!("version {} of {name} is {}", version.number, version.state.as_str()));
        } else {
            if !unchanged {
                let number = version.number;
                version = tokio::select! {
                    version = follow(&api, name, version, &progress, self.quiet) => version?,
                    Ok(()) = tokio::signal::ctrl_c() => return cancel(&api, name, number).await,
                };
            }
            if version.live {
                served(&api, name, version.number).await;
            }
            let size = version.bundle_size.unwrap_or_default().div_ceil(1024);
            let took = begun.elapsed().as_secs_f64();
            progress.done(&format!("{}: {size} KiB, {took:.1} s", outcome_of(name, &version)));
        }
        self.print(globals, &api, &manifest, &version);
        Ok(())
    }

    /// What is to happen when the version is ready.
    fn rollout(&self, manifest: &Manifest) -> Rollout {
        if let Some(alias) = &self.alias {
            return Rollout::Alias(alias.clone());
        }
        if self.no_live {
            return Rollout::Hold;
        }
        let canary = if self.now { None } else { self.canary.spec().or_else(|| manifest.canary.clone()) };
        canary.map_or(Rollout::Live, Rollout::Canary)
    }

    fn manifest(&self) -> Result<Manifest> {
        if let Some(image) = &self.image {
            let told = own_image::Told {
                image,
                secret: self.image_secret.as_ref(),
                kind: self.kind,
                name: self.name.as_ref(),
                handler: self.handler.as_deref(),
            };
            return if self.folder.join("davit.toml").exists() {
                told.over(read_manifest(&self.folder)?)
            } else {
                told.alone()
            };
        }
        let Some(zip) = &self.zip else {
            return read_manifest(&self.folder);
        };
        let told = prebuilt::Told {
            name: self.name.as_ref(),
            runtime: self.runtime.as_ref(),
            handler: self.handler.as_deref(),
        };
        if self.folder.join("davit.toml").exists() {
            told.over(read_manifest(&self.folder)?)
        } else {
            told.alone(zip)
        }
    }

    fn pack(&self, manifest: &Manifest) -> Result<(Progress, Packed)> {
        let progress = Progress::start(&match &manifest.image {
            Some(image) => format!("deploying {image}"),
            None => format!("packing {}", self.zip.as_ref().unwrap_or(&self.folder).display()),
        });
        let packed = match &self.zip {
            None => pack(&self.folder, manifest)?,
            Some(zip) => prebuilt::pack(zip, &self.layers, |left_out| progress.line(left_out))?,
        };
        Ok((progress, packed))
    }

    fn print(&self, globals: &Globals, api: &Api, manifest: &Manifest, version: &VersionView) {
        if globals.json() {
            return output::json(version);
        }
        let spec = &version.spec;
        if let (false, Some(address)) =
            (spec.access == davit_api::Access::Private, api.address(&manifest.name))
        {
            output::line(&address);
        } else if spec.routes.is_empty() {
            output::note(format!("private: call it with `davit invoke {}`", manifest.name));
        }
        for route in &spec.routes {
            let host = route.host.as_ref().map(|h| h.as_str().to_owned());
            output::note(format!("route: {} {}{}", route.method, host.unwrap_or_default(), route.path));
        }
    }
}

/// What has become of a version that was ready.
pub(super) fn outcome_of(name: &FunctionName, version: &VersionView) -> String {
    let number = version.number;
    if version.live {
        return format!("{name} version {number} is live");
    }
    let leads = |share: &davit_api::AliasShare| match share.weight {
        100 => format!("{name}@{} is version {number}", share.alias),
        weight => format!("{name} version {number} gets {weight}% of {}'s calls", share.alias),
    };
    match version.aliases.as_slice() {
        [] => format!("{name} version {number} is ready: davit promote {name} {number}"),
        shares => shares.iter().map(leads).collect::<Vec<_>>().join("; "),
    }
}

/// Shows the build's output, unless only its outcome is wanted, until the version is callable or has failed.
pub(crate) async fn follow(
    api: &Api,
    name: &FunctionName,
    mut version: VersionView,
    progress: &Progress,
    quiet: bool,
) -> Result<VersionView> {
    let number = version.number;
    let mut cursor = 0;
    loop {
        progress.status(&format!("version {number} is {}", version.state.as_str()));
        let mut ended = has_ended(version.state);
        // The state was asked for before the events, so a final state comes with all of its lines.
        let events = api.build_events(name, number, cursor, if ended { 0 } else { 10 }).await?;
        for event in &events {
            cursor = event.cursor;
            for line in event.line.lines().filter(|_| !quiet) {
                progress.line(line);
            }
        }
        // A final state is the last event there is.
        if !ended && events.last().and_then(|event| event.state).is_some_and(has_ended) {
            version = api.version(name, number).await?;
            ended = has_ended(version.state);
        }
        if ended {
            return outcome(name, version);
        }
        if events.is_empty() {
            // The server waits for events by itself; this only bounds one that answers at once.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        version = api.version(name, number).await?;
    }
}

/// Waits until the gateway serves it, so that the next command finds what this one has deployed. A gateway that is
/// not reached from here, or is late, is no failure: the version is live.
pub(crate) async fn served(api: &Api, name: &FunctionName, number: u32) {
    let asking = async {
        loop {
            match api.live(name).await {
                Ok(live) if live.version != number => {}
                // It does not know the function yet.
                Err(Failure::Refused(body)) if body.code == ErrorCode::NotFound => {}
                Ok(_) | Err(_) => return,
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let _ = tokio::time::timeout(SERVED, asking).await;
}

/// Whoever waited does not want it any more.
async fn cancel(api: &Api, name: &FunctionName, number: u32) -> Result<()> {
    match api.cancel_build(name, number).await {
        Ok(()) => Err(Failure::Failed(format!("version {number} of {name} is cancelled"))),
        // It was done in this moment.
        Err(Failure::Refused(body)) if body.code == ErrorCode::Conflict => Err(Failure::Failed(format!(
            "version {number} of {name} is built already; davit describe {name} says what is live"
        ))),
        Err(failure) => Err(failure),
    }
}

fn has_ended(state: VersionState) -> bool {
    matches!(state, VersionState::Ready | VersionState::Failed)
}

fn outcome(name: &FunctionName, version: VersionView) -> Result<VersionView> {
    if version.state == VersionState::Ready {
        return Ok(version);
    }
    let cause = version.error.unwrap_or_else(|| "the build's output says why".into());
    Err(Failure::Failed(format!("version {} of {name} failed: {cause}", version.number)))
}

/// The settings of a folder, with its OpenAPI document.
pub(crate) fn read_manifest(folder: &Path) -> Result<Manifest> {
    let text = manifest_text(&folder.join(MANIFEST))?;
    let manifest = Manifest::parse(&text).map_err(|e| Failure::Usage(e.to_string()))?;
    attach(folder, MANIFEST, &text, manifest)
}

/// The commit of the folder, when git knows one; a deploy does not need it.
pub(crate) fn git_commit(folder: &Path) -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "--verify", "--quiet", "HEAD"])
        .current_dir(folder)
        .stderr(std::process::Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit()))
        .then_some(text)
}
