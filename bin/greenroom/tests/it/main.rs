//! Integration tests: the program as a process, with a real PostgreSQL and a real LiveKit.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, like the tests")]

mod agents;
mod app;
mod authorization;
mod browser_page;
mod caller_tokens;
mod client_sdk_page;
mod command_line;
mod cors_and_docs;
mod end_session;
mod failing_database;
mod full_session;
mod idempotency;
mod interruptions;
mod invalid_responses;
mod keeper;
mod limits;
mod outages;
mod problems;
mod query;
mod resume;
mod secrets;
mod signing_keys;
mod start;
mod statements;
mod stored_values;
mod template_files;
mod templates;
mod timeline;
mod token_refresh;
mod token_source;
mod wait;
mod webhooks;
