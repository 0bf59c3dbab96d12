//! `davit init`: a folder with a small function that works as it is.

use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use davit_api::FunctionName;

use crate::failure::{Failure, Result};
use crate::output::{line, note};

/// Make a new function from a template
#[derive(Args)]
#[command(
    after_help = "Examples:\n  davit init hello --template python\n  davit init api --template server --dir services/api"
)]
pub(crate) struct Init {
    /// Its name
    name: FunctionName,
    /// What to start from
    #[arg(short, long, value_enum, default_value_t = Template::Python)]
    template: Template,
    /// Folder to make [default: the function's name]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What a new function can start from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Template {
    /// A Python handler
    Python,
    /// A Node.js handler
    Node,
    /// A shell script that speaks the Lambda Runtime API
    ProvidedShell,
    /// A program that listens on $PORT
    Server,
}

/// A file of a template: its name, its text, and whether it is a program.
struct File(&'static str, &'static str, bool);

impl Template {
    fn files(self) -> &'static [File] {
        match self {
            Self::Python => &[
                File("davit.toml", include_str!("../../templates/python/davit.toml"), false),
                File("app.py", include_str!("../../templates/python/app.py"), false),
                File("requirements.txt", include_str!("../../templates/python/requirements.txt"), false),
            ],
            Self::Node => &[
                File("davit.toml", include_str!("../../templates/node/davit.toml"), false),
                File("index.mjs", include_str!("../../templates/node/index.mjs"), false),
                File("package.json", include_str!("../../templates/node/package.json"), false),
            ],
            Self::ProvidedShell => &[
                File("davit.toml", include_str!("../../templates/provided-shell/davit.toml"), false),
                File("bootstrap", include_str!("../../templates/provided-shell/bootstrap"), true),
            ],
            Self::Server => &[
                File("davit.toml", include_str!("../../templates/server/davit.toml"), false),
                File("server.py", include_str!("../../templates/server/server.py"), false),
            ],
        }
    }
}

impl Init {
    pub(crate) fn run(self) -> Result<()> {
        let dir = self.dir.clone().unwrap_or_else(|| self.name.as_str().into());
        fs::create_dir_all(&dir).map_err(|e| Failure::while_doing(dir.display(), e))?;
        let files = self.template.files();
        if let Some(File(name, ..)) = files.iter().find(|f| dir.join(f.0).exists()) {
            return Err(Failure::Usage(format!(
                "{} is already there; nothing was written",
                dir.join(name).display()
            )));
        }
        for File(name, text, program) in files {
            let path = dir.join(name);
            let written = fs::write(&path, text.replace("{{name}}", self.name.as_str())).and_then(|()| {
                use std::os::unix::fs::PermissionsExt;
                if *program { fs::set_permissions(&path, fs::Permissions::from_mode(0o755)) } else { Ok(()) }
            });
            written.map_err(|e| Failure::while_doing(path.display(), e))?;
            line(path.display());
        }
        note(format!("next: cd {} && davit deploy", dir.display()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_a_valid_function() {
        for template in Template::value_variants() {
            let files = template.files();
            let text = files.iter().find(|f| f.0 == "davit.toml").unwrap().1.replace("{{name}}", "hello");
            let manifest = davit_api::Manifest::parse(&text).unwrap();
            assert_eq!(manifest.name.as_str(), "hello", "{template:?}");
        }
    }
}
