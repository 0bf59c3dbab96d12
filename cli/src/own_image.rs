//! Functions with a container image of their own: what `davit deploy` makes of the command line and of a folder.

use std::path::Path;

use davit_api::{FunctionKind, FunctionName, ImageName, Manifest, RuntimeName, SecretName};

use crate::failure::{Failure, Result};
use crate::pack::{AddError, Archive, Packed};

/// What the command line says of the function.
pub(crate) struct Told<'a> {
    pub(crate) image: &'a ImageName,
    pub(crate) secret: Option<&'a SecretName>,
    pub(crate) kind: Option<FunctionKind>,
    pub(crate) name: Option<&'a FunctionName>,
    pub(crate) handler: Option<&'a str>,
}

impl Told<'_> {
    /// The settings of a `davit.toml`, but for what was told.
    pub(crate) fn over(&self, mut manifest: Manifest) -> Result<Manifest> {
        manifest.runtime = RuntimeName::own_image();
        manifest.image = Some(self.image.clone());
        manifest.dockerfile = None;
        manifest.image_secret = self.secret.cloned().or(manifest.image_secret);
        manifest.kind = self.kind.or(manifest.kind);
        manifest.name = self.name.cloned().unwrap_or(manifest.name);
        manifest.handler = self.handler.map(str::to_owned).or(manifest.handler);
        manifest.checked("").map_err(|error| Failure::Usage(error.to_string()))
    }

    /// Settings without a `davit.toml`; the function is called like the image unless it was told.
    pub(crate) fn alone(&self) -> Result<Manifest> {
        let name = match self.name {
            Some(name) => name.to_string(),
            None => self.image.short().replace(['.', '_'], "-"),
        };
        let manifest = Manifest::parse(&format!("name = {name:?}\nimage = {:?}\n", self.image.as_str()));
        let manifest = manifest.map_err(|error| Failure::Usage(format!("{error} (--name says it)")))?;
        self.over(manifest)
    }
}

/// Reads `--kind`.
pub(crate) fn kind(text: &str) -> std::result::Result<FunctionKind, String> {
    match text {
        "handler" => Ok(FunctionKind::Handler),
        "server" => Ok(FunctionKind::Server),
        _ => Err("write handler (event in, result out) or server (listens on $PORT)".into()),
    }
}

/// A folder without a runtime is one with a Dockerfile.
pub(crate) fn must_have_dockerfile(folder: &Path, manifest: &Manifest) -> Result<()> {
    let Some(file) = manifest.version_spec().dockerfile else { return Ok(()) };
    if folder.join(&file).is_file() {
        return Ok(());
    }
    Err(Failure::Usage(match manifest.dockerfile {
        Some(_) => format!("davit.toml: dockerfile: there is no {}", folder.join(&file).display()),
        None => {
            let shipped = RuntimeName::SHIPPED.join(", ");
            format!(
                "davit.toml: runtime: is missing; say one of {shipped}, or image, or add a Dockerfile to the folder"
            )
        }
    }))
}

/// The source of a function whose image is made elsewhere: its `davit.toml`, or one that says the same.
pub(crate) fn pack(folder: &Path, manifest: &Manifest) -> Result<Packed> {
    let path = folder.join("davit.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let image = manifest.image.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("name = {:?}\nimage = {image:?}\n", manifest.name.as_str())
        }
        Err(error) => return Err(Failure::while_doing(path.display(), error)),
    };
    let mut archive = Archive::new("davit.toml", "");
    archive.add("davit.toml", false, text.len() as u64, text.as_bytes()).map_err(|error| match error {
        AddError::Io(error) => Failure::while_doing("archive", error),
        AddError::TooLarge(failure) => failure,
    })?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(image: &ImageName) -> Told<'_> {
        Told { image, secret: None, kind: None, name: None, handler: None }
    }

    #[test]
    fn an_image_alone_is_a_function_called_like_it() {
        let image: ImageName = "registry.example.com/team/my_app.web:1.4".parse().unwrap();
        let manifest = told(&image).alone().unwrap();
        assert_eq!(manifest.name.as_str(), "my-app-web");
        let spec = manifest.version_spec();
        assert!(spec.runtime.is_own_image() && spec.dockerfile.is_none() && spec.check().is_ok());
        let odd: ImageName = format!("a/{}", "x".repeat(80)).parse().unwrap();
        let said = told(&odd).alone().unwrap_err().to_string();
        assert!(said.contains("--name"), "{said}");
    }

    #[test]
    fn the_command_line_goes_over_the_file() {
        let image: ImageName = "app:2".parse().unwrap();
        let file = "name = \"a\"\nruntime = \"python3.13\"\nhandler = \"app.f\"\nmemory_mb = 512\n";
        let manifest = told(&image).over(Manifest::parse(file).unwrap()).unwrap();
        let spec = manifest.version_spec();
        assert_eq!(
            (spec.image.as_ref(), spec.memory_mb, spec.handler.as_str()),
            (Some(&image), 512, "app.f")
        );
        assert!(spec.runtime.is_own_image());
    }

    #[test]
    fn a_folder_has_a_runtime_or_a_dockerfile() {
        let folder = tempfile::tempdir().unwrap();
        let check = |text: &str| must_have_dockerfile(folder.path(), &Manifest::parse(text).unwrap());
        let said = check("name = \"a\"\n").unwrap_err().to_string();
        assert!(said.contains("runtime: is missing") && said.contains("Dockerfile"), "{said}");
        let named = "name = \"a\"\ndockerfile = \"build/Dockerfile\"\n";
        assert!(check(named).unwrap_err().to_string().contains("build/Dockerfile"));
        std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        assert!(check("name = \"a\"\n").is_ok());
        assert!(check("name = \"a\"\nimage = \"b\"\n").is_ok());
        assert!(check("name = \"a\"\nruntime = \"provided\"\n").is_ok());
    }
}
