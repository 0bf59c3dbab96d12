//! Names of container images, as davit takes them: valid by construction, and with one meaning only. What an engine
//! would also take as an id, or as the beginning of one, is refused: an id names images that the user was never shown.

use std::str::FromStr;

/// Longest name without tag and digest, in bytes (the distribution project's reference grammar).
const NAME_BYTES: usize = 255;
/// Longest tag, in bytes (the same).
const TAG_BYTES: usize = 128;
/// The repository in which davit names the images that versions run in. Nobody else's to name.
pub const OWN_REPOSITORY: &str = "davit/image";

crate::text::text_like! {
    /// An image: `[host[:port]/]path[:tag][@sha256:digest]`.
    pub struct ImageName = "registry.example.com/team/app:1.4";
}

impl ImageName {
    /// The name without tag and digest.
    pub fn repository(&self) -> &str {
        split(&self.0).0
    }

    /// The tag; none does not mean none, but `latest`.
    pub fn tag(&self) -> Option<&str> {
        split(&self.0).1
    }

    /// `sha256:` and 64 hex digits, when the name is that of one image for ever.
    pub fn digest(&self) -> Option<&str> {
        split(&self.0).2
    }

    /// The registry that the name itself says, with its port. Without one the engine knows where to look.
    pub fn host(&self) -> Option<&str> {
        host(self.repository())
    }

    /// The last part of the path: what the image is called among people.
    pub fn short(&self) -> &str {
        let repository = self.repository();
        repository.rsplit_once('/').map_or(repository, |(_, last)| last)
    }

    /// The name with what an engine would fill in: by digest where there is one, by tag otherwise.
    pub fn full(&self) -> String {
        match self.digest() {
            Some(digest) => self.at(digest),
            None => format!("{}:{}", self.repository(), self.tag().unwrap_or("latest")),
        }
    }

    /// The image of this repository with this digest.
    pub fn at(&self, digest: &str) -> String {
        format!("{}@{digest}", self.repository())
    }
}

/// Repository, tag and digest.
fn split(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    let path = rest.rfind('/').map_or(0, |slash| slash + 1);
    match rest[path..].find(':') {
        Some(colon) => (&rest[..path + colon], Some(&rest[path + colon + 1..]), digest),
        None => (rest, None, digest),
    }
}

/// As engines tell a host from the first folder of a path: by a dot, a port, or its being this machine.
fn host(repository: &str) -> Option<&str> {
    let (first, _) = repository.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

impl FromStr for ImageName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str =
            "write an image like app:1.4, registry.example.com/team/app:1.4 or app@sha256:…, in lower case";
        let (repository, tag, digest) = split(text);
        let host = host(repository);
        let path = host.map_or(repository, |host| &repository[host.len() + 1..]);
        let good = repository.len() <= NAME_BYTES
            && host.is_none_or(is_host)
            && path.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        if !good {
            return Err(RULE.into());
        }
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        if repository == "sha256" || (repository.len() == 64 && hex(repository)) {
            return Err("an image is named, not said by its id; give it a name with `docker tag`".into());
        }
        if repository == OWN_REPOSITORY {
            return Err(format!("{OWN_REPOSITORY} is where davit names what versions run in"));
        }
        Ok(Self(text.into()))
    }
}

/// A host name or IPv4 address, with or without a port.
fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Lower-case letters and digits, with `.`, `_`, `__` or hyphens between them.
fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|b| plain(*b)) && bytes.last().is_some_and(|b| plain(*b));
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && separators
        .filter(|between| !between.is_empty())
        .all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    (1..=TAG_BYTES).contains(&bytes.len())
        && word(bytes[0])
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:84008a41e51615a49fc9966191ff91509e3c40b939176e643fd50a5c2196b8f8";

    fn name(text: &str) -> ImageName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_taken_apart() {
        let whole = name(&format!("registry.example.com:5000/team/my-app_x:1.4@{DIGEST}"));
        assert_eq!(whole.host(), Some("registry.example.com:5000"));
        assert_eq!(whole.repository(), "registry.example.com:5000/team/my-app_x");
        assert_eq!((whole.tag(), whole.digest(), whole.short()), (Some("1.4"), Some(DIGEST), "my-app_x"));
        assert_eq!(whole.full(), format!("registry.example.com:5000/team/my-app_x@{DIGEST}"));
        for (text, host, full) in [
            ("app", None, "app:latest"),
            ("team/app:2", None, "team/app:2"),
            ("localhost/app", Some("localhost"), "localhost/app:latest"),
            ("127.0.0.1:5000/app", Some("127.0.0.1:5000"), "127.0.0.1:5000/app:latest"),
        ] {
            assert_eq!((name(text).host(), name(text).full().as_str()), (host, full), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let id = DIGEST.strip_prefix("sha256:").unwrap();
        for bad in [
            "",
            ":",
            "@",
            "/",
            "App",
            "app:",
            "app@",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a b",
            "a\0",
            "../a",
            "host:99999/a",
            "host:0/a",
            "a.b:/c",
            "-x.y/a",
            "app:.x",
            "app@sha256:12",
            "app@md5:12",
            id,
            DIGEST,
            "davit/image:x",
            "davit/image",
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
        assert!(format!("a/{}", "b".repeat(300)).parse::<ImageName>().is_err());
        assert!(format!("a:{}", "b".repeat(129)).parse::<ImageName>().is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "[a-zA-Z0-9.:/@_-]{0,60}|\\PC{0,40}") {
            if let Ok(name) = text.parse::<ImageName>() {
                prop_assert_eq!(name.as_str(), text.as_str());
                // What is filled in is again a name of the same image.
                let full: ImageName = name.full().parse().unwrap();
                prop_assert_eq!((full.repository(), full.full()), (name.repository(), name.full()));
            }
        }

        #[test]
        fn whatever_is_put_together_is_taken_apart_again(
            host in proptest::option::of("[a-z]{1,8}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?"),
            path in "[a-z0-9]{1,8}([-._][a-z0-9]{1,4})?(/[a-z0-9]{1,8}){0,2}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}"),
        ) {
            // Words of hex digits alone are let be: only whole ids are 64 long.
            let repository = host.as_ref().map_or(path.clone(), |host| format!("{host}/{path}"));
            prop_assume!(host.is_some() || !path.split('/').next().unwrap_or_default().contains('.') || !path.contains('/'));
            prop_assume!(repository != "sha256" && repository != OWN_REPOSITORY);
            let text = tag.as_ref().map_or(repository.clone(), |tag| format!("{repository}:{tag}"));
            let name = name(&text);
            prop_assert_eq!((name.host(), name.repository(), name.tag()), (host.as_deref(), repository.as_str(), tag.as_deref()));
        }
    }
}
