//! What every long-running process of davit needs and what has nothing to do with functions: settings,
//! telemetry, signals, named tasks, readiness, an ordered drain, an HTTP accept loop with limits, and the rule for
//! what may be connected to.
//!
//! Used by the controller, the gateway and `davit up`.

pub mod access_log;
pub mod backoff;
pub mod courtesy;
pub mod drain;
pub mod listener;
pub mod outbound;
pub mod readiness;
pub mod settings;
pub mod signal;
pub mod task;
pub mod telemetry;

pub use backoff::Backoff;
pub use drain::Drain;
pub use listener::Limits;
pub use outbound::Allowed;
pub use readiness::{Latch, Readiness};
pub use settings::{Settings, SettingsError};
pub use task::Tasks;
