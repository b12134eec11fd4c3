//! Checks of a running service from outside: the examples of the documentation, and the OpenAPI document.

use std::path::Path;

use anyhow::Result;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::place;
use greenroom_testkit::process::Guarded;
use greenroom_testkit::tools::python::CONTRACT;
use uuid::Uuid;

use super::{Check, log};
use crate::service;
use crate::service::Service;
use crate::steps::Steps;

/// What the checks make belongs to it.
const ORGANIZATION: Uuid = Uuid::from_u128(0x0190_d3a0_0000_7000_8000_0000_0000_7e57);

/// Starts a service for the checks.
pub async fn serve(steps: &Steps, database_url: &str, livekit: &Server) -> Result<Service> {
    let program = service::build(steps).await?;
    let home = place::target().join("test");
    let port = place::free_tcp_port()?;
    Service::start(steps, program, port, database_url, livekit, &home).await
}

/// What is asked of it, and of the document it serves.
pub fn checks(service: &Service) -> Result<Vec<Check>> {
    let token = service.token_of(ORGANIZATION);
    let authorization = format!("Authorization: Bearer {token}");
    let document = service.url("/openapi.json");
    let against = |name: &'static str, program: &Path, arguments: &[&str]| {
        let command = Guarded::new(name, program, log(name))
            .args(arguments)
            .in_directory(place::workspace())
            .env("GREENROOM_URL", service.url(""))
            .env("GREENROOM_TOKEN", &token);
        Check::new(name, command)
    };
    let (validator, schemathesis) =
        (CONTRACT.program("openapi-spec-validator")?, CONTRACT.program("schemathesis")?);
    // The same requests every time, in a minute: what it finds is found again.
    let generated = ["--config-file=schemathesis.toml", "run", &document, "--seed=1", "--no-color"];
    let known = [&generated[..], &["--header", &authorization]].concat();
    Ok(vec![
        against("curl example", "sh".as_ref(), &["docs/examples/session-start-curl.sh"]),
        against("python example", "python3".as_ref(), &["docs/examples/session-start-python.py"]),
        against("openapi", &validator, &["docs/openapi.json"]),
        against("schemathesis", &schemathesis, &known),
        against("without token", &schemathesis, &generated),
    ])
}
