//! The control plane: the management API, builds, and making the world match the registry.

pub mod acting;
mod auth;
pub mod backend;
pub mod build;
mod canary;
mod diff;
mod gc;
pub mod http;
pub mod pool;
mod probe;
pub mod reconcile;
pub mod registry_login;
pub mod source;
pub mod world;
