//! The data plane: everything on a call's way, whichever door it comes through.
//!
//! HTTP ([`http`]), cron ([`cron`]) and the queue ([`dispatch`]) all end in [`invoke::Corridor`]. What the gateway
//! owns ([`instances`]) it spends by itself; facts about what happened go to the registry afterwards ([`record`]).

mod account;
pub mod admit;
mod call;
mod cloud_events;
pub mod config;
pub mod cron;
pub mod demand;
pub mod dispatch;
pub mod event;
pub mod facts;
pub mod forward;
mod gateway;
pub mod http;
pub mod instances;
pub mod invoke;
pub mod lanes;
pub mod lease;
pub mod measure;
pub mod metrics;
pub mod outbound;
pub mod outcome;
pub mod passing;
pub mod peers;
pub mod policy;
pub mod record;
pub mod routes;
mod sources;
mod stream;
pub mod usage;
pub mod version;

pub use config::Config;
pub use gateway::{Admin, BuildError, Deps, Gateway, Running, Status};
