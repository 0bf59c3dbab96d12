//! Names inside an archive, valid by construction.

const MAX_BYTES: usize = 1024;
const MAX_DEPTH: usize = 64;
const MAX_SEGMENT: usize = 255;

/// A relative path of plain segments, joined by single slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CleanPath(String);

impl CleanPath {
    /// The path, or what is wrong with the name. `None` is the archive's own root (`./`).
    pub fn parse(name: &str) -> Result<Option<Self>, &'static str> {
        if name.len() > MAX_BYTES {
            return Err("the name is longer than 1,024 bytes");
        }
        if name.chars().any(char::is_control) {
            return Err("control characters in a name are not allowed");
        }
        if name.starts_with('/') {
            return Err("absolute names are not allowed");
        }
        if name.contains('\\') {
            return Err("backslashes in a name are not allowed");
        }
        let mut segments = Vec::new();
        for segment in name.split('/') {
            match segment {
                "" | "." => {}
                ".." => return Err("names that climb with .. are not allowed"),
                long if long.len() > MAX_SEGMENT => {
                    return Err("a part of the name is longer than 255 bytes");
                }
                plain => segments.push(plain),
            }
        }
        if segments.len() > MAX_DEPTH {
            return Err("more than 64 folders deep");
        }
        if segments.is_empty() {
            return if name.is_empty() { Err("an empty name is not allowed") } else { Ok(None) };
        }
        Ok(Some(Self(segments.join("/"))))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Every folder above it, outermost first.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}
