//! What a pattern asks of a text.

/// One condition on a text. What ignores case holds its own text in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Prefix { text: String, any_case: bool },
    Suffix { text: String, any_case: bool },
    AnyCase(String),
    Wildcard(Wildcard),
}

impl Text {
    pub(super) fn fits(&self, given: &str) -> bool {
        match self {
            Self::Prefix { text, any_case: false } => given.starts_with(text.as_str()),
            Self::Prefix { text, any_case: true } => given.to_lowercase().starts_with(text.as_str()),
            Self::Suffix { text, any_case: false } => given.ends_with(text.as_str()),
            Self::Suffix { text, any_case: true } => given.to_lowercase().ends_with(text.as_str()),
            Self::AnyCase(text) => given.to_lowercase() == *text,
            Self::Wildcard(wildcard) => wildcard.fits(given),
        }
    }
}

/// Text in which each `*` stands for any text, the empty one included; `\*` is a star, `\\` a backslash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wildcard {
    /// What stands between the stars: one piece more than there are stars.
    pieces: Vec<String>,
}

impl Wildcard {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = vec![String::new()];
        let mut chars = text.chars();
        let mut after_star = false;
        while let Some(c) = chars.next() {
            let literal = match c {
                '*' if after_star => return Err("two stars in a row mean the same as one".into()),
                '*' => {
                    pieces.push(String::new());
                    after_star = true;
                    continue;
                }
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '\\')) => escaped,
                    _ => return Err("a backslash stands before * or \\ only".into()),
                },
                other => other,
            };
            after_star = false;
            if let Some(piece) = pieces.last_mut() {
                piece.push(literal);
            }
        }
        Ok(Self { pieces })
    }

    /// Takes each piece at the first place where it is found, which never rules a later one out.
    fn fits(&self, given: &str) -> bool {
        let [first, between @ .., last] = self.pieces.as_slice() else {
            return self.pieces.first().is_some_and(|only| only == given);
        };
        let Some(mut rest) = given.strip_prefix(first.as_str()) else { return false };
        for piece in between {
            let Some(place) = rest.find(piece.as_str()) else { return false };
            rest = &rest[place + piece.len()..];
        }
        rest.ends_with(last.as_str())
    }
}
