//! The programs under measurement: what a function is, and the same thing as a plain process.

use std::path::Path;

use crate::platform::Platform;

/// A Python handler without imports of its own.
pub(crate) const PYTHON: &str = "def handler(event, context):\n    return {'statusCode': 200, 'headers': {'content-type': 'text/plain'}, 'body': 'hello\\n'}\n";

/// The same handler as a plain process, in a container where its file is at `/s`.
pub(crate) const PYTHON_PROCESS: &[&str] = &[
    "/usr/bin/python3",
    "-s",
    "-B",
    "-c",
    "import sys; sys.path.insert(0, '/s'); import app; sys.stdout.write(app.handler({}, None)['body'])",
];

/// The manifest of a public function with default settings; it is let go soon after its call.
pub(crate) fn manifest(name: &str, runtime: &str, more: &str) -> String {
    let keep = if more.contains("keep_alive_seconds") { "" } else { "keep_alive_seconds = 1\n" };
    format!("name = \"{name}\"\nruntime = \"{runtime}\"\naccess = \"public\"\n{keep}{more}")
}

/// Deploys the native server as a server function.
pub(crate) fn deploy_native(platform: &Platform, native: &Path, name: &str, more: &str) -> crate::Result<()> {
    deploy_native_as(platform, native, name, r#"["./native", "serve"]"#, more)
}

/// The same with a command of its own, as the manifest has it.
pub(crate) fn deploy_native_as(
    platform: &Platform,
    native: &Path,
    name: &str,
    command: &str,
    more: &str,
) -> crate::Result<()> {
    let folder = tempfile::tempdir()?;
    let more = format!("kind = \"server\"\ncommand = {command}\n{more}");
    std::fs::write(folder.path().join("davit.toml"), manifest(name, "provided", &more))?;
    std::fs::copy(native, folder.path().join("native"))?;
    platform.deploy_folder(folder.path())
}
