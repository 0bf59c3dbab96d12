//! Why a request is refused: what is wrong with it, and where.

use davit_api::{ApiError, ErrorCode};

/// Problems that are told.
pub(super) const TOLD: usize = 5;
/// Longest text of one.
const CHARS: usize = 200;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which error it is.
    pub code: ErrorCode,
    /// What is wrong, each with its place in front: `query.limit`, `body/items/0/name`.
    pub problems: Vec<String>,
    /// Whether there are more than are told.
    pub more: bool,
}

impl Refusal {
    /// A refusal for one reason.
    pub(super) fn one(code: ErrorCode, place: &str, message: &str) -> Self {
        let mut refusal = Self { code, problems: Vec::new(), more: false };
        refusal.add(place, message);
        refusal
    }

    /// No problem yet.
    pub(super) fn none() -> Self {
        Self { code: ErrorCode::InvalidRequest, problems: Vec::new(), more: false }
    }

    /// One more.
    pub(super) fn add(&mut self, place: &str, message: &str) {
        if self.problems.len() >= TOLD {
            self.more = true;
            return;
        }
        let text = format!("{place}: {message}");
        self.problems.push(match text.char_indices().nth(CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        });
    }

    /// Whether it is one.
    pub(super) fn checked(self) -> Result<(), Self> {
        if self.problems.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let more = if refusal.more { "; and more" } else { "" };
        Self::new(refusal.code, format!("{}{more}", refusal.problems.join("; ")))
    }
}
