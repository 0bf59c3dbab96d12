//! Schedules as instants: what is accepted, and when it comes due next. Pure; the controller validates with it and
//! the gateway's alarm computes with it, so a schedule that was accepted is one that fires as it was previewed.

mod error;
mod grammar;
mod length;
mod line;
mod timing;
mod zone;

pub use chrono_tz::Tz;
pub use error::{CronError, TimingError};
pub use length::parse_length;
pub use line::CronLine;
pub use timing::{Limits, Timing};
pub use zone::{Face, face, parse_zone};

#[cfg(test)]
mod tests;
