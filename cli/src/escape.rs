//! Text from functions is shown on terminals, and a terminal obeys what it is shown: control characters
//! could move the cursor, rename the window or hide lines. Here they become visible instead.

use std::borrow::Cow;

/// The text with every character that a terminal could obey written as an escape. Tabs stay.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(dangerous) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            c if dangerous(c) && (c as u32) < 0x100 => safe.push_str(&format!("\\x{:02x}", c as u32)),
            c if dangerous(c) => safe.push_str(&format!("\\u{{{:x}}}", c as u32)),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Control characters (C0, DEL, C1), and those that reorder or hide text.
fn dangerous(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_shown_not_obeyed() {
        assert_eq!(visible("\u{1b}[2Jgone"), "\\x1b[2Jgone");
        assert_eq!(visible("a\rb\u{9b}1m\u{202e}x"), "a\\rb\\x9b1m\\u{202e}x");
        assert!(matches!(visible("plain\ttext – ünïcode 🚣"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn nothing_dangerous_is_left(text in any::<String>()) {
            prop_assert!(!visible(&text).chars().any(dangerous));
        }
    }
}
