//! Which function answers a request: a snapshot that is swapped whole, so that a lookup takes no lock and
//! never asks the database (invariant 4).

mod keep;
pub mod path;
mod pins;
mod prefetch;
mod refresh;
mod split;
mod table;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use keep::Keeper;
pub use pins::Pins;
pub use refresh::{Refresh, run};
pub use split::{Aliases, Named, Split, gather};
pub use table::{Found, Lookup, Table, TokenEntry};

/// The current snapshot; cheap to clone, read on every request.
#[derive(Clone)]
pub struct Routes {
    current: Arc<ArcSwap<Table>>,
}

impl Routes {
    /// Starts with no function and no token: everything is refused as unavailable until the first snapshot has been read.
    pub fn empty() -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(Table::default())) }
    }
    /// The snapshot as it is now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Table>> {
        self.current.load()
    }
    /// The snapshot as it is now, to be held for longer.
    pub fn current(&self) -> Arc<Table> {
        self.current.load_full()
    }
    /// Puts a new one in its place.
    pub fn store(&self, table: Table) {
        self.current.store(Arc::new(table));
    }
}
