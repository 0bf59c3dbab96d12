//! `davit images`: the runtime images of this machine, and their way to machines that cannot build them.

use std::path::{Path, PathBuf};
use std::pin::pin;

use clap::{Args, Subcommand};
use davit_api::RuntimeName;
use davit_controller::backend::docker::images::{RuntimeImage, RuntimeImages, names_in};
use futures_util::StreamExt as _;
use indicatif::HumanBytes;
use tokio::io::AsyncWriteExt as _;

use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{Table, json, short_id, when};
use crate::progress::Progress;

/// List this machine's runtime images, and carry them to one without a network
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit images list
  davit images save davit-images.tar                     all of them
  davit images save some.tar node20 provided
  davit images load davit-images.tar                     on the other machine; .tar.gz, too

It speaks to the container engine of this machine (DOCKER_HOST), not to a davit that runs.")]
pub(crate) struct Images {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List them
    #[command(visible_alias = "ls")]
    List,
    /// Write images to a file
    Save {
        /// The file to make
        file: PathBuf,
        /// Runtimes, such as node20 [default: all]
        runtimes: Vec<RuntimeName>,
        /// Replace the file if it is there
        #[arg(short, long)]
        force: bool,
    },
    /// Load images from a file, for what is deployed or upgraded (`davit runtimes upgrade`) from then on
    Load {
        /// A file that `davit images save` made
        file: PathBuf,
    },
}

impl Images {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let engine = RuntimeImages::connect().await.map_err(engine_failed)?;
        match self.verb {
            Verb::List => list(&engine.list().await.map_err(engine_failed)?, globals.json()),
            Verb::Save { file, runtimes, force } => save(&engine, runtimes, &file, force).await?,
            Verb::Load { file } => load(&engine, &file, globals.json()).await?,
        }
        Ok(())
    }
}

fn engine_failed(error: impl std::fmt::Display) -> Failure {
    Failure::while_doing("container engine", error)
}

fn list(images: &[RuntimeImage], as_json: bool) {
    if as_json {
        return json(&images);
    }
    let mut table = Table::new(&["RUNTIME", "SIZE", "MADE", "ID"]);
    for image in images {
        let id = short_id(&image.id);
        table.row(&[&image.runtime, &HumanBytes(image.size), &when(image.created_at), &id]);
    }
    table.print("no runtime images; build them in davit's source folder (make images) or load them");
}

async fn save(engine: &RuntimeImages, runtimes: Vec<RuntimeName>, output: &Path, force: bool) -> Result<()> {
    let there = engine.list().await.map_err(engine_failed)?;
    let has = |name: &RuntimeName| there.iter().any(|image| image.runtime == *name);
    if let Some(lacking) = runtimes.iter().find(|name| !has(name)) {
        return Err(Failure::Usage(format!("there is no image of {lacking} here; see `davit images list`")));
    }
    let runtimes = match runtimes.is_empty() {
        true => there.into_iter().map(|image| image.runtime).collect(),
        false => runtimes,
    };
    if runtimes.is_empty() {
        return Err(Failure::Usage("there are no runtime images here".into()));
    }
    if output.exists() && !force {
        return Err(Failure::Usage(format!("{} is already there; --force replaces it", output.display())));
    }
    let failed = |e: std::io::Error| Failure::while_doing(output.display(), e);
    // Under another name until it is whole, so that nobody carries half of it away.
    let partial = output.with_extension("partial");
    let progress = Progress::start("saving");
    let written = write(engine, &runtimes, &partial, &progress).await;
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    let bytes = written?;
    std::fs::rename(&partial, output).map_err(failed)?;
    let names: Vec<String> = runtimes.iter().map(ToString::to_string).collect();
    progress.done(&format!("{} in {}, {}", names.join(", "), output.display(), HumanBytes(bytes)));
    Ok(())
}

async fn write(
    engine: &RuntimeImages,
    runtimes: &[RuntimeName],
    path: &Path,
    progress: &Progress,
) -> Result<u64> {
    let failed = |e: std::io::Error| Failure::while_doing(path.display(), e);
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let (mut pieces, mut bytes) = (pin!(engine.save(runtimes)), 0_u64);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(engine_failed)?;
        file.write_all(&piece).await.map_err(failed)?;
        bytes += piece.len() as u64;
        progress.status(&format!("saving: {}", HumanBytes(bytes)));
    }
    file.sync_all().await.map_err(failed)?;
    Ok(bytes)
}

async fn load(engine: &RuntimeImages, path: &Path, as_json: bool) -> Result<()> {
    let refused = |e: String| Failure::Usage(format!("{}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| refused(e.to_string()))?;
    let names = names_in(file).map_err(refused)?;
    let progress = Progress::start("loading");
    engine.load(path).await.map_err(engine_failed)?;
    let text: Vec<String> = names.iter().map(ToString::to_string).collect();
    if as_json {
        drop(progress);
        json(&text);
    } else {
        progress.done(&format!(
            "{} are there; functions use them from their next deployment on",
            text.join(", ")
        ));
    }
    Ok(())
}
