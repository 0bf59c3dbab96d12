//! The harness of the end-to-end stories: one davit of its own per test, driven through the shipped binary.
//!
//! A [`Davit`] is `davit up` in a state directory of its own, on ports the system chose; [`Roles`] is the same
//! as separate processes over one [`Postgres`]. When one is dropped it is stopped, and the test fails if a
//! container or network of its installation is left.
//!
//! Containers are those of the machine's engine, or pods of a Kubernetes cluster where one was chosen (`cluster.rs`).

#![expect(clippy::print_stderr, reason = "what a failed story prints is its diagnosis")]

mod api;
mod chance;
mod cli;
mod cluster;
mod containers;
mod davit;
mod docker;
mod engine;
mod gate;
mod postgres;
mod process;
mod roles;
mod steady;
mod syscalls;
mod wait;

pub use api::{Answer, Api};
pub use chance::Chance;
pub use cli::{Cli, Output, Running, folder_of, python_folder};
pub use cluster::{Cluster, Made, Room, SecondNode, image_on_nodes};
pub use containers::{containers_in_role, containers_of};
pub use davit::Davit;
pub use docker::{kept_images, networks_of};
pub use engine::Engine;
pub use gate::Gate;
pub use postgres::{Keys, Postgres};
pub use roles::{Roles, Who};
pub use steady::{Steady, Tally};
pub use syscalls::SystemCalls;
pub use wait::{eventually, eventually_within};

/// Where the repository's examples are.
pub fn examples() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The binary under test.
pub fn binary_path() -> std::path::PathBuf {
    process::binary()
}

/// A server in Python that answers `ok` in one piece, whatever it is asked; many connections at a time.
pub const ANSWERING_SERVER: &str = "
import os, socketserver
class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(65536):
            self.request.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok')
socketserver.ThreadingTCPServer(('127.0.0.1', int(os.environ['PORT'])), Answer).serve_forever()
";

/// How many instances wait for a first call in the pools of Python's image, as a gateway's status says.
pub fn pooled_python(status: &serde_json::Value) -> u64 {
    let pools = status["gateway"]["pools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let python =
        pools.iter().filter(|pool| pool["image"].as_str().is_some_and(|image| image.contains("python")));
    python.filter_map(|pool| pool["ready"].as_u64()).sum()
}

/// Whether the tests run as root. What needs root says that it was skipped otherwise.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
