//! Tests of the store on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, like the tests")]

mod buckets;
mod connection;
mod facts;
mod find_sessions;
mod idempotency_keys;
mod list_pages;
mod lock_order;
mod migrations;
mod mirror;
mod open_sessions;
mod plans;
mod prepared;
mod resume;
mod retention;
mod session;
mod session_limits;
mod snapshots;
