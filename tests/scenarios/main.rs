//! End-to-end stories. Each starts a davit of its own through the shipped binary, on real Docker and real
//! Postgres, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on ends here, with its place")]

mod addresses;
mod apply;
mod asynchronous;
mod bad_input;
mod calls;
mod debugger;
mod deploy;
mod dev;
mod elsewhere;
mod engine_restart;
mod first_function;
mod frugal;
mod gateways;
mod hang_up;
mod http;
mod images;
mod isolation;
mod kill;
mod languages;
mod many;
mod memory;
mod misbehaving;
mod nodes;
mod openapi;
mod other_sizes;
mod pinned;
mod postgres_failover;
mod postgres_outage;
mod postgres_tls;
mod roles;
mod rootless;
mod runtimes;
mod scale_to_zero;
mod schedule;
mod sources;
mod streaming;
mod table_changes;
mod templates;
mod tokens;
mod topics;
mod versions;
