//! Which request paths are taken at all.
//!
//! The gateway authorises, routes and forwards the same bytes. That is only safe when nobody behind it can read
//! those bytes as another path, so every spelling that some decoder would turn into a separator, a dot segment
//! or a terminator is refused before routing.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Why a path was refused; the text is fit for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("path: {0}")]
pub struct Refused(&'static str);

/// Checks a raw request path (without its query).
pub fn check(path: &str) -> Result<(), Refused> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Refused("must start with /"));
    }
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'\\' => return Err(Refused("a backslash is not allowed")),
            0..=0x20 | 0x7f..=0xff => {
                return Err(Refused("control characters and bytes outside ASCII must be percent-encoded"));
            }
            b'/' if bytes.get(i + 1) == Some(&b'/') => return Err(Refused("empty segments are not allowed")),
            b'%' => check_escape(bytes, i)?,
            _ => {}
        }
    }
    if path.split('/').any(is_dot_segment) {
        return Err(Refused("dot segments are not allowed"));
    }
    if bytes.contains(&b'%') && decode(path).is_none() {
        return Err(Refused("percent-encoded bytes are not UTF-8"));
    }
    Ok(())
}

/// An escape that is no escape (`%Ft`) is left alone, as AWS does; nothing here decodes it.
fn check_escape(bytes: &[u8], at: usize) -> Result<(), Refused> {
    if bytes.get(at + 1) == Some(&b'%') {
        return Err(Refused("%% could be decoded twice"));
    }
    match escaped(bytes, at) {
        Some(b'/' | b'\\') => Err(Refused("an encoded slash or backslash is not allowed")),
        Some(b'.') => Err(Refused("an encoded dot is not allowed")),
        Some(b'%') if bytes.get(at + 3).is_some_and(|b| b.is_ascii_hexdigit() || *b == b'%') => {
            Err(Refused("double encoding is not allowed"))
        }
        Some(0..=0x1f | 0x7f) => Err(Refused("encoded control characters are not allowed")),
        _ => Ok(()),
    }
}

/// The byte that the escape at `at` stands for, when it is a complete one.
fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |b: &u8| (*b as char).to_digit(16);
    let (high, low) = (digit(bytes.get(at + 1)?)?, digit(bytes.get(at + 2)?)?);
    u8::try_from(high * 16 + low).ok()
}

/// `.`, `..`, and both with parameters (`..;a=b`), which some servers strip before they resolve dots.
fn is_dot_segment(segment: &str) -> bool {
    matches!(segment.split(';').next(), Some("." | ".."))
}

/// Percent-decodes a path or a parameter; `None` when the result is not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_second_spelling_is_refused() {
        for bad in [
            "",
            "a",
            "/a/../b",
            "/..",
            "/a/.",
            "/a/%2e%2e/b",
            "/a/%2E./b",
            "/..;/b",
            "/a/.;x=1/b",
            "/a//b",
            "//",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%252e",
            "/a%25%32%65",
            "/%%32%65",
            "/a%0d%0a",
            "/a%c0%ae",
            "/a%ff",
            "/é",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ordinary_and_odd_but_harmless_paths_pass() {
        for good in [
            "/",
            "/a",
            "/a/",
            "/a/b.c",
            "/a..b",
            "/...",
            "/a%20b",
            "/%C3%A9",
            "/pa2%Fth/1",
            "/100%",
            "/a;b=c",
            "/a:b@c,d",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_passes_decodes_to_a_different_structure(path in "/[a-z%/.;\\\\2-5fFeEcC0]{0,24}") {
            if check(&path).is_ok() {
                let once = decode(&path).unwrap();
                let twice = decode(&once).unwrap_or_default();
                for text in [&once, &twice] {
                    prop_assert_eq!(text.matches('/').count(), path.matches('/').count());
                    prop_assert!(!text.contains('\\') && !text.contains('\0'));
                    prop_assert!(!text.split('/').any(is_dot_segment));
                }
            }
        }

        #[test]
        fn checking_never_panics(path in "\\PC{0,40}") {
            let _ = check(&path);
        }
    }
}
