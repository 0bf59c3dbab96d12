//! The control plane: the management API, builds, and making the world match the registry.

mod auth;
pub mod http;
pub mod source;
