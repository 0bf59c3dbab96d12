//! Stories of the registry on a real Postgres.
