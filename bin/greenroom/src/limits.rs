//! `GET /api/v1/limits`: the limits of the organization and their current usage.

use actix_web::web::{Data, Json};
use greenroom_core::domain::{SessionCount, StartsPerMinute};
use greenroom_core::{Greenroom, Limits};
use paperclip::actix::{Apiv2Schema, api_v2_operation};
use serde::Serialize;

use crate::auth::Allowed;
use crate::auth::scope::LimitsRead;
use crate::problem::Problem;

/// The limits of the organization and their current usage.
#[derive(Serialize, Apiv2Schema)]
#[openapi(rename = "Limits")]
pub struct LimitsBody {
    /// The maximum number of open sessions (`pending` or `active`). Null means no limit.
    max_active_sessions: Option<i32>,
    /// The current number of open sessions (`pending` or `active`).
    active_sessions: i64,
    /// The number of starts per minute that each process accepts. Null means no limit.
    starts_per_minute: Option<u32>,
    /// The number of starts that the responding process accepts now. Null means no limit.
    starts_remaining: Option<u32>,
}

/// Get the limits
///
/// Returns the limits of the organization and their current usage. Only a backend may call this
/// route.
#[api_v2_operation(tags(Limits), operation_id = "get_limits")]
pub async fn get(
    caller: Allowed<LimitsRead>,
    greenroom: Data<Greenroom>,
) -> Result<Json<LimitsBody>, Problem> {
    Ok(Json(greenroom.limits(&caller.0).await?.into()))
}

impl From<Limits> for LimitsBody {
    fn from(limits: Limits) -> Self {
        Self {
            max_active_sessions: limits.max_active_sessions.map(SessionCount::get),
            active_sessions: limits.active_sessions,
            starts_per_minute: limits.starts_per_minute.map(StartsPerMinute::get),
            starts_remaining: limits.starts_remaining,
        }
    }
}
