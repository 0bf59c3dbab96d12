//! What an installation has in the container engine, by its labels.

use std::path::{Path, PathBuf};
use std::process::Command;

fn lines(args: &[&str]) -> Vec<String> {
    let output = Command::new("docker").args(args).output().expect("the docker client runs");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Ids of all containers, running or not, that carry this installation's label.
pub(crate) fn containers_of(installation: &str) -> Vec<String> {
    lines(&["ps", "-aq", "--no-trunc", "--filter", &format!("label=davit.installation={installation}")])
}

/// The same, of one role: `instance`, `builder` or `smoke`.
pub(crate) fn containers_in_role(installation: &str, role: &str) -> Vec<String> {
    let (whose, role) =
        (format!("label=davit.installation={installation}"), format!("label=davit.role={role}"));
    lines(&["ps", "-aq", "--no-trunc", "--filter", &whose, "--filter", &role])
}

/// Names of all networks that carry this installation's label.
pub fn networks_of(installation: &str) -> Vec<String> {
    lines(&[
        "network",
        "ls",
        "--format",
        "{{.Name}}",
        "--filter",
        &format!("label=davit.installation={installation}"),
    ])
}

/// Names that keep images which functions of this installation brought or built.
pub fn kept_images(installation: &str) -> Vec<String> {
    let hex: String = installation.chars().filter(|c| *c != '-').collect();
    let names = format!("reference=davit/image:{}-*", &hex[hex.len() - 8..]);
    lines(&["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", &names])
}

/// Removes everything of an installation that was stopped, and fails the story if a container was left.
pub(crate) fn must_be_empty(installation: &str) {
    let left = remove_all(installation);
    if !std::thread::panicking() {
        assert!(left.is_empty(), "davit left {} containers behind when it was stopped", left.len());
    }
}

/// Removes everything of an installation and gives the containers that there were.
pub(crate) fn remove_all(installation: &str) -> Vec<String> {
    let left = containers_of(installation);
    for id in &left {
        let _ = Command::new("docker").args(["rm", "-f", id]).output();
    }
    for name in kept_images(installation) {
        let _ = Command::new("docker").args(["image", "rm", &name]).output();
    }
    for name in networks_of(installation) {
        let _ = Command::new("docker").args(["network", "rm", &name]).output();
        // The bridge has the network's name; davit removes its rules only together with the network.
        for rule in [vec!["INPUT", "-i", &name], vec!["DOCKER-USER", "-i", &name, "-d", "169.254.169.254/32"]]
        {
            let _ = Command::new("iptables").args(["-w", "5", "-D"]).args(rule).args(["-j", "DROP"]).output();
        }
    }
    left
}

/// Takes away the mounts in a state directory, which could not be removed with them, and says where they were.
pub(crate) fn unmount_below(state: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let below: Vec<PathBuf> = points.filter(|point| point.starts_with(state)).collect();
    for point in below.iter().rev() {
        let _ = Command::new("umount").arg("--lazy").arg(point).output();
    }
    below
}
