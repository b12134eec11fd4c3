//! `POST /api/v1/sessions/start`.

use std::collections::BTreeMap;

use actix_web::http::header::{self, HeaderMap, HeaderName};
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

/// The caller's own name for one start, however often it is sent.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says that an earlier start with the same key had started the session.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What to start. Unknown fields are ignored.
#[derive(Deserialize, Apiv2Schema)]
#[openapi(rename = "StartRequest")]
pub struct StartBody {
    /// The template; it may instead be in the query.
    session_template_id: Option<String>,
    /// Who will join, 1 to 128 characters; a guest, when nobody is named. With an end user's token
    /// it is that user, and nobody else may be named.
    user_id: Option<String>,
    /// Kept with the session and handed to the agent; at most 4 KiB. Not with an end user's token.
    metadata: Option<BTreeMap<String, Value>>,
    /// Of LiveKit's token-source request: the room is named by the server; leave it out, or empty.
    #[serde(alias = "roomName")]
    room_name: Option<Value>,
    /// The name the user is shown under, 1 to 128 characters; else the `user_id`.
    #[serde(alias = "participantName")]
    participant_name: Option<Value>,
    /// The `user_id` in the words of LiveKit's token-source request: one of the two is enough.
    #[serde(alias = "participantIdentity")]
    participant_identity: Option<Value>,
    /// Of LiveKit's token-source request: the server writes it; leave it out, or empty.
    #[serde(alias = "participantMetadata")]
    participant_metadata: Option<Value>,
    /// The user's attributes: at most 32 texts, 1 KiB of JSON, no key that begins with `lk.`.
    #[serde(alias = "participantAttributes")]
    participant_attributes: Option<Value>,
    /// Of LiveKit's token-source request: it may name the template's own agent, and nothing else.
    #[serde(alias = "roomConfig")]
    room_config: Option<Value>,
}

/// The template, where a client can choose its URL but not its body.
#[derive(Deserialize, Apiv2Schema)]
pub struct StartParams {
    session_template_id: Option<String>,
}

/// 201, where the session is, that nobody caches the token, and whether this was a replay.
pub struct Started {
    body: StartedBody,
    replayed: bool,
}

/// When this answers 201, the session is committed and, unless its template says `on_join`, the
/// room exists in `LiveKit` and the agent has been asked for. The same `Idempotency-Key` with the
/// same request is the same session with a fresh token, however often it comes within a day.
#[api_v2_operation(tags(Sessions), operation_id = "start_session", summary = "Start a session")]
pub async fn start(
    caller: Allowed<SessionsStart>,
    request: HttpRequest,
    params: Params<StartParams>,
    body: Body<StartBody>,
    greenroom: Data<Greenroom>,
) -> Result<Started, Problem> {
    let mut start = parse(params.0, body.0)?;
    start.idempotency_key = idempotency_key(request.headers())?;
    let started = greenroom.start(&caller.0, start).await?;
    Ok(Started { replayed: started.replayed, body: started.into() })
}

/// The key, when there is one. A header that comes twice is none that could be meant, and neither
/// is an empty one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let key = text.and_then(|text| IdempotencyKey::try_from(text.to_owned()).ok());
    // The key may be a secret: what was sent is not repeated.
    let detail = "Send one Idempotency-Key, of 1 to 255 printable ASCII characters.";
    key.map(Some).ok_or_else(|| Problem::new(Code::InvalidIdempotencyKey, detail))
}

fn parse(params: StartParams, body: StartBody) -> Result<StartRequest, Problem> {
    let mut errors = FieldErrors::default();
    let template = template_id(body.session_template_id, params.session_template_id);
    let template = errors.take("session_template_id", template);
    let user_id = errors.take("user_id", body.user_id.map(UserId::try_from).transpose());
    let identity = parsed(body.participant_identity, UserId::try_from);
    let identity = errors.take("participant_identity", identity);
    let user_id = user_id.zip(identity).map(|(user_id, identity)| one_user(user_id, identity));
    let user_id = user_id.and_then(|user| errors.take("participant_identity", user));
    let metadata = body.metadata.map(|metadata| JsonObject::try_from(Map::from_iter(metadata)));
    let metadata = errors.take("metadata", metadata.transpose());
    let name = parsed(body.participant_name, ParticipantName::try_from);
    let name = errors.take("participant_name", name);
    let attributes = token_source::attributes(body.participant_attributes);
    let attributes = errors.take("participant_attributes", attributes);
    let agent_name = token_source::agent(body.room_config);
    let request = (|| {
        Some(StartRequest {
            user_id: user_id?,
            metadata: metadata?,
            participant_name: name?,
            participant_attributes: attributes?,
            agent_name: agent_name.clone().unwrap_or_default(),
            ..StartRequest::new(template?)
        })
    })();
    let request = errors.finish(request)?;
    let says = |value: Option<Value>| value.is_some_and(|value| !token_source::is_empty(&value));
    let decided = [
        ("room_name", says(body.room_name)),
        ("participant_metadata", says(body.participant_metadata)),
        ("room_config", agent_name.is_err()),
    ];
    match decided.into_iter().find(|(_, says)| *says) {
        Some((field, _)) => Err(Problem::not_configurable(field)),
        None => Ok(request),
    }
}

/// A text of a token-source request as what it has to be.
fn parsed<T>(
    value: Option<Value>,
    parse: impl FnOnce(String) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    token_source::text(value)?.map(parse).transpose()
}

/// The user, by either name; by both, when they agree.
fn one_user(user: Option<UserId>, identity: Option<UserId>) -> Result<Option<UserId>, Invalid> {
    match (user, identity) {
        (Some(user), Some(identity)) if user != identity => {
            Err(Invalid::new("must be the same as user_id; one of them is enough"))
        }
        (user, identity) => Ok(user.or(identity)),
    }
}

/// The template of the body or the query; of both, when they agree.
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
