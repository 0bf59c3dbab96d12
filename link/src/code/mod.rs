//! How a version's code gets into its container. Two ways, and every container is ready for both:
//!
//! - **shared**: [`Trees`] unpacks a bundle once on the host, and [`Mounts`] makes it appear in a container that
//!   runs already, read-only, by one mount. The code's size then costs neither time nor memory of the function.
//! - **unpacked**: the bundle's descriptor travels with `init`, or its bytes behind it where gateway and container are on
//!   two machines, and the agent unpacks it ([`unpack()`], [`unpack_stream`]) into the memory file system at the same
//!   place. It needs no privilege, so it is what remains where mounts are refused.

#[cfg(feature = "client")]
mod mountinfo;
#[cfg(feature = "client")]
mod mounts;
#[cfg(feature = "client")]
mod trees;
mod unpack;

#[cfg(feature = "client")]
pub use mounts::{Mounts, NotShared};
#[cfg(feature = "client")]
pub use trees::Trees;
pub use unpack::{unpack, unpack_stream};
