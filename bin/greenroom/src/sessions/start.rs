//! `POST /api/v1/sessions/start`.

use std::collections::BTreeMap;

use actix_web::http::header;
use actix_web::http::header::{HeaderMap, HeaderName};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, Responder};
use greenroom_core::domain::{
    IdempotencyKey, Invalid, JsonObject, ParticipantName, SessionTemplateId, UserId,
};
use greenroom_core::{Greenroom, StartRequest};
use paperclip::actix::{Apiv2Schema, CreatedJson, OperationModifier, api_v2_operation};
use paperclip::v2::models::DefaultOperationRaw;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{StartedBody, token_source};
use crate::auth::Allowed;
use crate::auth::scope::SessionsStart;
use crate::extract::{Body, FieldErrors, Params};
use crate::problem::{Code, Problem};

/// Request header with a key for one start. Every attempt of that start sends the same key.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Response header: `true` if an earlier request had started the session.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The request to start a session. Unknown fields are ignored.
#[derive(Deserialize, Apiv2Schema)]
#[openapi(rename = "StartRequest")]
pub struct StartBody {
    /// The template. Required, here or in the query.
    session_template_id: Option<String>,
    /// The user who will join: 1 to 128 characters. By default the token's end user, or with a
    /// backend's token a guest. An end user may name only itself.
    user_id: Option<String>,
    /// Stored with the session and passed to the agent (with `on_join` only stored): at most 4 KiB
    /// as JSON. Not allowed with an end user's token.
    metadata: Option<BTreeMap<String, Value>>,
    /// Part of LiveKit's token-source request. Omit it, because the server names the room.
    #[serde(alias = "roomName")]
    room_name: Option<Value>,
    /// The user's display name in the room: 1 to 128 characters. Default: the `user_id`.
    #[serde(alias = "participantName")]
    participant_name: Option<Value>,
    /// Another name for `user_id`, from LiveKit's token-source request. If both are sent, they must
    /// be equal.
    #[serde(alias = "participantIdentity")]
    participant_identity: Option<Value>,
    /// Part of LiveKit's token-source request. Omit it, because the server writes the metadata.
    #[serde(alias = "participantMetadata")]
    participant_metadata: Option<Value>,
    /// The user's attributes, visible to all participants: at most 32 keys with string values, at
    /// most 1 KiB as JSON, no key that begins with `lk.`.
    #[serde(alias = "participantAttributes")]
    participant_attributes: Option<Value>,
    /// Part of LiveKit's token-source request. It may name the template's own agent, and nothing
    /// else.
    #[serde(alias = "roomConfig")]
    room_config: Option<Value>,
}

/// The query of a start, for clients that can choose the URL of a request but not its body.
#[derive(Deserialize, Apiv2Schema)]
pub struct StartParams {
    /// The template. Required, here or in the body.
    session_template_id: Option<String>,
}

/// The response of a start: 201 with `Location`, `Cache-Control: no-store` and, on a replay,
/// `Idempotent-Replayed: true`.
pub struct Started {
    body: StartedBody,
    replayed: bool,
}

/// Start a session
///
/// A 201 means that the session is stored. Unless the room is created when the user joins, the room
/// also exists in LiveKit and the agent has been dispatched. To make a start safe to repeat,
/// send an `Idempotency-Key`: for 24 hours, the same request with the same key returns the same
/// session with a new token.
#[api_v2_operation(tags(Sessions), operation_id = "start_session")]
pub async fn start(
    caller: Allowed<SessionsStart>,
    request: HttpRequest,
    params: Params<StartParams>,
    body: Body<StartBody>,
    greenroom: Data<Greenroom>,
) -> Result<Started, Problem> {
    let mut start = parse_start(params.0, body.0)?;
    start.idempotency_key = idempotency_key(request.headers())?;
    let started = greenroom.start(&caller.0, start).await?;
    Ok(Started { replayed: started.replayed, body: started.into() })
}

/// Reads the `Idempotency-Key` header; `None` means that the request has no such header. A repeated
/// or an empty header is an error.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let key = text.and_then(|text| IdempotencyKey::try_from(text.to_owned()).ok());
    // The key may be a secret, so the error does not repeat it.
    let detail = "The Idempotency-Key header is invalid. \
                  Send it once, with 1 to 255 printable ASCII characters.";
    key.map(Some).ok_or_else(|| Problem::new(Code::InvalidIdempotencyKey, detail))
}

