//! The rules for images of a function's own.

use super::VersionSpec;
use crate::{ApiError, limits};

impl VersionSpec {
    pub(super) fn check_image(&self) -> Result<(), ApiError> {
        let own = self.runtime.is_own_image();
        match (&self.image, &self.dockerfile) {
            (Some(_), Some(_)) => {
                return Err(ApiError::field("dockerfile", "an image is given or built, not both"));
            }
            (None, None) if own => {
                return Err(ApiError::field("image", "say which, or give the dockerfile that builds it"));
            }
            (None, None) if self.image_secret.is_some() => {
                return Err(ApiError::field("image_secret", "is for functions with an image of their own"));
            }
            (Some(_), None) | (None, Some(_)) if !own => {
                return Err(ApiError::field("runtime", "leave it out: the image says what runs"));
            }
            (Some(_), None) | (None, Some(_)) if self.prebuilt => {
                return Err(ApiError::field(
                    "prebuilt",
                    "an archive made elsewhere needs a runtime, not an image",
                ));
            }
            _ => {}
        }
        let plain = |part: &str| !matches!(part, "" | "." | "..");
        let good = |path: &str| {
            path.chars().count() <= limits::DOCKERFILE_CHARS
                && path.split('/').all(plain)
                && !path.contains(|c: char| c.is_control() || c == '\\')
        };
        if self.dockerfile.as_deref().is_some_and(|path| !good(path)) {
            return Err(ApiError::field("dockerfile", "write its path in the folder, such as Dockerfile"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FunctionKind, RuntimeName};

    #[test]
    fn an_image_of_its_own_is_given_or_built_and_has_no_runtime() {
        let refused = |change: fn(&mut VersionSpec)| {
            let mut spec = VersionSpec::new(RuntimeName::own_image(), FunctionKind::Server);
            spec.image = Some("registry.example.com/app:1".parse().unwrap());
            change(&mut spec);
            spec.check().err().map(|error| error.message)
        };
        assert_eq!(refused(|_| {}), None);
        assert_eq!(refused(|s| s.image_secret = Some("registry".parse().unwrap())), None);
        let built = |s: &mut VersionSpec, path: &str| (s.image, s.dockerfile) = (None, Some(path.into()));
        assert_eq!(refused(|s| (s.image, s.dockerfile) = (None, Some("build/Dockerfile".into()))), None);
        for (field, change) in [
            ("dockerfile", (|s| s.dockerfile = Some("Dockerfile".into())) as fn(&mut VersionSpec)),
            ("image", |s| s.image = None),
            ("runtime", |s| s.runtime = "python3.13".parse().unwrap()),
            ("prebuilt", |s| s.prebuilt = true),
            ("image_secret", |s| {
                (s.image, s.runtime) = (None, "provided".parse().unwrap());
                s.image_secret = Some("registry".parse().unwrap());
            }),
        ] {
            let said = refused(change).unwrap_or_default();
            assert!(said.starts_with(&format!("{field}: ")), "{field}: {said}");
        }
        for path in ["", "/Dockerfile", "../Dockerfile", "a//b", "a\\b", "./Dockerfile"] {
            let mut spec = VersionSpec::new(RuntimeName::own_image(), FunctionKind::Handler);
            built(&mut spec, path);
            assert!(spec.check().is_err(), "{path:?}");
        }
    }
}
