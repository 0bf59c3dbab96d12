//! Cross-origin resource sharing (Fetch standard, section 3.3): which pages in browsers may call and read.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{FieldName, MethodMatch};

/// Origins, headers or exposed headers of one setting.
const LIST: usize = 64;
/// Longest time that a browser is told to remember what it may do: a day, which is the most that any heeds.
const MAX_AGE_SECONDS: u32 = 86_400;

/// Which pages may call, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Where pages come from: `https://app.example.com`, `https://*.example.com`, `http://localhost:3000`, or `*` for
    /// everywhere.
    pub origins: Vec<Origin>,
    /// Which methods they may use. Default: those that the address takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<MethodMatch>,
    /// Which request headers they may send besides the simple ones; `*` for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<FieldName>,
    /// Which response headers they may read besides the simple ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed_headers: Vec<FieldName>,
    /// Whether they may send cookies and other credentials. Not together with the origin `*`. Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub credentials: bool,
    /// How long browsers may remember the answer to a preflight, in seconds: 0 to 86400. Default: what the browser does
    /// without being told, 5 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub max_age_seconds: Option<u32>,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Cors {
    /// The field that is wrong, and what about it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.origins.is_empty() {
            return Err(("origins", "name at least one, or \"*\"".into()));
        }
        let lists = [
            ("origins", self.origins.len()),
            ("methods", self.methods.len()),
            ("headers", self.headers.len()),
            ("exposed_headers", self.exposed_headers.len()),
        ];
        if let Some((field, _)) = lists.iter().find(|(_, length)| *length > LIST) {
            return Err((field, format!("at most {LIST}")));
        }
        if self.credentials && self.origins.iter().any(Origin::is_any) {
            let why = "browsers refuse credentials for the origin \"*\"; name the origins";
            return Err(("credentials", why.into()));
        }
        match self.max_age_seconds {
            Some(seconds) if seconds > MAX_AGE_SECONDS => {
                Err(("max_age_seconds", format!("must be 0 to {MAX_AGE_SECONDS}, not {seconds}")))
            }
            _ => Ok(()),
        }
    }
}

crate::text::text_like! {
    /// Where a page comes from (RFC 6454): `scheme://host`, with the port unless it is the scheme's own. Or `*`. The host
    /// may begin with `*.`, which stands for one or more labels.
    pub struct Origin = "https://app.example.com";
}

impl Origin {
    /// Whether it is every origin.
    pub fn is_any(&self) -> bool {
        &*self.0 == "*"
    }
    /// Whether a page with this `Origin` header comes from here.
    pub fn matches(&self, origin: &str) -> bool {
        if self.is_any() || *self.0 == *origin {
            return true;
        }
        let Some((scheme, suffix)) = self.0.split_once("://*") else { return false };
        let host = origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        host.and_then(|host| host.strip_suffix(suffix)).is_some_and(|labels| {
            !labels.is_empty() && labels.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        })
    }
}

impl FromStr for Origin {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let shown = || text.chars().take(80).collect::<String>();
        let bad = || {
            format!(
                "origin {:?}: write scheme://host[:port] in lower case and without a path, such as \
                 https://app.example.com, or *",
                shown()
            )
        };
        if text == "*" {
            return Ok(Self(text.into()));
        }
        let (scheme, authority) = text.split_once("://").ok_or_else(bad)?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let good_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
        let label = |l: &str| {
            !l.is_empty()
                && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
        };
        let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| {
            !h.is_empty()
                && h.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b":.".contains(&b))
        });
        let good_host = address || host.strip_prefix("*.").unwrap_or(host).split('.').all(label);
        let good_port =
            port.is_none_or(|port| port.parse::<u16>().is_ok_and(|p| p > 0 && p.to_string() == port));
        if !good_scheme || !good_host || !good_port || text.len() > 300 {
            return Err(bad());
        }
        if matches!((scheme, port), ("http", Some("80")) | ("https", Some("443"))) {
            return Err(format!("origin {:?}: browsers leave the scheme's own port out", shown()));
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origin(text: &str) -> Origin {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_a_browser_could_send_is_an_origin() {
        for good in [
            "*",
            "https://a.example.com",
            "http://localhost:3000",
            "https://*.example.com:8443",
            "http://[::1]:8080",
            "capacitor://localhost",
        ] {
            assert!(good.parse::<Origin>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "https://",
            "https://a/",
            "https://a/path",
            "https://A",
            "null",
            "https://a:443",
            "http://a:80",
            "https://a:0",
            "https://a:x",
            "https://a:080",
            "https://a b",
            "https://*",
            "https://a.*.b",
            "https://user@a",
            "://a",
            "https://a?x",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_labels_and_nothing_else() {
        let any = origin("https://*.example.com");
        assert!(any.matches("https://a.example.com") && any.matches("https://a.b.example.com"));
        for other in [
            "https://example.com",
            "http://a.example.com",
            "https://aexample.com",
            "https://a.example.com:8443",
            "https://a.example.com.evil.org",
            "https://evil.org/.example.com",
            "https://evil.org#.example.com",
            "https://x@evil:1.example.com",
            "https://.example.com.evil.org",
        ] {
            assert!(!any.matches(other), "{other}");
        }
        assert!(origin("*").matches("null"));
        assert!(!origin("http://localhost:3000").matches("http://localhost:30001"));
    }

    proptest! {
        #[test]
        fn an_origin_matches_itself_and_survives_json(host in "[a-z]{1,8}(\\.[a-z0-9-]{1,8}){0,3}", port in 1000_u16..) {
            let text = format!("https://{host}:{port}");
            let parsed = origin(&text);
            prop_assert!(parsed.matches(&text));
            let json = serde_json::to_string(&parsed).unwrap();
            prop_assert_eq!(serde_json::from_str::<Origin>(&json).unwrap(), parsed);
        }

        #[test]
        fn nothing_that_matches_a_wildcard_is_another_host(other in "\\PC{0,40}") {
            let matched = origin("https://*.example.com").matches(&other);
            prop_assert!(!matched || (other.ends_with(".example.com") && !other[8..].contains(['/', '@', ':', '?', '#'])));
        }
    }
}
