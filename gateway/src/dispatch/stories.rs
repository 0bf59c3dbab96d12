//! Stories over a real Postgres.
