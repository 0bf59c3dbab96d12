//! Which runtime a function is written for, which images that means, and which of them versions run in.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{FunctionName, Rollout};

crate::text::text_like! {
    /// The folder name of a runtime under `runtime-images/`, such as `python3.13` or `provided`.
    pub struct RuntimeName = "python3.13";
}

impl RuntimeName {
    /// The runtimes that come with davit, each a folder under `runtime-images/`.
    pub const SHIPPED: [&str; 8] =
        ["python3.13", "node20", "java21", "ruby3.3", "php8.4", "go", "rust", "provided"];
    /// Those whose functions are programs: built in an image of the language, run in that of `provided`.
    const COMPILED: [&str; 2] = ["go", "rust"];

    /// What stands in the runtime's place where a function brings an image of its own.
    const OWN_IMAGE: &str = "image";

    /// The name that stands for an image of the function's own.
    pub fn own_image() -> Self {
        Self(Self::OWN_IMAGE.into())
    }
    /// Whether it is none of davit's runtimes, but an image of the function's own.
    pub fn is_own_image(&self) -> bool {
        self.as_str() == Self::OWN_IMAGE
    }
    /// Whether functions are compiled to a program that needs nothing of its language to run.
    pub fn is_compiled(&self) -> bool {
        Self::COMPILED.contains(&self.as_str())
    }
    /// Whether a process of the language calls the handler, which therefore has to be named.
    pub fn calls_handler(&self) -> bool {
        let managed = ["python", "node", "java", "ruby", "php"];
        managed.iter().any(|language| self.0.starts_with(language))
    }
    /// The local image that functions of this runtime are built for from now on, such as `davit/runtime-python3.13:latest`.
    pub fn image(&self) -> String {
        format!("{}:latest", self.image_name())
    }
    /// The name of one certain image of this runtime, by its id: `davit/runtime-python3.13@sha256:…`. Whatever is called
    /// [`Self::image`] later, this stays.
    pub fn pinned_image(&self, id: &str) -> String {
        format!("{}@{id}", self.image_name())
    }
    fn image_name(&self) -> String {
        format!("davit/runtime-{}", if self.is_compiled() { "provided" } else { self.as_str() })
    }
    /// The runtime whose functions run in what has this name: of several, the one that is called like it.
    pub fn of_image(image: &str) -> Option<Self> {
        image.strip_prefix("davit/runtime-")?.strip_suffix(":latest")?.parse().ok()
    }
    /// Takes the name of one certain runtime image apart: what has the runtime's name now, and the id.
    pub fn split_pinned(image: &str) -> Option<(String, &str)> {
        let (name, id) = image.split_once('@')?;
        let whole = name.starts_with("davit/runtime-") && id.starts_with("sha256:");
        whole.then(|| (format!("{name}:latest"), id))
    }
    /// The local image that builds them; for most the same as [`Self::image`].
    pub fn build_image(&self) -> String {
        if self.is_compiled() { format!("davit/build-{}:latest", self.0) } else { self.image() }
    }
    /// The port on its own loopback at which the runtime opens a debugger, if it has one: the usual one of debugpy, or of
    /// Node's inspector.
    pub fn debugger_port(&self) -> Option<u16> {
        match self.as_str() {
            "python3.13" => Some(5678),
            "node20" => Some(9229),
            _ => None,
        }
    }
    /// Whether `handler` names something that this runtime could call; the error says how it is written.
    pub fn check_handler(&self, handler: &str) -> Result<(), &'static str> {
        let word = |text: &str, more: &str| {
            !text.is_empty()
                && text.chars().all(|c| c.is_alphanumeric() || "_-$".contains(c) || more.contains(c))
        };
        let path = |text: &str| {
            word(text, "./") && !text.starts_with('/') && !text.split('/').any(|part| part == "..")
        };
        if self.0.starts_with("java") {
            let (class, method) = handler.split_once("::").unwrap_or((handler, "handleRequest"));
            let good =
                word(class, ".") && !class.starts_with('.') && !class.ends_with('.') && word(method, "");
            return if good {
                Ok(())
            } else {
                Err("write package.Class::method, such as com.example.Handler::handleRequest")
            };
        }
        if self.0.starts_with("ruby") {
            // The file, then a method, or a method of a class: `app.Orders::Handler.process`.
            let good = handler.split_once('.').is_some_and(|(file, rest)| path(file) && word(rest, ".:?!"));
            return if good { Ok(()) } else { Err("write file.method, such as app.handler") };
        }
        if self.calls_handler() {
            let good = handler.rsplit_once('.').is_some_and(|(module, name)| path(module) && word(name, ""));
            return if good { Ok(()) } else { Err("write module.function, such as app.handler") };
        }
        Ok(())
    }
}
impl FromStr for RuntimeName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let good = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
            && text.as_bytes()[0].is_ascii_lowercase();
        if good {
            Ok(Self(text.into()))
        } else {
            Err("a runtime is named like python3.13: 1 to 32 lower-case letters, digits, dots and hyphens"
                .into())
        }
    }
}

