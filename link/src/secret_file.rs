//! A secret on its way to becoming a file in an instance. One frame each, before the init: raw bytes, since a secret may be as long
//! as a frame would not hold once it were escaped for JSON.

use bytes::{BufMut, Bytes, BytesMut};

/// Longest name, in bytes.
const NAME_BYTES: usize = u8::MAX as usize;

/// The body of its frame: the length of the name, the name, the contents. `None` when the name is too long or empty.
pub fn encode(name: &str, contents: &[u8]) -> Option<Bytes> {
    let length = u8::try_from(name.len()).ok().filter(|length| *length > 0)?;
    let mut body = BytesMut::with_capacity(1 + name.len() + contents.len());
    body.put_u8(length);
    body.put_slice(name.as_bytes());
    body.put_slice(contents);
    Some(body.freeze())
}

/// Name and contents. `None` when it is no such body, or the name could lead anywhere but to a file in its folder.
pub fn decode(body: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = body.split_first()?;
    let (name, contents) = rest.split_at_checked(usize::from(*length))?;
    let name = std::str::from_utf8(name).ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let good = (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.');
    good.then_some((name, contents))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for name in ["..", ".", "a/b", "/a", ".a", "a\0", "é"] {
            assert_eq!(decode(&encode(name, b"x").unwrap()), None, "{name:?}");
        }
        assert_eq!((encode("", b"x"), encode(&"x".repeat(256), b"x")), (None, None));
        assert_eq!((decode(&[]), decode(&[0, 1]), decode(&[9, b'a'])), (None, None, None));
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives(name in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", contents: Vec<u8>) {
            let body = encode(&name, &contents).unwrap();
            prop_assert_eq!(decode(&body), Some((name.as_str(), contents.as_slice())));
        }

        #[test]
        fn no_bytes_make_it_fall_over(body: Vec<u8>) {
            let _ = decode(&body);
        }
    }
}
