//! Credentials for image registries, as a secret holds them. Pure. What is read here is shown to the engine and to
//! nobody else: no error repeats any of it.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// User and password, or a token, for one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password; empty with an identity token.
    pub password: String,
    /// A token that stands for both.
    pub identity_token: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

/// What one secret opens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Logins {
    /// Nothing.
    #[default]
    None,
    /// Whichever registry is asked.
    Any(Login),
    /// These registries, by host and port.
    Hosts(BTreeMap<String, Login>),
}

/// What stands for the engine's default registry among the hosts.
const DEFAULT_HOST: &str = "";
/// So end the addresses under which Docker's client notes the login of its default registry, and of no other.
const DEFAULT_PATH: &str = "/v1/";

impl Logins {
    /// Reads a secret: `user:password`, or a Docker config (`{"auths": {"host": {"auth": "…"}}}`), of which helpers and
    /// anything else are left out. The error says what is wrong with its form, and nothing of its content.
    pub fn parse(secret: &str) -> Result<Self, &'static str> {
        let secret = secret.trim();
        if secret.starts_with('{') {
            return config(secret);
        }
        match secret.split_once(':') {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(Self::Any(Login {
                user: user.to_owned(),
                password: password.to_owned(),
                identity_token: None,
            })),
            _ => Err("it is neither user:password nor a Docker config in JSON"),
        }
    }

    /// What opens a registry; `None` as the host stands for the engine's default one.
    pub fn of(&self, host: Option<&str>) -> Option<&Login> {
        match self {
            Self::None => None,
            Self::Any(login) => Some(login),
            Self::Hosts(hosts) => hosts.get(host.unwrap_or(DEFAULT_HOST)),
        }
    }
}

#[derive(Deserialize)]
struct Config {
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

fn config(secret: &str) -> Result<Logins, &'static str> {
    let config: Config =
        serde_json::from_str(secret).map_err(|_| "it is no Docker config with auths in JSON")?;
    let mut hosts = BTreeMap::new();
    for (key, auth) in config.auths {
        hosts.insert(host_of(&key).to_owned(), login(auth)?);
    }
    if hosts.is_empty() {
        Err("its Docker config names no registry in auths")
    } else {
        Ok(Logins::Hosts(hosts))
    }
}

fn login(auth: Auth) -> Result<Login, &'static str> {
    const WRONG: &str = "an entry of its auths has neither auth nor username and password";
    let (user, password) = match (auth.auth.filter(|auth| !auth.is_empty()), auth.username, auth.password) {
        (Some(both), ..) => {
            let both = STANDARD.decode(both.trim_end_matches('\0')).ok();
            let both = both
                .and_then(|both| String::from_utf8(both).ok())
                .ok_or("an auth of its auths is no base64")?;
            let (user, password) = both.split_once(':').ok_or(WRONG)?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        (None, Some(user), Some(password)) => (user, password),
        (None, user, _) if auth.identitytoken.is_some() => (user.unwrap_or_default(), String::new()),
        (None, ..) => return Err(WRONG),
    };
    Ok(Login { user, password, identity_token: auth.identitytoken })
}

/// A key of `auths` is a host, or an address with one.
fn host_of(key: &str) -> &str {
    if key.ends_with(DEFAULT_PATH) {
        return DEFAULT_HOST;
    }
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    key.split('/').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(login: Option<&Login>) -> Option<(&str, &str)> {
        login.map(|login| (login.user.as_str(), login.password.as_str()))
    }

    #[test]
    fn both_forms_are_read_and_only_named_hosts_are_opened() {
        let any = Logins::parse("ada:pass:word\n").unwrap();
        assert_eq!(pair(any.of(Some("x.test"))), Some(("ada", "pass:word")));
        assert_eq!(pair(any.of(None)), Some(("ada", "pass:word")));
        let text = serde_json::json!({
            "auths": {
                "registry.test:5000": { "auth": STANDARD.encode("ada:secret") },
                "https://default.test/v1/": { "username": "bob", "password": "other" },
                "token.test": { "identitytoken": "t" },
            },
            "credsStore": "desktop",
        });
        let hosts = Logins::parse(&text.to_string()).unwrap();
        assert_eq!(pair(hosts.of(Some("registry.test:5000"))), Some(("ada", "secret")));
        assert_eq!(pair(hosts.of(None)), Some(("bob", "other")));
        assert_eq!(hosts.of(Some("token.test")).unwrap().identity_token.as_deref(), Some("t"));
        assert_eq!(hosts.of(Some("registry.test")), None);
        assert_eq!(Logins::None.of(None), None);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for bad in [
            "",
            "hush",
            ":hush",
            "hush:",
            "{",
            "{}",
            r#"{"auths":{}}"#,
            r#"{"auths":{"hush.test":{}}}"#,
            r#"{"auths":{"a.test":{"auth":"hush!"}}}"#,
            r#"{"auths":{"a.test":{"auth":"aHVzaA=="}}}"#,
        ] {
            let said = Logins::parse(bad).unwrap_err();
            assert!(!said.contains("hush"), "{said}");
        }
        let login = Logins::parse("ada:hush").unwrap();
        assert!(!format!("{login:?}").contains("hush"));
    }

    proptest! {
        #[test]
        fn no_secret_makes_it_panic(text in "\\PC{0,60}|[{}\":a-z/.]{0,60}") {
            let _ = Logins::parse(&text);
        }

        #[test]
        fn a_user_and_a_password_are_what_was_written(user in "[a-z0-9_-]{1,12}", password in "[!-~]{1,20}") {
            let login = Logins::parse(&format!("{user}:{password}")).unwrap();
            prop_assert_eq!(pair(login.of(None)), Some((user.as_str(), password.as_str())));
        }
    }
}
