//! The `greenroom` program: an HTTP API over the use cases of `greenroom-core`, and a command line.

// `println!` and `eprintln!` panic if the reader has closed the pipe. Use `output.rs`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod auth;
mod cli;
mod config;
mod cors;
mod docs;
mod doctor;
mod extract;
mod failure;
mod health;
mod limits;
mod migrations;
mod openapi;
mod output;
mod page;
mod problem;
mod request;
mod routes;
mod serve;
mod sessions;
mod telemetry;
mod templates;
mod time;
mod webhooks;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    // reqwest is built without a cryptography provider. ring is already a dependency of
    // livekit-api.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run(cli::Arguments::parse()).await
}
