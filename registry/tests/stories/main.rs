//! The registry's promises, told as stories against a real Postgres.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod aliases;
mod asynchronous;
mod canaries;
mod deploys;
mod keeps;
mod object_store;
mod projects;
mod queues;
mod runtimes;
mod schedules;
mod sources;
mod support;
mod topics;
