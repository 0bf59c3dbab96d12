//! What a build prints, as whole lines and bounded: it comes in pieces of any length.

/// Longest line, in characters of what is shown; a longer one without an end is cut into several.
pub(super) const LINE_CHARS: usize = 4_096;
/// Longest output, in bytes. What comes after it is read and left out, so that a build does not stall on a full pipe.
pub(super) const OUTPUT_BYTES: usize = 8 * 1024 * 1024;

/// Pieces on their way to whole lines.
#[derive(Default)]
pub(super) struct Lines {
    partial: String,
    bytes: usize,
}

impl Lines {
    /// Takes a piece in; the lines that are whole now, with their ends.
    pub(super) fn take(&mut self, piece: &str) -> Vec<String> {
        self.bytes += piece.len();
        if self.bytes > OUTPUT_BYTES {
            return Vec::new();
        }
        self.partial.push_str(piece);
        let mut whole = Vec::new();
        while let Some(end) = self.partial.find('\n') {
            whole.push(self.partial.drain(..=end).collect());
        }
        if self.partial.len() > LINE_CHARS {
            whole.push(std::mem::take(&mut self.partial));
        }
        whole
    }

    /// What came after the last end of a line.
    pub(super) fn rest(self) -> Option<String> {
        (!self.partial.is_empty()).then_some(self.partial)
    }
}