/// A runtime of a namespace's live versions, or of this host: one line of `davit runtimes list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RuntimeView {
    /// Its name.
    pub runtime: RuntimeName,
    /// Id of the image that deployments are built for now; none while there is no such image on the host.
    pub image_id: Option<String>,
    /// Since when it is that one.
    pub since: Option<DateTime<Utc>>,
    /// Functions whose live version runs in it.
    pub current: u32,
    /// Functions whose live version runs in an earlier one.
    pub behind: u32,
}

/// A function whose live version runs in an earlier image of its runtime than a new one would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FunctionBehind {
    /// The function.
    pub name: FunctionName,
    /// Its live version.
    pub version: u32,
    /// Its runtime.
    pub runtime: RuntimeName,
    /// Id of the image that it runs in.
    pub image_id: String,
}

/// Asks for a function's live version again, in the image that its runtime has now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuntimeUpgrade {
    /// What is to happen when it is ready. Absent: what was asked for when the live version was deployed, if that was a
    /// canary; otherwise it goes live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(name: &str) -> RuntimeName {
        name.parse().unwrap()
    }

    #[test]
    fn a_handler_is_written_as_its_language_has_it() {
        for (name, good, bad) in [
            (
                "python3.13",
                &["app.handler", "src/app.handler", "pkg.mod.f"][..],
                &["", "app", "app.", ".f", "../a.f", "/a.f", "a b.f"][..],
            ),
            ("node20", &["index.handler", "src/app.handler"], &["index", "index.", "a;b.c"]),
            (
                "java21",
                &["com.example.Handler::handleRequest", "com.example.Handler", "H::f"],
                &["", "::f", "A::", "a/b::f", ".A::f"],
            ),
            (
                "ruby3.3",
                &["app.handler", "app.Orders::Handler.process", "lib/app.ready?"],
                &["app", "app.", "../a.f", "a.b c"],
            ),
            ("php8.4", &["app.handler", "src/app.handler"], &["app", "app.", "/a.f"]),
            ("go", &["", "cmd/api"], &[]),
            ("provided", &["", "anything at all"], &[]),
        ] {
            for handler in good {
                assert_eq!(runtime(name).check_handler(handler), Ok(()), "{name} {handler}");
            }
            for handler in bad {
                assert!(runtime(name).check_handler(handler).is_err(), "{name} {handler}");
            }
        }
    }

    #[test]
    fn every_shipped_runtime_is_a_name_and_programs_run_in_one_image() {
        for name in RuntimeName::SHIPPED {
            let runtime = runtime(name);
            let own = format!("davit/runtime-{name}:latest");
            assert_eq!(runtime.image() == own, !runtime.is_compiled(), "{name}");
            assert_eq!(runtime.build_image() == runtime.image(), !runtime.is_compiled(), "{name}");
        }
        assert_eq!(runtime("go").image(), runtime("provided").image());
        assert_eq!(runtime("go").build_image(), "davit/build-go:latest");
    }

    #[test]
    fn a_certain_image_is_told_from_what_has_the_name_now() {
        let pinned = runtime("go").pinned_image("sha256:aa");
        assert_eq!(pinned, "davit/runtime-provided@sha256:aa");
        assert_eq!(RuntimeName::split_pinned(&pinned), Some((runtime("go").image(), "sha256:aa")));
        for other in [&runtime("go").image()[..], "sha256:aa", "app@sha256:aa", "davit/runtime-x@aa", "", "@"]
        {
            assert_eq!(RuntimeName::split_pinned(other), None, "{other}");
        }
    }
}
