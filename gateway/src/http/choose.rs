//! Which version a request asks for, and what of it decides where several answer. Pure.

use davit_api::{AliasName, ApiError, ErrorCode, Qualifier, Sticky};
use http::HeaderMap;

use crate::version::LiveVersion;

/// The header that names a version by its number, or an alias.
pub(super) const VERSION: &str = "x-davit-version";

/// The version or alias that the request names.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Option<Qualifier>, ApiError> {
    let mut all = headers.get_all(VERSION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(ApiError::field(VERSION, "given twice"));
    }
    let text = value.to_str().map_err(|_| ApiError::field(VERSION, "not text"))?;
    text.trim().parse().map(Some).map_err(|e| ApiError::field(VERSION, e))
}

/// The value among these headers that decides: of the header, or of the cookie in any `Cookie` header. The first one, if
/// there are several.
pub(super) fn key<'h>(
    sticky: &Sticky,
    mut headers: impl Iterator<Item = (&'h str, &'h [u8])>,
) -> Option<&'h [u8]> {
    match sticky {
        Sticky::Header(wanted) => {
            headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim_ascii())
        }
        Sticky::Cookie(wanted) => headers
            .filter(|(name, _)| name.eq_ignore_ascii_case("cookie"))
            .flat_map(|(_, value)| value.split(|byte| *byte == b';'))
            .find_map(|pair| {
                let rest = pair.trim_ascii().strip_prefix(wanted.as_bytes())?.strip_prefix(b"=")?;
                Some(rest.trim_ascii())
            }),
    }
}

/// The answer to who asks for an alias that is not there.
pub(super) fn no_alias(live: &LiveVersion, alias: &AliasName) -> ApiError {
    let text = format!("{}/{} has no alias {alias}", live.namespace, live.function);
    ApiError::new(ErrorCode::NotFound, text)
}

/// A request's headers as [`key`] takes them.
pub(super) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(sticky: &str, headers: &[(&str, &str)]) -> Option<String> {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        key(&sticky.parse().unwrap(), headers).map(|k| String::from_utf8(k.to_vec()).unwrap())
    }

    #[test]
    fn a_header_or_a_cookie_decides() {
        let headers = [("X-User", " 7 "), ("cookie", "a=1; session=x=y;b=2"), ("Cookie", "late=3")];
        assert_eq!(found("header:x-user", &headers).as_deref(), Some("7"));
        assert_eq!(found("cookie:session", &headers).as_deref(), Some("x=y"));
        assert_eq!(found("cookie:late", &headers).as_deref(), Some("3"));
        assert_eq!(found("cookie:sess", &headers), None);
        assert_eq!(found("header:x-other", &headers), None);
    }

    #[test]
    fn a_version_is_named_once_and_readably() {
        let wanted = |values: &[&'static str]| {
            let mut map = HeaderMap::new();
            for value in values {
                map.append(VERSION, http::HeaderValue::from_static(value));
            }
            wanted(&map).map(|q| q.map(|q| q.to_string())).map_err(|e| e.message)
        };
        assert_eq!(wanted(&[]), Ok(None));
        assert_eq!(wanted(&["7"]), Ok(Some("7".into())));
        assert_eq!(wanted(&["beta"]), Ok(Some("beta".into())));
        for bad in [&["7", "7"][..], &["0"], &[""], &["A b"], &["../x"]] {
            assert!(wanted(bad).unwrap_err().starts_with("x-davit-version:"), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cookie_header_is_read(value in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = key(&"cookie:a".parse().unwrap(), std::iter::once(("cookie", &value[..])));
        }
    }
}
