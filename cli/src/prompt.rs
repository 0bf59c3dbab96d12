//! Questions to the person at the terminal.

use std::io::{IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::failure::{Failure, Result};

/// Asks for a yes. Without a terminal there is nobody to ask, and the answer must be on the command line.
pub(crate) fn confirm(question: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("{question} Nobody is there to answer; say --yes")));
    }
    ask(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match (read, answer.trim().to_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(Failure::Failed("nothing was done".into())),
    }
}

/// A secret: typed without echo on a terminal, else everything on standard input. One line end is dropped,
/// because `echo` adds one.
pub(crate) fn secret(question: &str, bound: usize) -> Result<String> {
    let stdin = std::io::stdin();
    let mut text = String::new();
    if stdin.is_terminal() {
        ask(question);
        let _quiet = Quiet::new();
        stdin.read_line(&mut text).map_err(|e| Failure::while_doing("standard input", e))?;
        ask("\n");
    } else {
        let limit = bound as u64 + 2;
        stdin
            .lock()
            .take(limit)
            .read_to_string(&mut text)
            .map_err(|e| Failure::while_doing("standard input", e))?;
    }
    Ok(without_line_end(text))
}

/// The text without one final line end.
pub(crate) fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

fn ask(text: &str) {
    let mut err = std::io::stderr();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Switches the terminal's echo off, and on again when dropped.
struct Quiet(Option<rustix::termios::Termios>);

impl Quiet {
    fn new() -> Self {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(mut quiet) = before.clone() {
            quiet.local_modes.remove(LocalModes::ECHO);
            let _ = tcsetattr(&stdin, OptionalActions::Flush, &quiet);
        }
        Self(before)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, before);
        }
    }
}
