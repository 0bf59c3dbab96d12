//! A version's environment as its instances get it, for a version that may not be live yet.

use std::collections::BTreeMap;

use davit_api::{NamespaceName, SecretName, VersionSpec};
use sqlx::Row;

use crate::{MasterKey, Registry, Result};

/// What an instance is given besides its code. Not to be printed: it holds secrets.
#[derive(Clone, PartialEq, Default)]
pub struct Environment {
    /// Plain variables and opened secrets together.
    pub variables: BTreeMap<String, String>,
    /// Secrets that become files, by the files' names.
    pub files: BTreeMap<String, String>,
    /// Secrets that are asked for and do not exist or do not open.
    pub missing: Vec<SecretName>,
}

impl Environment {
    /// The plain variables, and of the secrets what `open` answers.
    pub(crate) fn of(spec: &VersionSpec, mut open: impl FnMut(&SecretName) -> Option<String>) -> Self {
        let plain = spec.env.iter().map(|(name, value)| (name.as_str().to_owned(), value.clone()));
        let mut environment = Self { variables: plain.collect(), ..Self::default() };
        let Self { variables, files, missing } = &mut environment;
        let mut opened = |secret: &SecretName| {
            let value = open(secret);
            if value.is_none() && !missing.contains(secret) {
                missing.push(secret.clone());
            }
            value
        };
        let of = |name: &str, value| (name.to_owned(), value);
        variables.extend(spec.secrets.iter().filter_map(|(name, s)| Some(of(name.as_str(), opened(s)?))));
        files.extend(spec.secret_files.iter().filter_map(|(name, s)| Some(of(name.as_str(), opened(s)?))));
        environment
    }
}

impl Registry {
    /// Resolves it from the namespace's secrets of this moment.
    pub async fn resolve_environment(
        &self,
        namespace: &NamespaceName,
        spec: &VersionSpec,
        key: &MasterKey,
    ) -> Result<Environment> {
        let wanted: Vec<&str> = spec.wanted_secrets().map(|(_, _, secret)| secret.as_str()).collect();
        if wanted.is_empty() {
            return Ok(Environment::of(spec, |_| None));
        }
        let id = self.namespace_id(namespace).await?;
        let rows =
            sqlx::query("select name, nonce, sealed from secrets where namespace_id = $1 and name = any($2)")
                .bind(id.0)
                .bind(&wanted)
                .fetch_all(&self.pool)
                .await?;
        let mut opened = BTreeMap::new();
        for row in &rows {
            let name: String = row.try_get("name")?;
            let value = key.open(id, &name, row.try_get("nonce")?, row.try_get("sealed")?)?;
            opened.insert(name, value);
        }
        Ok(Environment::of(spec, |secret| opened.get(secret.as_str()).cloned()))
    }
}
