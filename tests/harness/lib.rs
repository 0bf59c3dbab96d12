//! The harness of the end-to-end stories: one davit of its own per test, driven through the shipped binary.
//!
//! A [`Davit`] is `davit up` in a state directory of its own, on ports the system chose. When it is dropped
//! it is stopped, and the test fails if a container or network of its installation is left.

#![expect(clippy::print_stderr, reason = "what a failed story prints is its diagnosis")]

mod cli;
mod docker;
mod process;
mod wait;

pub use cli::{Cli, Output};
pub use docker::{containers_of, networks_of};
pub use process::Davit;
pub use wait::{eventually, eventually_within};

/// Where the repository's examples are.
pub fn examples() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}
