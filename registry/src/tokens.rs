//! API tokens: 256 random bits, of which only the hash is stored.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use davit_api::{ErrorCode, NamespaceName, NewToken, Role, TokenCreated, TokenId, TokenView};
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::rows::{parsed, parsed_opt};
use crate::{Audited, Registry, RegistryError, Result};

/// A token that is good at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundToken {
    /// Its id.
    pub id: TokenId,
    /// What it is for.
    pub description: String,
    /// The namespace it is bound to; none means all.
    pub namespace: Option<NamespaceName>,
    /// What it may do.
    pub role: Role,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What every token begins with, so that people and scanners of leaked secrets know one.
const PREFIX: &str = "dvt_";

/// What is stored of a token's secret. It is random and long, so a plain hash is enough.
pub fn hash_token(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn view(row: &PgRow) -> Result<TokenView> {
    Ok(TokenView {
        id: TokenId(row.try_get("id")?),
        prefix: row.try_get("prefix")?,
        description: row.try_get("description")?,
        namespace: parsed_opt(row, "namespace")?,
        role: parsed(row, "role")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        last_used_at: row.try_get("last_used_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

impl Audited {
    /// Makes a token. The answer is the only place where its secret ever appears.
    pub async fn create_token(&self, new: NewToken) -> Result<TokenCreated> {
        let mut bytes = [0_u8; 32];
        rand::fill(&mut bytes);
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let view = self.insert_token(new, &token).await?;
        Ok(TokenCreated { view, token })
    }

    /// Takes in a token whose secret was made elsewhere, once: one that is known stays as it is. Answers whether it
    /// is good, which it is not once somebody revoked it. Several may take in the same at once.
    pub async fn adopt_token(&self, new: NewToken, secret: &str) -> Result<bool> {
        let hash = hash_token(secret);
        if self.registry.token_exists(hash).await? {
            return Ok(self.registry.find_token(hash).await?.is_some());
        }
        let shaped =
            |s: &str| s.len() >= 32 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !secret.strip_prefix(PREFIX).is_some_and(shaped) {
            let rule = "must be dvt_ and at least 32 letters, digits, hyphens or underscores";
            return Err(davit_api::ApiError::field("token", rule).into());
        }
        match self.insert_token(new, secret).await {
            Err(RegistryError::Refused(error)) if error.code == ErrorCode::Conflict => Ok(true),
            made => made.map(|_| true),
        }
    }

    async fn insert_token(&self, new: NewToken, secret: &str) -> Result<TokenView> {
        let namespace = match &new.namespace {
            Some(name) => Some(self.registry.namespace_id(name).await?.0),
            None => None,
        };
        let (prefix, hash) = (secret[..10].to_owned(), hash_token(secret));
        self.change_named(move |conn| {
            Box::pin(async move {
                let row = sqlx::query(
                    "insert into tokens (id, namespace_id, description, role, prefix, hash, expires_at)
                     values ($1, $2, $3, $4, $5, $6, $7) returning *, $8::text as namespace",
                )
                .bind(TokenId::new().0)
                .bind(namespace)
                .bind(&new.description)
                .bind(new.role.as_str())
                .bind(prefix)
                .bind(hash.as_slice())
                .bind(new.expires_at)
                .bind(new.namespace.as_ref().map(|n| n.as_str()))
                .fetch_one(conn)
                .await?;
                let view = view(&row)?;
                let object = view.id.to_string();
                Ok((view, object))
            })
        })
        .await
    }

    /// Revokes a token; with a namespace, only one that is bound to it.
    pub async fn revoke_token(&self, id: TokenId, namespace: Option<&NamespaceName>) -> Result<()> {
        let namespace = namespace.cloned();
        self.change(move |conn| {
            Box::pin(async move {
                let done = sqlx::query(
                    "update tokens t set revoked_at = coalesce(t.revoked_at, clock_timestamp()) where t.id = $1
                     and ($2::text is null or t.namespace_id = (select id from namespaces where name = $2))",
                )
                .bind(id.0)
                .bind(namespace.as_ref().map(|n| n.as_str()))
                .execute(conn)
                .await?;
                if done.rows_affected() == 0 {
                    return Err(RegistryError::not_found("token", id));
                }
                Ok(())
            })
        })
        .await
    }
}

impl Registry {
    /// The token behind a hash, unless it is expired or revoked.
    pub async fn find_token(&self, hash: [u8; 32]) -> Result<Option<FoundToken>> {
        let row = sqlx::query(
            "select t.id, t.description, t.role, t.expires_at, n.name as namespace
             from tokens t left join namespaces n on n.id = t.namespace_id
             where t.hash = $1 and t.revoked_at is null and (t.expires_at is null or t.expires_at > clock_timestamp())",
        )
        .bind(hash.as_slice())
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(FoundToken {
                id: TokenId(row.try_get("id")?),
                description: row.try_get("description")?,
                namespace: parsed_opt(&row, "namespace")?,
                role: parsed(&row, "role")?,
                expires_at: row.try_get("expires_at")?,
            })
        })
        .transpose()
    }

    /// Whether there is a token behind a hash, good or not.
    async fn token_exists(&self, hash: [u8; 32]) -> Result<bool> {
        let query = sqlx::query_scalar("select exists (select 1 from tokens where hash = $1)");
        Ok(query.bind(hash.as_slice()).fetch_one(&self.pool).await?)
    }

    /// Tokens of a namespace, or of all with those bound to none.
    pub async fn list_tokens(&self, namespace: Option<&NamespaceName>) -> Result<Vec<TokenView>> {
        let rows = sqlx::query(
            "select t.*, n.name as namespace from tokens t left join namespaces n on n.id = t.namespace_id
             where $1::text is null or n.name = $1 order by t.created_at",
        )
        .bind(namespace.map(|n| n.as_str()))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(view).collect()
    }

    /// Notes when tokens were used, to within a minute.
    pub async fn token_seen(&self, seen: &[(TokenId, DateTime<Utc>)]) -> Result<()> {
        if seen.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "update tokens t set last_used_at = u.at
             from (select id, max(at) as at from unnest($1::uuid[], $2::timestamptz[]) as u(id, at) group by id) u
             where t.id = u.id and (t.last_used_at is null or t.last_used_at < u.at - interval '1 minute')",
        )
        .bind(seen.iter().map(|s| s.0.0).collect::<Vec<_>>())
        .bind(seen.iter().map(|s| s.1).collect::<Vec<_>>())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
