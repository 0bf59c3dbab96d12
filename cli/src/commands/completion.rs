//! `davit completion`: a script that lets a shell complete davit's commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::failure::Result;

/// Print a completion script for a shell
#[derive(Args)]
#[command(
    after_help = "Example:\n  davit completion bash > ~/.local/share/bash-completion/completions/davit"
)]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Davit::command(), "davit", &mut script);
        crate::output::raw(&script);
        Ok(())
    }
}
