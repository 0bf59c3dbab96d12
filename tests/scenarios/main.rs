//! End-to-end stories. Each starts a davit of its own through the shipped binary, on real Docker and real
//! Postgres, and leaves nothing behind.

mod crash;
mod first_function;
mod http;
mod isolation;
mod misbehaving;
mod queue;
mod runtimes;
mod scale_to_zero;
mod schedule;
mod tokens;
