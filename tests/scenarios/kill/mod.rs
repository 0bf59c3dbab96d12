//! Any process may die at any moment: kill -9 of davit in the middle of a call, a deploy, a fire of the clock
//! and a job of the queue, at moments that are drawn by chance.

mod call;
mod clock;
mod deploy;
mod queue;
