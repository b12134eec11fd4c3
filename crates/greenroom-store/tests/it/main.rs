//! The store on a real PostgreSQL.

mod migrations;
mod pages;
mod session;
