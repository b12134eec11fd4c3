//! The program as its users meet it: a process, a port, a real PostgreSQL and a real LiveKit.

mod agents;
mod app;
mod auth;
mod browser;
mod clients;
mod command;
mod end;
mod ending;
mod failures;
mod idempotency;
mod keeper;
mod keys;
mod memory;
mod problems;
mod query;
mod real;
mod secrets;
mod start;
mod statements;
mod template_files;
mod templates;
mod timeline;
mod token;
mod tokens;
mod wait;
mod webhooks;
