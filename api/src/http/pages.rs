//! Bodies for errors that the platform itself answers with.

use serde::{Deserialize, Serialize};

/// Pages of one setting.
const PAGES: usize = 8;
/// All bodies of one setting together: every gateway holds them in memory.
const BYTES: usize = 32 * 1024;
/// Statuses that can have a page.
const STATUSES: std::ops::RangeInclusive<u16> = 400..=599;

/// What callers get instead of the platform's JSON when it answers with one of these statuses. What the function itself
/// answers is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorPage {
    /// Which statuses, 400 to 599.
    pub statuses: Vec<u16>,
    /// The body's media type. Default: `text/html; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The body; all of a function's together at most 32 KiB.
    pub body: String,
}

impl ErrorPage {
    /// The body's media type.
    pub fn content_type(&self) -> &str {
        self.content_type.as_deref().unwrap_or("text/html; charset=utf-8")
    }
}

/// What is wrong with these pages.
pub(super) fn check(pages: &[ErrorPage]) -> Result<(), String> {
    if pages.len() > PAGES {
        return Err(format!("at most {PAGES}"));
    }
    let mut seen = std::collections::HashSet::new();
    for page in pages {
        if page.statuses.is_empty() {
            return Err("statuses: name at least one, such as 503".into());
        }
        for status in &page.statuses {
            if !STATUSES.contains(status) {
                return Err(format!("{status} is no error; use {} to {}", STATUSES.start(), STATUSES.end()));
            }
            if !seen.insert(status) {
                return Err(format!("{status} has two pages"));
            }
        }
        let kind = page.content_type();
        if kind.is_empty() || kind.len() > 128 || !kind.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return Err("content_type: at most 128 printable ASCII characters, such as text/html".into());
        }
    }
    let bytes: usize = pages.iter().map(|page| page.body.len()).sum();
    if bytes > BYTES {
        return Err(format!("{bytes} bytes together, the limit is {BYTES}"));
    }
    Ok(())
}
