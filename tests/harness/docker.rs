//! What an installation has in the container engine, by its labels.

use std::process::Command;

fn lines(args: &[&str]) -> Vec<String> {
    let output = Command::new("docker").args(args).output().expect("the docker client runs");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Ids of all containers, running or not, that carry this installation's label.
pub fn containers_of(installation: &str) -> Vec<String> {
    lines(&["ps", "-aq", "--no-trunc", "--filter", &format!("label=davit.installation={installation}")])
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
