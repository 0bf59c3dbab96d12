//! The registry's promises, told as stories against a real Postgres.

mod deploys;
mod keeps;
mod queues;
mod schedules;
mod support;
