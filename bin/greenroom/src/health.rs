//! `/livez` and `/readyz`: health checks of the process.

use actix_web::{HttpResponse, Responder, web};
use greenroom_core::{Fault, Greenroom};
use serde_json::json;

use crate::problem::{Checks, Problem};

/// `GET /livez`: responds while the process runs. It does not check the database, because
/// restarting the process would not repair a database.
pub async fn livez() -> impl Responder {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// `GET /readyz`: reports whether the process can serve requests, with the result of each check.
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

/// Returns `ok` or the fault. The cause of the fault is only logged, because the route needs no
/// token.
fn check(part: &str, result: &Result<(), Fault>) -> String {
    let Err(fault) = result else { return "ok".to_owned() };
    if let Some(error) = &fault.cause {
        tracing::warn!(part, error, "failed readiness check");
    }
    fault.summary.clone()
}
