//! What a `.dockerignore` leaves out of a Dockerfile's folder, by Docker's rules and not by Git's: patterns start at the folder's root,
//! the last one that fits decides, and an exception reaches into a folder that is left out ("Dockerfile reference", .dockerignore file).
//! Pure, but for the reading of the file.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

use crate::failure::{Failure, Result};

/// The file in the folder's root.
const FILE: &str = ".dockerignore";

/// The patterns of a file, in order.
#[derive(Debug, Default)]
pub(super) struct Ignored(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    pattern: GlobMatcher,
    /// What fits it is taken in again.
    exception: bool,
}

impl Ignored {
    /// Reads the one that belongs to a Dockerfile: `<its name>.dockerignore` beside it, or else the folder's. None is no rule.
    pub(super) fn of(root: &Path, dockerfile: &str) -> Result<Self> {
        for name in [format!("{dockerfile}{FILE}"), FILE.to_owned()] {
            let path = root.join(&name);
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    return Self::parse(&text)
                        .map_err(|problem| Failure::Usage(format!("{}, {problem}", path.display())));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::while_doing(path.display(), error)),
            }
        }
        Ok(Self::default())
    }

    /// An error names the line.
    fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (n, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let Some(pattern) = clean(pattern) else { continue };
            let glob = GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build();
            let glob = glob.map_err(|error| format!("line {}: {:?}: {}", n + 1, line, error.kind()))?;
            rules.push(Rule { pattern: glob.compile_matcher(), exception });
        }
        Ok(Self(rules))
    }

    /// Whether a file of that name, relative to the folder, stays out: the last pattern counts that fits it or a folder above it.
    pub(super) fn leaves_out(&self, name: &str) -> bool {
        let above = || Path::new(name).ancestors().filter(|part| !part.as_os_str().is_empty());
        let fits = |rule: &&Rule| above().any(|part| rule.pattern.is_match(part));
        self.0.iter().rev().find(fits).is_some_and(|rule| !rule.exception)
    }
}

/// A pattern without `.`, `..` and needless slashes, and with braces as what they are there: letters. None for one that means nothing.
fn clean(pattern: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let escaped: Vec<String> =
        parts.iter().map(|part| part.replace('{', "[{]").replace('}', "[}]")).collect();
    (!escaped.is_empty()).then(|| escaped.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn left(text: &str, names: &[&str]) -> Vec<String> {
        let ignored = Ignored::parse(text).unwrap();
        names.iter().filter(|name| !ignored.leaves_out(name)).map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn patterns_start_at_the_root_and_cover_what_is_below() {
        let names = ["a.log", "logs/a.log", "logs/deep/b", "src/logs/c", "app.go"];
        assert_eq!(left("logs\n", &names), ["a.log", "src/logs/c", "app.go"]);
        assert_eq!(left("/logs/\n", &names), ["a.log", "src/logs/c", "app.go"]);
        assert_eq!(left("*.log\n", &names), ["logs/a.log", "logs/deep/b", "src/logs/c", "app.go"]);
        assert_eq!(left("**/*.log\n", &names), ["logs/deep/b", "src/logs/c", "app.go"]);
        assert_eq!(left("*/logs", &names), ["a.log", "logs/a.log", "logs/deep/b", "app.go"]);
        assert_eq!(left("**/logs", &names), ["a.log", "app.go"]);
        assert_eq!(left("./src/../logs\n", &names), ["a.log", "src/logs/c", "app.go"]);
        assert_eq!(left("?.log\n[a-b]pp.go", &names), ["logs/a.log", "logs/deep/b", "src/logs/c"]);
    }

    #[test]
    fn the_last_one_that_fits_decides_and_exceptions_reach_into_folders() {
        let names = ["docs/a.md", "docs/README.md", "README.md", "app"];
        assert_eq!(left("docs\n!docs/README.md\n", &names), ["docs/README.md", "README.md", "app"]);
        assert_eq!(left("!docs/README.md\ndocs\n", &names), ["README.md", "app"]);
        assert_eq!(left("*\n!app\n", &names), ["app"]);
        assert_eq!(left("*.md\n!README*.md\n", &names), ["docs/a.md", "docs/README.md", "README.md", "app"]);
    }

    #[test]
    fn comments_empty_lines_and_braces_mean_nothing_more_than_in_docker() {
        let names = ["#", "{a,b}", "a", "b"];
        assert_eq!(left("\u{feff}# a\n\n  \n.\n/\n!\n", &names), names);
        assert_eq!(left("{a,b}", &names), ["#", "a", "b"]);
        let said = Ignored::parse("ok\n[z-a]\n").unwrap_err();
        assert!(said.starts_with("line 2: "), "{said}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fall_over(text in "(\\PC|\n){0,80}", name in "[a-z]{1,3}(/[a-z]{1,3}){0,3}") {
            if let Ok(ignored) = Ignored::parse(&text) {
                ignored.leaves_out(&name);
            }
        }

        #[test]
        fn with_everything_left_out_only_exceptions_stay(name in "[a-z]{1,3}(/[a-z]{1,3}){0,3}", other in "[a-z]{1,4}") {
            let ignored = Ignored::parse(&format!("**\n!{other}")).unwrap();
            let below = name == other || name.starts_with(&format!("{other}/"));
            prop_assert_eq!(ignored.leaves_out(&name), !below);
        }
    }
}
