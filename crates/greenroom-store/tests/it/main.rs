//! Tests of the store on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, like the tests")]

mod claims;
mod facts;
mod keys;
mod migrations;
mod mirror;
mod pages;
mod resume;
mod session;
