//! What goes on while a command works, on standard error: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::escape::visible;
use crate::output::{Colour, note, paint};

/// One piece of work being watched.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last: Mutex<String>,
    /// What it is about, before each of its words; empty where there is only one.
    about: String,
}

/// Several pieces of work at a time, each with a line of its own.
pub(crate) struct Several(MultiProgress);

impl Several {
    pub(crate) fn new() -> Self {
        Self(MultiProgress::new())
    }

    /// One of them, called `name` in what is said.
    pub(crate) fn one(&self, name: &str, step: &str) -> Progress {
        let bar = Progress::spinner().map(|bar| self.0.add(bar));
        let progress = Progress { bar, last: Mutex::default(), about: format!("{name}: ") };
        progress.step(step);
        progress
    }
}

impl Progress {
    /// Starts with a first step.
    pub(crate) fn start(step: &str) -> Self {
        let progress = Self { bar: Self::spinner(), last: Mutex::default(), about: String::new() };
        progress.step(step);
        progress
    }

    /// On a terminal.
    fn spinner() -> Option<ProgressBar> {
        std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        })
    }

    /// The step that is being done now.
    pub(crate) fn step(&self, text: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}{text}", self.about)),
            None if *last != text => note(format!("{}{text}", self.about)),
            None => {}
        }
        text.clone_into(&mut last);
    }

    /// What the spinner says while lines go by; where there is none, the lines say it all.
    pub(crate) fn status(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}{text}", self.about));
        }
    }

    /// [`Progress::status`] for work that outlives a borrow.
    pub(crate) fn teller(&self) -> impl Fn(&str) + Send + Sync + use<> {
        let (bar, about) = (self.bar.clone(), self.about.clone());
        move |text| {
            if let Some(bar) = &bar {
                bar.set_message(format!("{about}{text}"));
            }
        }
    }

    /// A line of somebody else's output.
    pub(crate) fn line(&self, text: &str) {
        let text = format!("  {}{}", self.about, visible(text));
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
        let sign = paint(Colour::Green, "✓", std::io::stderr().is_terminal());
        note(format!("{sign} {}{text}", self.about));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
