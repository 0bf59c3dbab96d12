//! A live version as the data plane sees it: everything needed to start and to call it, without the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use davit_api::{
    AliasName, Digest, FunctionId, FunctionName, NamespaceName, PoolKey, VersionId, VersionSpec,
};
use davit_registry::Environment;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use crate::policy::{Policy, Route};

/// One version that may be called, with its configuration resolved. Immutable; shared by `Arc`. A gateway holds one
/// for each function, called or not, so what is empty or alike takes no room of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveVersion {
    /// Namespace of the function.
    pub namespace: NamespaceName,
    /// The function's name.
    pub function: FunctionName,
    /// The function's id.
    pub function_id: FunctionId,
    /// The version's id.
    pub version_id: VersionId,
    /// The version's number within the function.
    pub number: u32,
    /// How it runs; without `env`, `secrets`, `secret_files`, `routes`, `openapi` and `http`, of which the rest here is made.
    pub spec: VersionSpec,
    /// Addresses besides the path address.
    pub routes: Box<[Route]>,
    /// What holds for requests to its addresses that have nothing of their own.
    pub policy: Option<Arc<Policy>>,
    /// Its code, as a tar.
    pub bundle: Digest,
    /// Size of the tar in bytes.
    pub bundle_size: u64,
    /// Its environment by name, plain values and secrets together. A map takes half a KiB for one variable.
    pub env: Box<[(Box<str>, Box<str>)]>,
    /// Secrets that become files in its instances, by the files' names.
    pub secret_files: Box<[(Box<str>, Box<str>)]>,
    /// Whether secrets are among them, so that it may be given another environment.
    pub has_secrets: bool,
    /// Secrets that it needs and that do not exist or do not open; it cannot start until they do.
    pub missing_secrets: Box<[String]>,
    /// Which pool its instances come from.
    pub pool_key: Arc<PoolKey>,
    /// `/<namespace>/<function>`, the path it is reached at, as a header's value.
    pub address: HeaderValue,
    /// Digest over spec and environment: a changed secret makes new instances of the same version.
    pub config: Digest,
}

/// What identifies a set of interchangeable instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FleetKey {
    /// The version they serve.
    pub version_id: VersionId,
    /// The configuration they were given.
    pub config: Digest,
}

impl LiveVersion {
    /// Which instances may serve it.
    pub fn fleet_key(&self) -> FleetKey {
        FleetKey { version_id: self.version_id, config: self.config }
    }

    /// The path that a function is reached at.
    pub fn address_of(namespace: &NamespaceName, function: &FunctionName) -> HeaderValue {
        // Names are letters, digits and hyphens, so this is always a value.
        HeaderValue::from_str(&format!("/{namespace}/{function}")).unwrap_or(HeaderValue::from_static("/"))
    }

    /// The path that one of its function's aliases is reached at. A function's name has no `@`, so it is no other's.
    pub fn address_at(&self, alias: &AliasName) -> HeaderValue {
        let path = format!("/{}/{}@{alias}", self.namespace, self.function);
        HeaderValue::from_str(&path).unwrap_or(HeaderValue::from_static("/"))
    }

    /// The digest over everything that an instance is told at its start.
    pub fn config_digest(spec: &VersionSpec, environment: &Environment) -> Digest {
        let mut hash = Sha256::new();
        // A version's spec always serialises; should it not, the environment alone still tells configurations apart.
        hash.update(serde_json::to_vec(spec).unwrap_or_default());
        // Which are variables and which files stands in the spec.
        for (name, value) in environment.variables.iter().chain(&environment.files) {
            for part in [name, value] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        Digest::from_bytes(hash.finalize().into())
    }

    /// Its environment as an instance gets it.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    /// The ARN-like name that handlers see.
    pub fn arn(&self) -> String {
        format!("arn:davit:lambda:local:{}:function:{}", self.namespace, self.function)
    }
}
