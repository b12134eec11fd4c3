//! The `greenroom` program: Greenroom's use cases over HTTP, and its commands.

mod auth;
mod cli;
mod config;
mod cors;
mod docs;
mod doctor;
mod extract;
mod health;
mod limits;
mod openapi;
mod page;
mod problem;
mod request;
mod routes;
mod serve;
mod sessions;
mod telemetry;
mod templates;
mod webhooks;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    // reqwest comes without cryptography of its own; ring is in the tree already, for LiveKit.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run(cli::Arguments::parse()).await
}
