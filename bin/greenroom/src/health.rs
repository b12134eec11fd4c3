//! Whether the process runs, and whether it can serve.

use actix_web::{HttpResponse, Responder, web};
use greenroom_core::{Fault, Greenroom};
use serde_json::json;

use crate::problem::{Checks, Problem};

/// `GET /livez`: the process runs. It looks at nothing else: a database that is down is no reason
/// to kill the process.
pub async fn livez() -> impl Responder {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// `GET /readyz`: requests can be served, or what is wrong.
pub async fn readyz(greenroom: web::Data<Greenroom>) -> Result<HttpResponse, Problem> {
    let readiness = greenroom.readiness().await;
    let checks = Checks {
        database: check("database", &readiness.database),
        migrations: check("migrations", &readiness.migrations),
        livekit: check("livekit", &readiness.livekit),
    };
    if readiness.is_ready() {
        Ok(HttpResponse::Ok().json(json!({"status": "ready", "checks": checks})))
    } else {
        Err(Problem::not_ready(checks))
    }
}

/// What is wrong is for everybody, its cause for the log.
fn check(part: &str, found: &Result<(), Fault>) -> String {
    let Err(fault) = found else { return "ok".to_owned() };
    if let Some(cause) = &fault.cause {
        tracing::warn!(part, cause, "a check failed");
    }
    fault.what.clone()
}
