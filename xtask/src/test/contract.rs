//! Checks of a running service over HTTP: the documentation's examples and the OpenAPI document.

use std::path::Path;

use anyhow::Result;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::process::GuardedCommand;
use greenroom_testkit::tools::python::CONTRACT;
use greenroom_testkit::{paths, ports};
use uuid::Uuid;

use crate::checks::{Check, log};
use crate::service::{self, Service};
use crate::steps::Steps;

/// The organization of everything that the checks create.
const ORGANIZATION: Uuid = Uuid::from_u128(0x0190_d3a0_0000_7000_8000_0000_0000_7e57);

/// Starts a service for the checks.
pub async fn serve(steps: &Steps, database_url: &str, livekit: &Server) -> Result<Service> {
    let program = service::build(steps).await?;
    let home = paths::target_dir().join("test");
    let port = ports::free_tcp_port()?;
    Service::start(steps, program, port, database_url, livekit, &home).await
}

/// The checks of a service and of its OpenAPI document.
pub fn checks(service: &Service) -> Result<Vec<Check>> {
    let token = service.token_of(ORGANIZATION);
    let authorization = format!("Authorization: Bearer {token}");
    let document = service.url("/openapi.json");
    let against = |name: &'static str, program: &Path, arguments: &[&str]| {
        let command = GuardedCommand::new(name, program, log(name))
            .args(arguments)
            .current_dir(paths::workspace_root())
            .env("GREENROOM_URL", service.url(""))
            .env("GREENROOM_TOKEN", &token);
        Check::new(name, command)
    };
    let (validator, schemathesis) =
        (CONTRACT.program("openapi-spec-validator")?, CONTRACT.program("schemathesis")?);
    // A fixed seed sends the same requests each time, so that a finding is reproducible.
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
