//! Users' own images: how they come here, and what is known of them.

use std::collections::HashMap;
use std::path::PathBuf;

use davit_api::{Digest, ImageName, NetworkClass};

use super::{BuildLimits, ImageId};
use crate::registry_login::Logins;

/// What an image says about itself (OCI image specification), as far as davit looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its content id.
    pub id: ImageId,
    /// What it is for, in the engine's words, such as `linux` and `amd64`.
    pub os: String,
    /// The processor.
    pub architecture: String,
    /// Bytes of all its layers, unpacked.
    pub size: u64,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub cmd: Vec<String>,
    /// `WORKDIR`, empty when it says none.
    pub folder: String,
    /// `VOLUME`: folders that it wants to write to.
    pub volumes: Vec<String>,
}

/// An image to be had: from the engine itself, or from a registry.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// Its name.
    pub image: ImageName,
    /// What opens registries; shown to the one that the name says, and to nobody else.
    pub logins: Logins,
    /// Bounds: time, and size.
    pub limits: ImageLimits,
}

/// An image to be built from a source's Dockerfile.
#[derive(Debug, Clone)]
pub struct ImageBuildRequest {
    /// Uncompressed archive on this host with all that the build may look at.
    pub context: PathBuf,
    /// Path of the Dockerfile in it.
    pub dockerfile: String,
    /// What the image is made from; an image that was made from the same is taken instead of building it again.
    pub content: Digest,
    /// What opens registries for `FROM`.
    pub logins: Logins,
    /// What its steps can reach.
    pub network: NetworkClass,
    /// Build arguments.
    pub arguments: HashMap<String, String>,
    /// Bounds of each step, and of the whole.
    pub limits: BuildLimits,
}

/// Bounds of an image that is fetched.
#[derive(Debug, Clone, Copy)]
pub struct ImageLimits {
    /// From the first question to the last byte.
    pub wall: std::time::Duration,
    /// Largest image, unpacked, in bytes. No transfer may be larger, either.
    pub bytes: u64,
}

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HadImage {
    /// What it says about itself.
    pub facts: ImageFacts,
    /// `repository@sha256:…`, by which the registry knows it; none when it never was in one.
    pub repo_digest: Option<String>,
}

/// A name that davit has given to an image, so that nobody's clean-up takes it away while a version needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptImage {
    /// The name.
    pub name: String,
    /// What it leads to.
    pub id: ImageId,
}
