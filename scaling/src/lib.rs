//! How many instances exist and how long they are kept. Pure decisions: no I/O, no task, and the clock is an
//! argument. The gateway asks per fleet (whether to start, what to let go, what to start ahead of time), the
//! controller per pool (how many generic instances wait). `docs/scaling.md` gives the rules and the figures
//! that the simulator (`src/bin/simulate`) printed for these very functions.

pub mod estimate;
pub mod fleet;
pub mod gather;
pub mod keep_alive;
pub mod pool_size;
pub mod resize;
pub mod scale_in;
pub mod scale_out;
pub mod shares;
