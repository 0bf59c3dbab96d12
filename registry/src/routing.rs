//! Everything a gateway needs to route and start functions, read at one instant.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use davit_api::{
    Digest, FunctionId, FunctionName, NamespaceId, NamespaceName, Role, SecretName, TokenId, VersionId,
    VersionSpec,
};
use sqlx::Row;

use crate::rows::{count32, count64, digest, json, parsed, parsed_opt};
use crate::{MasterKey, Registry, RegistryError, Result};

/// A function that has a live version, and that version.
#[derive(Clone, PartialEq)]
pub struct RoutedFunction {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: FunctionName,
    /// Its id.
    pub function_id: FunctionId,
    /// The live version.
    pub version_id: VersionId,
    /// Its number.
    pub number: u32,
    /// Its settings.
    pub spec: VersionSpec,
    /// Its code.
    pub bundle: Digest,
    /// Size of its code in bytes.
    pub bundle_size: u64,
    /// The image that it was built for.
    pub image_digest: Option<String>,
    /// Its environment, plain values and secrets together.
    pub env_resolved: BTreeMap<String, String>,
    /// Secrets that it asks for and that do not exist or do not open: it cannot start.
    pub missing_secrets: Vec<SecretName>,
}

impl std::fmt::Debug for RoutedFunction {
    // Without the environment, which holds secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RoutedFunction({}/{}:{})", self.namespace, self.name, self.number)
    }
}

/// A token that callers may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHash {
    /// Its id.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// The namespace it is bound to; none means all.
    pub namespace: Option<NamespaceName>,
    /// What it may do.
    pub role: Role,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Routes and tokens of one instant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoutingSnapshot {
    /// Every function with a live version.
    pub functions: Vec<RoutedFunction>,
    /// Every token that is not revoked or expired.
    pub tokens: Vec<TokenHash>,
}

type Sealed = HashMap<NamespaceId, HashMap<String, (Vec<u8>, Vec<u8>)>>;

impl Registry {
    /// Reads the snapshot, and opens the secrets in it.
    pub async fn routing_snapshot(&self, key: &MasterKey) -> Result<RoutingSnapshot> {
        let (functions, secrets, tokens) = self
            .transact(|conn| {
                Box::pin(async move {
                    sqlx::query("set transaction isolation level repeatable read, read only").execute(&mut *conn).await?;
                    let functions = sqlx::query(
                        "select n.id as namespace_id, n.name as namespace, f.id as function_id, f.name, v.id, v.number,
                            v.spec, v.bundle, v.bundle_size, v.image_digest
                         from aliases a join versions v on v.id = a.version_id
                         join functions f on f.id = a.function_id join namespaces n on n.id = f.namespace_id
                         where a.name = 'live' and f.deleted_at is null order by n.name, f.name",
                    )
                    .fetch_all(&mut *conn)
                    .await?;
                    let secrets =
                        sqlx::query("select namespace_id, name, nonce, sealed from secrets").fetch_all(&mut *conn).await?;
                    let tokens = sqlx::query(
                        "select t.id, t.hash, t.role, t.expires_at, n.name as namespace
                         from tokens t left join namespaces n on n.id = t.namespace_id
                         where t.revoked_at is null and (t.expires_at is null or t.expires_at > clock_timestamp())",
                    )
                    .fetch_all(&mut *conn)
                    .await?;
                    Ok((functions, secrets, tokens))
                })
            })
            .await?;
        let mut sealed = Sealed::new();
        for row in &secrets {
            let of = sealed.entry(NamespaceId(row.try_get("namespace_id")?)).or_default();
            of.insert(row.try_get("name")?, (row.try_get("nonce")?, row.try_get("sealed")?));
        }
        let functions = functions.iter().map(|row| routed(row, &sealed, key)).collect::<Result<_>>()?;
        let tokens = tokens
            .iter()
            .map(|row| {
                let hash: &[u8] = row.try_get("hash")?;
                Ok(TokenHash {
                    id: TokenId(row.try_get("id")?),
                    hash: hash
                        .try_into()
                        .map_err(|_| RegistryError::damaged("tokens.hash", "not 32 bytes"))?,
                    namespace: parsed_opt(row, "namespace")?,
                    role: parsed(row, "role")?,
                    expires_at: row.try_get("expires_at")?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(RoutingSnapshot { functions, tokens })
    }
}

fn routed(row: &sqlx::postgres::PgRow, sealed: &Sealed, key: &MasterKey) -> Result<RoutedFunction> {
    let namespace_id = NamespaceId(row.try_get("namespace_id")?);
    let spec: VersionSpec = json(row, "spec")?;
    let mut env: BTreeMap<String, String> =
        spec.env.iter().map(|(name, value)| (name.as_str().to_owned(), value.clone())).collect();
    let mut missing = Vec::new();
    for (variable, secret) in &spec.secrets {
        // One secret that does not open must not take every function's routes away.
        let value =
            sealed.get(&namespace_id).and_then(|of| of.get(secret.as_str())).and_then(|(nonce, sealed)| {
                key.open(namespace_id, secret.as_str(), nonce, sealed)
                    .inspect_err(|error| tracing::error!(%error, "cannot open a secret"))
                    .ok()
            });
        match value {
            Some(value) => drop(env.insert(variable.as_str().to_owned(), value)),
            None => missing.push(secret.clone()),
        }
    }
    Ok(RoutedFunction {
        namespace: parsed(row, "namespace")?,
        name: parsed(row, "name")?,
        function_id: FunctionId(row.try_get("function_id")?),
        version_id: VersionId(row.try_get("id")?),
        number: count32(row, "number")?,
        spec,
        bundle: digest(row, "bundle")?,
        bundle_size: count64(row, "bundle_size")?,
        image_digest: row.try_get("image_digest")?,
        env_resolved: env,
        missing_secrets: missing,
    })
}
