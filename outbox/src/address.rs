//! The address of somebody's database, as a secret holds it. Pure.
//!
//! Strict on purpose: what a tenant writes here must not make davit open its host's files (`sslkey`, `passfile`), sockets
//! (`host=/run/…`) or services, so only what is listed is taken, and everything else is refused by its name.

use std::fmt;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode};
use url::Url;

use crate::Trouble;

/// What a shape error says; never with the value in it.
const SHAPE: &str = "is not an address of the form postgres://user:password@host:port/database";

/// Whose certificate the server must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nobody's: TLS keeps listeners out, but not an impostor.
    None,
    /// One for the name in the address, signed by somebody the machine trusts.
    Full,
}

/// Where a database is and who connects to it.
#[derive(Clone)]
pub struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) proof: Proof,
    pub(crate) config: Config,
    password: Option<String>,
}

impl fmt::Debug for Address {
    // Without the password, and without the user, who may be half of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({}:{})", self.host, self.port)
    }
}

impl Address {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, Trouble> {
        let wrong = |why: &str| Trouble::Address(format!("the secret's value {why}"));
        let url: Url = text.trim().parse().map_err(|_| wrong(SHAPE))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(wrong(SHAPE));
        }
        let host = decoded(url.host_str().unwrap_or_default()).ok_or_else(|| wrong(SHAPE))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        if host.is_empty() || host.contains(['/', ',', '\0', ' ']) {
            return Err(wrong("names no host: sockets and lists of hosts are not taken"));
        }
        let user = decoded(url.username()).filter(|user| !user.is_empty() && !user.contains('\0'));
        let user = user.ok_or_else(|| wrong("names no user"))?;
        let database = decoded(url.path().trim_start_matches('/')).ok_or_else(|| wrong(SHAPE))?;
        if database.contains('\0') {
            return Err(wrong(SHAPE));
        }
        let password = url.password().map(|p| decoded(p).ok_or_else(|| wrong(SHAPE))).transpose()?;
        let mut config = Config::new();
        config.user(&user).application_name("davit");
        config.dbname(if database.is_empty() { &user } else { &database });
        if let Some(password) = &password {
            config.password(password);
        }
        let mut proof = Proof::None;
        config.ssl_mode(SslMode::Prefer);
        for (name, value) in url.query_pairs() {
            match (name.as_ref(), value.as_ref()) {
                ("sslmode", "disable") => drop(config.ssl_mode(SslMode::Disable)),
                ("sslmode", "prefer") => {}
                ("sslmode", "require") => drop(config.ssl_mode(SslMode::Require)),
                ("sslmode", "verify-full") => {
                    config.ssl_mode(SslMode::Require);
                    proof = Proof::Full;
                }
                ("sslmode", _) => {
                    return Err(wrong("has another sslmode than disable, prefer, require or verify-full"));
                }
                ("channel_binding", "disable") => drop(config.channel_binding(ChannelBinding::Disable)),
                ("channel_binding", "prefer") => {}
                ("channel_binding", "require") => drop(config.channel_binding(ChannelBinding::Require)),
                ("channel_binding", _) => {
                    return Err(wrong("has another channel_binding than disable, prefer or require"));
                }
                ("options", value) if !value.contains('\0') => drop(config.options(value)),
                ("application_name", value) if !value.contains('\0') => drop(config.application_name(value)),
                // Times are davit's own.
                ("connect_timeout", _) => {}
                _ => {
                    let taken = "sslmode, channel_binding, options, application_name and connect_timeout";
                    return Err(wrong(&format!("has a parameter other than {taken}")));
                }
            }
        }
        Ok(Self { host, port: url.port().unwrap_or(5432), proof, config, password })
    }

    /// A sentence without the password, should a server have repeated it.
    pub(crate) fn without_password(&self, text: String) -> String {
        match self.password.as_deref().filter(|password| !password.is_empty()) {
            Some(password) => text.replace(password, "***"),
            None => text,
        }
    }
}

/// Percent-decoded; none when it is no text then.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16).and_then(|d| u8::try_from(d).ok());
        bytes.push(digit(rest.next())? * 16 + digit(rest.next())?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_as_providers_print_them_are_taken() {
        let read = Address::parse(
            "postgres://app%40x:p%2Fw@db.example.com/shop?sslmode=require&channel_binding=require",
        );
        let address = read.unwrap();
        assert_eq!(
            (address.host.as_str(), address.port, address.proof),
            ("db.example.com", 5432, Proof::None)
        );
        assert_eq!(address.config.get_user(), Some("app@x"));
        assert_eq!(address.config.get_password(), Some(b"p/w".as_slice()));
        assert_eq!(address.config.get_dbname(), Some("shop"));
        assert_eq!(address.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(format!("{address:?}"), "Address(db.example.com:5432)");
        assert_eq!(address.without_password("no p/w here".into()), "no *** here");
        let plain = Address::parse("postgresql://u@[::1]:5433\n").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("::1", 5433));
        assert_eq!((plain.config.get_dbname(), plain.config.get_ssl_mode()), (Some("u"), SslMode::Prefer));
        let full = Address::parse("postgres://u:p@h/d?sslmode=verify-full").unwrap();
        assert_eq!((full.proof, full.config.get_ssl_mode()), (Proof::Full, SslMode::Require));
    }

    #[test]
    fn what_would_open_files_or_sockets_of_the_host_is_refused_and_never_repeated() {
        for bad in [
            "",
            "host=db user=u password=hunter2",
            "mysql://u:hunter2@h/d",
            "postgres:///d?host=/run/postgresql",
            "postgres://u:hunter2@%2Frun%2Fpostgresql/d",
            "postgres://u:hunter2@h/d?host=/run",
            "postgres://u:hunter2@h/d?hostaddr=10.0.0.1",
            "postgres://u:hunter2@h/d?sslkey=/etc/shadow",
            "postgres://u:hunter2@h/d?sslrootcert=/etc/shadow",
            "postgres://u:hunter2@h/d?passfile=/root/.pgpass",
            "postgres://u:hunter2@h/d?service=prod",
            "postgres://u:hunter2@h/d?sslmode=allow",
            "postgres://u:hunter2@h1,h2/d",
            "postgres://u:hunter2@h:99999/d",
            "postgres://:hunter2@h/d",
            "postgres://h/d",
            "postgres://u:hunter2%00@h%00/d",
            "postgres://u:hunter2@h/%ff",
        ] {
            let Err(Trouble::Address(text)) = Address::parse(bad) else { panic!("{bad} is taken") };
            assert!(text.starts_with("the secret's value "), "{text}");
            assert!(!text.contains("hunter2") && !text.contains("shadow"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}", rest in "[ -~]{0,40}") {
            let _ = Address::parse(&text);
            let _ = Address::parse(&format!("postgres://u:p@{rest}"));
        }
    }
}
