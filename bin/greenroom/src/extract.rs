//! Extractors for paths, queries and bodies. An invalid value is reported with its field.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::rt::time::timeout;
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use greenroom_core::domain::Invalid;
use paperclip::actix::{OperationModifier, web as documented};
use paperclip::v2::models::{DefaultOperationRaw, DefaultSchemaRaw};
use paperclip::v2::schema::Apiv2Schema;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::{Code, FieldError, Problem};

/// Maximum size of a request body in bytes, unless the route sets its own.
const BODY_LIMIT: usize = 64 * 1024;

/// Maximum time until a body has arrived.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Collects invalid fields, so that one response reports all of them.
#[derive(Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Returns the value of a field. `None` means that the field is invalid and was recorded.
    pub fn take<T, E: Into<Invalid>>(&mut self, field: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|invalid| self.0.push(FieldError::of(field, &invalid.into()))).ok()
    }

    /// Assigns the value of a field to `target`, unless the field is invalid.
    pub fn set<T, E: Into<Invalid>>(&mut self, field: &str, value: Result<T, E>, target: &mut T) {
        if let Some(value) = self.take(field, value) {
            *target = value;
        }
    }

    /// Like [`Self::set`]. An absent value leaves `target` unchanged.
    pub fn set_some<T, E: Into<Invalid>>(
        &mut self,
        field: &str,
        value: Option<Result<T, E>>,
        target: &mut T,
    ) {
        if let Some(value) = value {
            self.set(field, value, target);
        }
    }

    /// Returns the value, or a problem with all invalid fields. `value` is `None` only if a field
    /// was recorded as invalid; otherwise the problem would list no field.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Problem> {
        self.into_result(value).map_err(Problem::invalid)
    }

    /// Returns the value, or all invalid fields, with the same condition as [`Self::finish`].
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        value.filter(|_| self.0.is_empty()).ok_or(self.0)
    }
}

/// The bytes of a body of at most `LIMIT` bytes, whatever its media type.
pub struct RawBody<const LIMIT: usize = BODY_LIMIT>(pub Bytes);

impl<const LIMIT: usize> FromRequest for RawBody<LIMIT> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = web::Payload::from_request(request, payload);
        Box::pin(async move {
            let payload = payload.await.map_err(|error| Problem::from_actix(&error))?;
            let Ok(arrived) = timeout(BODY_TIMEOUT, payload.to_bytes_limited(LIMIT)).await else {
                return Err(invalid_body("must arrive within 5 seconds").into());
            };
            let bytes = arrived.map_err(|_| too_large(LIMIT))?;
            Ok(Self(bytes.map_err(|error| Problem::from_actix(&error))?))
        })
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("The body is larger than {} KiB.", limit / 1024))
}

/// A JSON object in the body. An absent body is parsed as an empty object.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let content_type = check_content_type(request);
        let bytes = <RawBody>::from_request(request, payload);
        Box::pin(async move {
            let RawBody(bytes) = bytes.await?;
            let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
            if !bytes.is_empty() {
                content_type?;
            }
            // serde would also parse an array as a struct, with one element per field.
            if json.trim_ascii_start().first() != Some(&b'{') {
                return Err(invalid_body("must be a JSON object").into());
            }
            let mut reader = serde_json::Deserializer::from_slice(json);
            let body = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
                let path = error.path().to_string();
                invalid_json(&path, &error.into_inner())
            })?;
            reader.end().map_err(|error| invalid_json(".", &error))?;
            Ok(Self(body))
        })
    }
}

/// Parses a JSON value with the same errors as a body.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| invalid_json(&error.path().to_string(), error.inner()))
}

fn check_content_type(request: &HttpRequest) -> Result<(), Problem> {
    let content_type = request.content_type().to_ascii_lowercase();
    let subtype = content_type.strip_prefix("application/").unwrap_or_default();
    if subtype == "json" || subtype.ends_with("+json") {
        return Ok(());
    }
    let name = header::CONTENT_TYPE;
    Err(Problem::new(
        Code::UnsupportedMediaType,
        format!("The body is not declared as JSON. Send {name}: application/json."),
    ))
}

