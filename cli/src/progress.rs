//! What goes on while a command works, on standard error: a spinner on a terminal, plain lines elsewhere.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::escape::visible;
use crate::output::{Colour, note, paint};

/// One piece of work being watched.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last: RefCell<String>,
}

impl Progress {
    /// Starts with a first step.
    pub(crate) fn start(step: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let progress = Self { bar, last: RefCell::default() };
        progress.step(step);
        progress
    }

    /// The step that is being done now.
    pub(crate) fn step(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None if *self.last.borrow() != text => note(text),
            None => {}
        }
        self.last.replace(text.to_owned());
    }

    /// What the spinner says while lines go by; where there is none, the lines say it all.
    pub(crate) fn status(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// [`Progress::status`] for work that outlives a borrow.
    pub(crate) fn teller(&self) -> impl Fn(&str) + Send + Sync + use<> {
        let bar = self.bar.clone();
        move |text| {
            if let Some(bar) = &bar {
                bar.set_message(text.to_owned());
            }
        }
    }

    /// A line of somebody else's output.
    pub(crate) fn line(&self, text: &str) {
        let text = format!("  {}", visible(text));
        match &self.bar {
            Some(bar) => bar.suspend(|| note(paint(Colour::Dim, &text, true))),
            None => note(text),
        }
    }

    /// Ends it with a last word.
    pub(crate) fn done(self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        note(format!("{} {text}", paint(Colour::Green, "✓", std::io::stderr().is_terminal())));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
