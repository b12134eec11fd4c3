//! The store on a real PostgreSQL.

mod claims;
mod facts;
mod keys;
mod migrations;
mod pages;
mod resume;
mod session;
