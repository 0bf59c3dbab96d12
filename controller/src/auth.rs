//! Who is calling, and whether they may. Every management route passes [`authenticate`] and [`authorise`]
//! before its handler, or any of the body, is looked at; see the table in `http/mod.rs` for who may what.

use davit_api::{ApiError, ErrorCode, NamespaceName, Role, TokenId};
use davit_registry::{Registry, RegistryError, hash_token};
use http::{HeaderMap, header};

/// The owner of a good token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) token: TokenId,
    /// The token's description, for the audit log.
    pub(crate) actor: String,
    /// The namespace it is bound to; none means all.
    pub(crate) namespace: Option<NamespaceName>,
    pub(crate) role: Role,
}

/// How far a route reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// One namespace, named by `{ns}` in its path: a token bound to another one is refused.
    Namespace,
    /// Nothing of anyone's, or a list that its handler cuts to the caller's namespace.
    Own,
    /// The whole installation: tokens that are bound to a namespace are refused.
    Installation,
}

/// Longest token that is looked at; real ones have 47 characters.
const MAX_TOKEN: usize = 200;

/// Finds the caller by the hash of its token. The comparison is the database's lookup of a SHA-256: how long
/// it takes says something about hashes, nothing about tokens.
pub(crate) async fn authenticate(registry: &Registry, headers: &HeaderMap) -> Result<Caller, RegistryError> {
    let unauthenticated =
        |message: &str| RegistryError::Refused(ApiError::new(ErrorCode::Unauthenticated, message));
    let token = bearer(headers)
        .ok_or_else(|| unauthenticated("send a token as the header: Authorization: Bearer dvt_…"))?;
    let found = registry
        .find_token(hash_token(token))
        .await?
        .ok_or_else(|| unauthenticated("this token is unknown, expired or revoked"))?;
    Ok(Caller { token: found.id, actor: found.description, namespace: found.namespace, role: found.role })
}

/// The bearer token, if there is exactly one well-formed one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let good = scheme.eq_ignore_ascii_case("bearer")
        && (1..=MAX_TOKEN).contains(&token.len())
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    good.then_some(token)
}

/// Whether the caller may use a route of this role and reach on this namespace.
pub(crate) fn authorise(
    caller: &Caller,
    role: Role,
    reach: Reach,
    namespace: Option<&NamespaceName>,
) -> Result<(), ApiError> {
    let forbidden = |message: String| Err(ApiError::new(ErrorCode::Forbidden, message));
    let in_reach = match (reach, &caller.namespace, namespace) {
        (_, None, _) | (Reach::Own, Some(_), _) => true,
        (Reach::Namespace, Some(own), Some(asked)) => own == asked,
        (Reach::Namespace, Some(_), None) | (Reach::Installation, Some(_), _) => false,
    };
    if !in_reach {
        return match &caller.namespace {
            Some(own) => forbidden(format!("this token is bound to the namespace {own}")),
            None => forbidden("this token does not reach this".into()),
        };
    }
    if caller.role < role {
        return forbidden(format!("this needs the role {role}, and the token has {}", caller.role));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|v| (header::AUTHORIZATION, v.parse().unwrap())).collect()
    }

    #[test]
    fn only_one_well_formed_bearer_token_counts() {
        assert_eq!(bearer(&headers(&["Bearer dvt_a-B_1"])), Some("dvt_a-B_1"));
        assert_eq!(bearer(&headers(&["bearer x"])), Some("x"));
        let long = format!("Bearer {}", "a".repeat(300));
        for bad in [
            &[][..],
            &["Basic dXNlcg=="],
            &["Bearer "],
            &["Bearer a b"],
            &["Bearer a", "Bearer b"],
            &["Bearer  a"],
            &[&long],
        ] {
            assert_eq!(bearer(&headers(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn a_bound_token_never_leaves_its_namespace_whatever_its_role() {
        let (own, other): (NamespaceName, NamespaceName) = ("own".parse().unwrap(), "other".parse().unwrap());
        for role in [Role::Read, Role::Invoke, Role::Deploy, Role::Admin] {
            let bound =
                Caller { token: TokenId::new(), actor: String::new(), namespace: Some(own.clone()), role };
            let may = |need, reach, ns| authorise(&bound, need, reach, ns).is_ok();
            assert!(!may(Role::Read, Reach::Namespace, Some(&other)));
            assert!(!may(Role::Read, Reach::Namespace, None));
            assert!(!may(Role::Read, Reach::Installation, None));
            assert!(may(Role::Read, Reach::Namespace, Some(&own)));
            assert_eq!(may(Role::Deploy, Reach::Namespace, Some(&own)), role >= Role::Deploy);
        }
    }
}
