//! How many generic instances wait, and for whom.

mod plan;

pub use plan::{PoolLimits, PoolView, standing_key, wanted};
