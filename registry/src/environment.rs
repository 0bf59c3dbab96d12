//! A version's environment as its instances get it, for a version that may not be live yet.

use std::collections::BTreeMap;

use davit_api::{NamespaceName, SecretName, VersionSpec};
use sqlx::Row;

use crate::{MasterKey, Registry, Result};

impl Registry {
    /// Plain variables and opened secrets together, and the secrets that are not set.
    pub async fn resolve_environment(
        &self,
        namespace: &NamespaceName,
        spec: &VersionSpec,
        key: &MasterKey,
    ) -> Result<(BTreeMap<String, String>, Vec<SecretName>)> {
        let mut env: BTreeMap<String, String> =
            spec.env.iter().map(|(name, value)| (name.as_str().to_owned(), value.clone())).collect();
        let mut missing = Vec::new();
        if spec.secrets.is_empty() {
            return Ok((env, missing));
        }
        let id = self.namespace_id(namespace).await?;
        for (variable, secret) in &spec.secrets {
            let row = sqlx::query("select nonce, sealed from secrets where namespace_id = $1 and name = $2")
                .bind(id.0)
                .bind(secret.as_str())
                .fetch_optional(&self.pool)
                .await?;
            match row {
                Some(row) => {
                    let value =
                        key.open(id, secret.as_str(), row.try_get("nonce")?, row.try_get("sealed")?)?;
                    env.insert(variable.as_str().to_owned(), value);
                }
                None => missing.push(secret.clone()),
            }
        }
        Ok((env, missing))
    }
}
