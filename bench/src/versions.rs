//! What the figures were taken with.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::docker::Docker;

/// Versions of everything that takes part, and the machine.
pub(crate) async fn all(docker: &Docker, davit: &Path) -> crate::Result<Value> {
    let engine = docker.version().await?;
    let part = |name: &str| {
        let parts = engine["Components"].as_array();
        parts.into_iter().flatten().find(|c| c["Name"] == name).map(|c| c["Version"].clone())
    };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(json!({
        "davit": said(&davit.display().to_string(), &["--version"]),
        "engine": engine["Version"], "containerd": part("containerd"), "runc": part("runc"),
        "kernel": engine["KernelVersion"],
        "nginx": said("nginx", &["-v"]), "wrk": said("wrk", &["-v"]), "postgres": said("psql", &["--version"]),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        // Whoever reads the figures should know how busy the machine was when they were begun.
        "load_at_start": load.split(' ').next().unwrap_or_default(),
    }))
}

/// The first line that a program says about itself, on either stream.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(args).env("PATH", path).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
}
