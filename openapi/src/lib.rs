//! OpenAPI: from a document to routes and the rules for their requests, requests held to these rules, and from what is
//! deployed to a document. Pure; nothing here opens a file or fetches what a document refers to.
//!
//! A document is read (`read`) and becomes what a version carries (`import`): OpenAPI 3.1, whatever it was, pruned to its
//! operations and what they refer to. From that, and from nothing else, [`Rules`] are compiled: by the CLI and the controller
//! to see that they can be, by the gateway to hold requests to them. What a request may cost is bounded before it is
//! checked (`cost`).

mod convert;
mod cost;
mod export;
mod import;
mod place;
mod read;
mod rules;
mod settings;
mod shape;
mod subset;

pub use export::{Deployed, Wanted, export};
pub use import::import;
pub use place::Problem;
pub use read::{Unreadable, read};
pub use rules::{Body, Head, Media, Refusal, Rules, asks, check};

#[cfg(test)]
mod tests;