fn parse_start(params: StartParams, body: StartBody) -> Result<StartRequest, Problem> {
    let mut errors = FieldErrors::default();
    let template = template_id(body.session_template_id, params.session_template_id);
    let template = errors.take("session_template_id", template);
    let user_id = errors.take("user_id", body.user_id.map(UserId::try_from).transpose());
    let identity = parse_text(body.participant_identity, UserId::try_from);
    let identity = errors.take("participant_identity", identity);
    let user_id = user_id.zip(identity).map(|(user_id, identity)| same_user(user_id, identity));
    let user_id = user_id.and_then(|user| errors.take("participant_identity", user));
    let metadata = body.metadata.map(|metadata| JsonObject::try_from(Map::from_iter(metadata)));
    let metadata = errors.take("metadata", metadata.transpose());
    let name = parse_text(body.participant_name, ParticipantName::try_from);
    let name = errors.take("participant_name", name);
    let attributes = token_source::attributes(body.participant_attributes);
    let attributes = errors.take("participant_attributes", attributes);
    let agent_name = token_source::agent(body.room_config);
    let request = (|| {
        let mut request = StartRequest::new(template?);
        request.user_id = user_id?;
        request.metadata = metadata?;
        request.participant_name = name?;
        request.participant_attributes = attributes?;
        request.agent_name = agent_name.clone().unwrap_or_default();
        Some(request)
    })();
    let request = errors.finish(request)?;
    let is_set = |value: Option<Value>| value.is_some_and(|value| !token_source::is_empty(&value));
    let not_configurable = [
        ("room_name", is_set(body.room_name)),
        ("participant_metadata", is_set(body.participant_metadata)),
        ("room_config", agent_name.is_err()),
    ];
    match not_configurable.into_iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => Err(Problem::not_configurable(field)),
        None => Ok(request),
    }
}

/// Parses a string of a token-source request. `None` means that it is absent or empty.
fn parse_text<T>(
    value: Option<Value>,
    parse: impl FnOnce(String) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    token_source::text(value)?.map(parse).transpose()
}

/// The user from `user_id` or `participant_identity`, which must be equal if both are sent.
fn same_user(user: Option<UserId>, identity: Option<UserId>) -> Result<Option<UserId>, Invalid> {
    match (user, identity) {
        (Some(user), Some(identity)) if user != identity => {
            Err(Invalid::new("must be equal to user_id; sending one of the two is enough"))
        }
        (user, identity) => Ok(user.or(identity)),
    }
}

/// The template from the body or the query, which must be equal if both are sent.
fn template_id(body: Option<String>, query: Option<String>) -> Result<SessionTemplateId, Invalid> {
    let parse = |text: Option<String>| text.map(|text| text.parse()).transpose();
    match (parse(body)?, parse(query)?) {
        (Some(body), Some(query)) if body != query => {
            Err(Invalid::new("must be the same in the body and the query"))
        }
        (Some(id), _) | (None, Some(id)) => Ok(id),
        (None, None) => Err(Invalid::new("is required, in the body or the query")),
    }
}

impl Responder for Started {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        let mut response = HttpResponse::Created();
        response
            .insert_header((header::LOCATION, format!("/api/v1/sessions/{}", self.body.session_id)))
            .insert_header((header::CACHE_CONTROL, "no-store"));
        if self.replayed {
            response.insert_header((IDEMPOTENT_REPLAYED, "true"));
        }
        response.json(self.body)
    }
}

impl paperclip::v2::schema::Apiv2Schema for Started {
    fn name() -> Option<String> {
        <StartedBody as paperclip::v2::schema::Apiv2Schema>::name()
    }

    fn raw_schema() -> paperclip::v2::models::DefaultSchemaRaw {
        <StartedBody as paperclip::v2::schema::Apiv2Schema>::raw_schema()
    }
}

impl OperationModifier for Started {
    fn update_response(operation: &mut DefaultOperationRaw) {
        CreatedJson::<StartedBody>::update_response(operation);
    }
}
