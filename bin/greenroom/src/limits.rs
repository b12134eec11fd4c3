//! `GET /api/v1/limits`.

use actix_web::web::{Data, Json};
use greenroom_core::{Greenroom, Limits};
use paperclip::actix::{Apiv2Schema, api_v2_operation};
use serde::Serialize;

use crate::auth::Backend;
use crate::auth::scope::LimitsRead;
use crate::problem::Problem;

/// What the organization may use, and what it does.
#[derive(Serialize, Apiv2Schema)]
#[openapi(rename = "Limits")]
pub struct LimitsBody {
    /// How many sessions may be pending or active at once; null is any number.
    max_active_sessions: Option<i32>,
    /// How many are.
    active_sessions: i64,
    /// How many starts are taken in a minute, by each process; null is any number.
    starts_per_minute: Option<u32>,
    /// How many of them the answering process would take at once.
    starts_remaining: Option<u32>,
}

/// What the organization may use, and how far it is from that.
#[api_v2_operation(tags(Limits), operation_id = "get_limits", summary = "See the limits")]
pub async fn get(
    caller: Backend<LimitsRead>,
    greenroom: Data<Greenroom>,
) -> Result<Json<LimitsBody>, Problem> {
    Ok(Json(greenroom.limits(caller.0).await?.into()))
}

impl From<Limits> for LimitsBody {
    fn from(limits: Limits) -> Self {
        Self {
            max_active_sessions: limits.max_active_sessions,
            active_sessions: limits.active_sessions,
            starts_per_minute: limits.starts_per_minute,
            starts_remaining: limits.starts_remaining,
        }
    }
}
