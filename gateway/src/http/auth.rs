//! Who is calling: bearer tokens against the snapshot's hashes. No database.

use chrono::Utc;
use davit_api::{ApiError, ErrorCode, NamespaceName, Role, TokenId};
use davit_registry::hash_token;
use http::{HeaderMap, header};

use crate::routes::Table;

/// How every token of davit begins.
const PREFIX: &str = "dvt_";

/// Checks that the request carries a token which may act as `role` in `namespace`, and says which.
pub(super) fn require(
    table: &Table,
    headers: &HeaderMap,
    namespace: &NamespaceName,
    role: Role,
) -> Result<TokenId, ApiError> {
    let unauthenticated = |why: &str| ApiError::new(ErrorCode::Unauthenticated, why);
    let secret =
        bearer(headers).ok_or_else(|| unauthenticated("a token is needed: Authorization: Bearer dvt_…"))?;
    let token = table.token(&hash_token(secret), Utc::now());
    let token = token.ok_or_else(|| unauthenticated("the token is unknown, expired or revoked"))?;
    if token.namespace.as_ref().is_some_and(|bound| bound != namespace) {
        return Err(ApiError::new(ErrorCode::Forbidden, "the token belongs to another namespace"));
    }
    if token.role < role {
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            format!("the token's role is {}, this needs {role}", token.role),
        ));
    }
    Ok(token.id)
}

/// The bearer token, when there is exactly one `Authorization` header and it holds one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = all.next()?.to_str().ok()?;
    if all.next().is_some() {
        return None;
    }
    let (scheme, secret) = value.split_once(' ')?;
    let secret = secret.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && secret.len() <= 256 && !secret.is_empty()).then_some(secret)
}

/// Takes a token of davit out of the headers: a function must not see it, whether or not it was needed.
pub(super) fn hide_token(headers: &mut HeaderMap) {
    if headers.get_all(header::AUTHORIZATION).iter().any(|value| is_ours(value.as_bytes())) {
        headers.remove(header::AUTHORIZATION);
    }
}

/// Whether the value of an `Authorization` header holds a token of davit, or cannot be read for certain.
pub(super) fn is_ours(value: &[u8]) -> bool {
    !value.iter().all(|byte| matches!(byte, b'\t' | 0x20..0x7f))
        || value.windows(PREFIX.len()).any(|part| part == PREFIX.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::TokenEntry;
    use std::collections::HashMap;

    fn table(namespace: Option<&str>, role: Role, expired: bool) -> Table {
        let entry = TokenEntry {
            id: TokenId::new(),
            namespace: namespace.map(|n| n.parse().unwrap()),
            role,
            expires_at: expired.then(|| Utc::now() - chrono::TimeDelta::seconds(1)),
        };
        Table::build(Vec::new(), HashMap::from([(hash_token("dvt_x"), entry)]))
    }

    fn ask(table: &Table, value: &str) -> Result<(), ErrorCode> {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        let token = require(table, &headers, &"shop".parse().unwrap(), Role::Invoke);
        token.map(drop).map_err(|e| e.code)
    }

    #[test]
    fn a_token_must_be_known_fresh_of_the_namespace_and_strong_enough() {
        assert_eq!(ask(&table(None, Role::Invoke, false), "Bearer dvt_x"), Ok(()));
        assert_eq!(ask(&table(Some("shop"), Role::Admin, false), "bearer  dvt_x"), Ok(()));
        assert_eq!(ask(&table(Some("other"), Role::Admin, false), "Bearer dvt_x"), Err(ErrorCode::Forbidden));
        assert_eq!(ask(&table(None, Role::Read, false), "Bearer dvt_x"), Err(ErrorCode::Forbidden));
        assert_eq!(ask(&table(None, Role::Admin, true), "Bearer dvt_x"), Err(ErrorCode::Unauthenticated));
        for bad in ["Bearer dvt_y", "Bearer", "Bearer ", "Basic dvt_x", "dvt_x"] {
            assert_eq!(ask(&table(None, Role::Admin, false), bad), Err(ErrorCode::Unauthenticated), "{bad}");
        }
    }

    #[test]
    fn functions_see_their_own_authorization_but_no_token_of_ours() {
        for (value, kept) in [("Bearer dvt_x", false), ("Basic abc", true), ("Bearer eyJ", true)] {
            let mut headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            hide_token(&mut headers);
            assert_eq!(headers.contains_key(header::AUTHORIZATION), kept, "{value}");
        }
    }
}