/// An error of the body as a whole.
fn invalid_body(detail: &str) -> FieldError {
    FieldError::new("body", detail)
}

/// Converts an error of serde to one that names the field, if it is known, and says what the value
/// must be. The error does not repeat the value.
fn invalid_json(path: &str, error: &serde_json::Error) -> FieldError {
    let message = error.to_string();
    if error.is_syntax() || error.is_eof() {
        return invalid_body(&format!("must be valid JSON: {message}"));
    }
    // For a duplicate field, the path does not contain the field. The message does.
    let duplicate = message.strip_prefix("duplicate field `").and_then(|rest| rest.split_once('`'));
    if let Some((field, _)) = duplicate {
        return FieldError::new(
            field,
            "must occur only once; two spellings of a field are the same field",
        );
    }
    // For an unknown field, the path ends in the field or in a question mark, as in
    // `room_config.?`.
    let path = path.trim_end_matches(['?', '.']);
    let path = if path.is_empty() { "body" } else { path };
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    // For example: `invalid type: integer `5`, expected a string`. Only the part after `expected`
    // is kept, because the part before it contains the value.
    let detail = match message.rsplit_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid") => {
            format!("must be {}", json_type(expected))
        }
        Some(_) if message.starts_with("unknown field") => {
            "is not a known field; remove it".to_owned()
        }
        _ => message.to_owned(),
    };
    FieldError::new(path, detail)
}

/// Translates serde's description of a type to JSON's terms.
fn json_type(expected: &str) -> &str {
    match expected {
        "a string" => "a string",
        "i64" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        other => other,
    }
}

/// The parameters of the query string.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Params<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let query = request.query_string();
        let invalid = |detail: String| Problem::invalid(vec![FieldError::new("query", detail)]);
        // serde_urlencoded would replace invalid UTF-8 instead of refusing it.
        if percent_decode_str(query).decode_utf8().is_err() {
            return ready(Err(invalid("must be UTF-8".to_owned())));
        }
        ready(
            serde_urlencoded::from_str(query).map(Self).map_err(|error| invalid(error.to_string())),
        )
    }
}

/// Parses a quantity. An absent text gives the default.
pub fn parse_or<T: FromStr<Err: Into<Invalid>>>(
    text: Option<&str>,
    default: T,
) -> Result<T, Invalid> {
    text.map_or(Ok(default), |text| text.parse().map_err(Into::into))
}

/// The id in the path, of a route with exactly one path parameter.
pub struct PathId<T>(pub T);

impl<T: FromStr<Err = Invalid>> FromRequest for PathId<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let (field, text) = request.match_info().iter().next().unwrap_or(("id", ""));
        let id = text.parse().map(Self);
        ready(id.map_err(|invalid| Problem::invalid(vec![FieldError::of(field, &invalid)])))
    }
}

// The OpenAPI document omits raw bodies: routes ignore them, or only LiveKit sends them.
impl<const LIMIT: usize> Apiv2Schema for RawBody<LIMIT> {}
impl<const LIMIT: usize> OperationModifier for RawBody<LIMIT> {}

impl<T: Apiv2Schema> Apiv2Schema for Body<T> {
    fn name() -> Option<String> {
        T::name()
    }

    fn raw_schema() -> DefaultSchemaRaw {
        T::raw_schema()
    }
}

impl<T: Apiv2Schema> OperationModifier for Body<T> {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        documented::Json::<T>::update_parameter(operation);
    }
}

impl<T: Apiv2Schema> Apiv2Schema for Params<T> {}

impl<T: Apiv2Schema> OperationModifier for Params<T> {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        documented::Query::<T>::update_parameter(operation);
    }
}

impl<T> Apiv2Schema for PathId<T> {}

impl<T> OperationModifier for PathId<T> {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        documented::Path::<uuid::Uuid>::update_parameter(operation);
    }
}
