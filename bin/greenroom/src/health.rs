//! Whether the process runs, and whether it can serve.

use actix_web::{HttpResponse, Responder, web};
use greenroom_core::Greenroom;
use serde_json::{Value, json};

/// `GET /livez`: the process runs. It looks at nothing else: a database that is down is no reason
/// to kill the process.
pub async fn livez() -> impl Responder {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// `GET /readyz`: requests can be served, or what is wrong.
pub async fn readyz(greenroom: web::Data<Greenroom>) -> impl Responder {
    let readiness = greenroom.readiness().await;
    let checks = json!({
        "database": check(&readiness.database),
        "migrations": check(&readiness.migrations),
        "livekit": check(&readiness.livekit),
    });
    if readiness.is_ready() {
        HttpResponse::Ok().json(json!({"status": "ready", "checks": checks}))
    } else {
        HttpResponse::ServiceUnavailable().json(json!({"status": "not_ready", "checks": checks}))
    }
}

fn check(found: &Result<(), String>) -> Value {
    match found {
        Ok(()) => "ok".into(),
        Err(wrong) => wrong.as_str().into(),
    }
}
