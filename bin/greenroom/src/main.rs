//! The `greenroom` program: Greenroom's use cases over HTTP, and its commands.

mod auth;
mod cli;
mod config;
mod extract;
mod health;
mod openapi;
mod problem;
mod request;
mod routes;
mod serve;
mod sessions;
mod telemetry;
mod templates;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(cli::Arguments::parse()).await
}
