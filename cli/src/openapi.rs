//! OpenAPI documents in functions' folders: read with the `davit.toml` that names them.

use std::path::{Component, Path};

use davit_api::{Imported, Manifest, OpenApiFile, limits};

use crate::failure::{Failure, Result};

/// The manifest with what its OpenAPI document says. `place` is its file as the user would say it, `text` what is in it.
pub(crate) fn attach(folder: &Path, place: &str, text: &str, mut manifest: Manifest) -> Result<Manifest> {
    let Some(setting) = &manifest.openapi else { return Ok(manifest) };
    let line = davit_api::line_naming(text, &setting.file).map(|line| format!(", line {line}"));
    let at = |why: String| {
        Failure::Usage(format!("{place}{}: openapi: {why}", line.as_deref().unwrap_or_default()))
    };
    let relative = Path::new(&setting.file);
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(at(format!("{:?} does not lie in the function's folder", setting.file)));
    }
    let path = folder.join(relative);
    if !path.is_file() {
        return Err(at(format!("there is no file {}", path.display())));
    }
    let inside = |path: &Path| Some(path.canonicalize().ok()?.starts_with(folder.canonicalize().ok()?));
    if inside(&path) != Some(true) {
        return Err(at(format!("{:?} leads out of the function's folder", setting.file)));
    }
    manifest.imported = Some(import(&path, setting)?);
    manifest.checked(text).map_err(|error| Failure::Usage(error.in_file(place)))
}

/// Imports a document; all that is wrong is told, each with its place.
pub(crate) fn import(path: &Path, setting: &OpenApiFile) -> Result<Imported> {
    let shown = path.strip_prefix("./").unwrap_or(path).display().to_string();
    let failed = |error: std::io::Error| Failure::Usage(format!("{shown}: {error}"));
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > limits::OPENAPI_FILE_BYTES as u64 {
        let (kib, most) = (length >> 10, limits::OPENAPI_FILE_BYTES >> 10);
        return Err(Failure::Usage(format!("{shown}: {kib} KiB, the limit is {most}")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let document = davit_openapi::read(&text).map_err(|error| Failure::Usage(error.in_file(&shown)))?;
    davit_openapi::import(document, setting.base.as_ref(), setting.host.as_ref()).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|problem| format!("{shown}: {problem}")).collect();
        Failure::Usage(lines.join("\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "name = \"shop\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n";
    const GOOD: &str = "openapi: 3.1.0\nservers: [{ url: /api }]\npaths:\n  /orders:\n    get: {}\n";

    fn attached(line: &str, file: &str, text: &str) -> std::result::Result<Manifest, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), text).unwrap();
        let toml = format!("{TOML}{line}\n");
        let manifest = Manifest::parse(&toml).map_err(|error| error.to_string())?;
        attach(folder.path(), "davit.toml", &toml, manifest)
            .map_err(|failure| failure.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn the_document_in_the_folder_becomes_routes() {
        let path = |line: &str| {
            attached(line, "api.yaml", GOOD).unwrap().version_spec().routes[0].path.as_str().to_owned()
        };
        assert_eq!(path("openapi = \"api.yaml\""), "/api/orders");
        assert_eq!(path("openapi = { file = \"./api.yaml\", base = \"/v2\" }"), "/v2/orders");
    }

    #[test]
    fn what_is_wrong_is_told_with_the_file_and_the_place() {
        let long = "#".repeat(limits::OPENAPI_FILE_BYTES + 1);
        for (line, text, said) in [
            ("openapi = \"other.yaml\"", GOOD, "davit.toml, line 4: openapi: there is no file other.yaml"),
            (
                "openapi = \"../api.yaml\"",
                GOOD,
                "davit.toml, line 4: openapi: \"../api.yaml\" does not lie in",
            ),
            ("openapi = \"/etc/passwd\"", GOOD, "does not lie in the function's folder"),
            ("openapi = \"api.yaml\"", "a: 1\nb: [1\nc: 2\n", "api.yaml, line "),
            ("openapi = \"api.yaml\"", "openapi: 4.0.0\n", "api.yaml: #/openapi: \"4.0.0\" is not known"),
            ("openapi = \"api.yaml\"", &long, "api.yaml: 1024 KiB, the limit is 1024"),
            (
                "openapi = \"api.yaml\"",
                "openapi: 3.1.0\npaths: { /a: { get: { parameters: [{ $ref: '#/components/parameters/A' }] } } }",
                "api.yaml: #/paths/~1a/get/parameters/0: \"#/components/parameters/A\" leads nowhere",
            ),
            (
                "openapi = \"api.yaml\"",
                "openapi: 3.1.0\npaths: { /a: { get: { x-davit: { timeout_seconds: 99 } } } }",
                "davit.toml: routes: GET /a: timeout_seconds: must be 1 to 30",
            ),
        ] {
            let told = attached(line, "api.yaml", text).unwrap_err();
            assert!(told.contains(said), "{line}: {told}");
        }
    }
}
