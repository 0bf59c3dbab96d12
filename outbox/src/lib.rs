//! The outbox in somebody's own Postgres: what davit puts there, and how it reads what has gathered.
//!
//! A trigger writes each change of a table into an outbox in the same transaction as the change itself. A gateway reads
//! what has been committed, hands it to the queue, and only then deletes it. `docs/sources.md` says what that promises
//! and costs.
//!
//! That database is not davit's: its address is a secret of a namespace, and everything about it may be wrong, slow, or
//! meant to do harm. So this is a room of its own, with a client library of its own that reads neither environment
//! variables nor files, and connects only where the operator lets it ([`davit_daemon::Allowed`]). The controller installs
//! and removes ([`Session`]), gateways read ([`Reader`]), and [`Outbox`] writes the statements for both, and for people.

mod address;
mod change;
mod connect;
mod install;
mod read;
mod script;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;

pub use address::Address;
pub use change::Change;
pub use connect::Session;
pub use install::Installing;
pub use read::Reader;
pub use script::Outbox;

/// What is wrong with somebody's database, or with what was asked of it. Each is a sentence for people; none holds a
/// password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The secret's value is no address that can be used.
    #[error("{0}")]
    Address(String),
    /// Nobody answers there, or not in time.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// It does not let that user in.
    #[error("the database refuses: {0}")]
    Refused(String),
    /// The table is not there, or is not one whose changes can be taken.
    #[error("{0}")]
    Table(String),
    /// The table lacks a column.
    #[error("{0}")]
    Columns(String),
    /// The table lacks what the order asks for.
    #[error("{0}")]
    Order(String),
    /// The user may not do it.
    #[error("the database user lacks a right: {0}")]
    Rights(String),
    /// Somebody holds the table.
    #[error("the table is in use: {0}")]
    Busy(String),
    /// What `davit source sql` prints has not been run, or was undone.
    #[error("{0}")]
    Missing(String),
    /// Anything else that the database said.
    #[error("the database says: {0}")]
    Database(String),
}

impl Trouble {
    /// The setting of a source that it is about.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Table(_) | Self::Busy(_) => "table",
            Self::Columns(_) => "columns",
            Self::Order(_) => "order",
            Self::Address(_)
            | Self::Unreachable(_)
            | Self::Refused(_)
            | Self::Rights(_)
            | Self::Missing(_)
            | Self::Database(_) => "secret",
        }
    }
}
