//! `davit init`: a folder with a small function that works as it is.

use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use davit_api::FunctionName;

use crate::failure::{Failure, Result};
use crate::output::{line, note};

/// Make a new function from a template
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit init hello --template python
  davit init hello --runtime go
  davit init api --template server --dir services/api")]
pub(crate) struct Init {
    /// Its name
    name: FunctionName,
    /// What to start from; a runtime's name is one, too
    #[arg(short, long, visible_alias = "runtime", value_enum, default_value_t = Template::Python)]
    template: Template,
    /// Folder to make [default: the function's name]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What a new function can start from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Template {
    /// A Python handler
    #[value(alias = "python3.13")]
    Python,
    /// A Node.js handler
    #[value(alias = "node20")]
    Node,
    /// A Node.js handler in TypeScript
    Typescript,
    /// A Go program with AWS's own client
    Go,
    /// A Rust program with AWS's own client
    Rust,
    /// A Java handler, built by Maven
    #[value(alias = "java21")]
    Java,
    /// A Ruby handler
    #[value(alias = "ruby3.3")]
    Ruby,
    /// A PHP handler
    #[value(alias = "php8.4")]
    Php,
    /// A shell script that speaks the Lambda Runtime API
    #[value(alias = "provided", alias = "shell")]
    ProvidedShell,
    /// A program that listens on $PORT
    Server,
}

/// A file of a template: its name, its text, and whether it is a program.
struct File(&'static str, &'static str, bool);

/// `file!(folder, name)` is a file of a template; with `program` it may be executed, and with `from` it is kept under another name, since
/// what it is called would mean something here.
macro_rules! file {
    ($folder:literal, $name:literal) => {
        file!($folder, $name, from $name)
    };
    ($folder:literal, $name:literal, program) => {
        File($name, include_str!(concat!("../../templates/", $folder, "/", $name)), true)
    };
    ($folder:literal, $name:literal, from $stored:literal) => {
        File($name, include_str!(concat!("../../templates/", $folder, "/", $stored)), false)
    };
}

impl Template {
    fn files(self) -> &'static [File] {
        match self {
            Self::Python => &[
                file!("python", "davit.toml"),
                file!("python", "app.py"),
                file!("python", "requirements.txt"),
            ],
            Self::Node => {
                &[file!("node", "davit.toml"), file!("node", "index.mjs"), file!("node", "package.json")]
            }
            Self::Typescript => &[
                file!("typescript", "davit.toml"),
                file!("typescript", "src/app.ts"),
                file!("typescript", "package.json"),
                file!("typescript", "package-lock.json"),
                file!("typescript", "tsconfig.json"),
                file!("typescript", ".gitignore", from "gitignore"),
            ],
            Self::Go => &[
                file!("go", "davit.toml"),
                file!("go", "main.go"),
                file!("go", "go.mod"),
                file!("go", "go.sum"),
            ],
            Self::Rust => &[
                file!("rust", "davit.toml"),
                file!("rust", "src/main.rs"),
                file!("rust", "Cargo.toml", from "Cargo.toml.in"),
                file!("rust", "Cargo.lock"),
                file!("rust", ".gitignore", from "gitignore"),
            ],
            Self::Java => &[
                file!("java", "davit.toml"),
                file!("java", "src/main/java/com/example/Handler.java"),
                file!("java", "pom.xml"),
                file!("java", ".gitignore", from "gitignore"),
            ],
            Self::Ruby => &[file!("ruby", "davit.toml"), file!("ruby", "app.rb")],
            Self::Php => &[file!("php", "davit.toml"), file!("php", "app.php")],
            Self::ProvidedShell => {
                &[file!("provided-shell", "davit.toml"), file!("provided-shell", "bootstrap", program)]
            }
            Self::Server => &[file!("server", "davit.toml"), file!("server", "server.py")],
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
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|e| Failure::while_doing(parent.display(), e))?;
            }
            let written = fs::write(&path, text.replace("{{name}}", self.name.as_str())).and_then(|()| {
                use std::os::unix::fs::PermissionsExt;
                if *program { fs::set_permissions(&path, fs::Permissions::from_mode(0o755)) } else { Ok(()) }
            });
            written.map_err(|e| Failure::while_doing(path.display(), e))?;
            line(path.display());
        }
        note(format!(
            "next: cd {}, then davit dev to work on it, davit deploy to make it live",
            dir.display()
        ));
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
            let shipped = davit_api::RuntimeName::SHIPPED;
            assert!(shipped.contains(&manifest.runtime.as_str()), "{template:?}");
        }
    }

    #[test]
    fn every_runtime_has_a_template_of_its_name() {
        for runtime in davit_api::RuntimeName::SHIPPED {
            assert!(Template::from_str(runtime, false).is_ok(), "{runtime}");
        }
    }

    #[test]
    fn the_locks_of_templates_fit_their_packages() {
        let text = |template: Template, name: &str| {
            template.files().iter().find(|file| file.0 == name).map(|file| file.1).unwrap()
        };
        let lock = text(Template::Rust, "Cargo.lock");
        assert!(lock.contains("name = \"function\"\nversion = \"0.1.0\""));
        assert!(text(Template::Rust, "Cargo.toml").contains("name = \"function\"\nversion = \"0.1.0\""));
        assert!(text(Template::Go, "go.sum").contains("aws-lambda-go v1.54.0 h1:"));
        assert!(text(Template::Go, "go.mod").contains("aws-lambda-go v1.54.0"));
        assert!(text(Template::Typescript, "package-lock.json").contains("\"name\": \"{{name}}\""));
    }
}
