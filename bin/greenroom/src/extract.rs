//! Reading paths, queries and bodies so that a wrong one is told by its field.

use std::fmt::Display;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::rt::time::timeout;
use actix_web::web::{self, Bytes};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use greenroom_core::domain::Invalid;
use paperclip::actix::OperationModifier;
use paperclip::actix::web as documented;
use paperclip::v2::models::{DefaultOperationRaw, DefaultSchemaRaw};
use paperclip::v2::schema::Apiv2Schema;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::{Code, FieldError, Problem};

/// The largest body of a route that names no other, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// Collects wrong fields, so that all are told at once.
#[derive(Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// The value of a field, or none and its error.
    pub fn take<T>(&mut self, field: &str, value: Result<T, Invalid>) -> Option<T> {
        value.map_err(|invalid| self.0.push(FieldError::of(field, &invalid))).ok()
    }

    /// Puts a field's value in its place, unless it is wrong.
    pub fn set<T>(&mut self, field: &str, value: Result<T, Invalid>, place: &mut T) {
        if let Some(value) = self.take(field, value) {
            *place = value;
        }
    }

    /// As [`Self::set`]; an absent value leaves the place as it is.
    pub fn set_some<T>(&mut self, field: &str, value: Option<Result<T, Invalid>>, place: &mut T) {
        if let Some(value) = value {
            self.set(field, value, place);
        }
    }

    /// What was made of the fields, unless one was wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Problem> {
        self.or(value).map_err(Problem::invalid)
    }

    /// The same, for whoever tells the wrong fields otherwise.
    pub fn or<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        value.filter(|_| self.0.is_empty()).ok_or(self.0)
    }
}

/// A body as it was sent, whatever it is, of at most so many bytes.
pub struct RawBody<const LIMIT: usize = BODY_LIMIT>(pub Bytes);

impl<const LIMIT: usize> FromRequest for RawBody<LIMIT> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = web::Payload::from_request(request, payload);
        Box::pin(async move {
            let payload = payload.await.map_err(|error| Problem::of(&error))?;
            let Ok(arrived) = timeout(BODY_WITHIN, payload.to_bytes_limited(LIMIT)).await else {
                return Err(wrong_body("the body did not arrive in time").into());
            };
            let bytes = arrived.map_err(|_| too_large(LIMIT))?;
            Ok(Self(bytes.map_err(|error| Problem::of(&error))?))
        })
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("The body is larger than {} KiB.", limit / 1024))
}

/// A JSON body. An absent one is an empty object where the type allows that.
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
            // serde would take an array for a struct, its elements for the fields in their order.
            if json.trim_ascii_start().first() != Some(&b'{') {
                return Err(wrong_body("the body must be a JSON object").into());
            }
            let mut reader = serde_json::Deserializer::from_slice(json);
            let body = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
                let path = error.path().to_string();
                wrong_json(&path, &error.into_inner())
            })?;
            reader.end().map_err(|error| wrong_json(".", &error))?;
            Ok(Self(body))
        })
    }
}

/// Reads a value as a body is read.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| wrong_json(&error.path().to_string(), error.inner()))
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
        format!("Send JSON, with {name}: application/json."),
    ))
}

/// A fault of the body as a whole.
fn wrong_body(detail: &str) -> FieldError {
    FieldError::new("body", detail)
}

/// A fault of the body's JSON: of a field, when it is known which, and in words that say what would
/// be right. What was sent is not repeated.
fn wrong_json(path: &str, error: &serde_json::Error) -> FieldError {
    let message = error.to_string();
    if error.is_syntax() || error.is_eof() {
        return wrong_body(&format!("must be JSON: {message}"));
    }
    // The path ends before a field that comes twice.
    let twice = message.strip_prefix("duplicate field `").and_then(|rest| rest.split_once('`'));
    if let Some((field, _)) = twice {
        return FieldError::new(field, "must be given once, and in one spelling");
    }
    // Where a key or a variant is unknown, the path ends in it, or in a question mark.
    let path = path.trim_end_matches(['?', '.']);
    let path = if path.is_empty() { "body" } else { path };
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let detail = match message.rsplit_once(", expected ") {
        Some((wrong, expected)) if wrong.starts_with("invalid") => {
            format!("must be {}", noun(expected))
        }
        Some(_) if message.starts_with("unknown field") => "is not a field of this".to_owned(),
        _ => message.to_owned(),
    };
    FieldError::new(path, detail)
}

/// What serde expects, in the words of JSON.
fn noun(expected: &str) -> &str {
    match expected {
        "a string" => "a string",
        "i64" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        other => other,
    }
}

/// The parameters of a query.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Params<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let query = request.query_string();
        let wrong = |detail: String| Problem::invalid(vec![FieldError::new("query", detail)]);
        // serde_urlencoded would read what is no UTF-8 as a text that nobody has sent.
        if percent_decode_str(query).decode_utf8().is_err() {
            return ready(Err(wrong("must be UTF-8".to_owned())));
        }
        ready(serde_urlencoded::from_str(query).map(Self).map_err(|error| wrong(error.to_string())))
    }
}

/// A whole number of a query within its range; the default, when it is absent.
pub fn number<T>(text: Option<&str>, min: T, max: T, default: T) -> Result<T, Invalid>
where
    T: Copy + FromStr + PartialOrd + Display,
{
    let Some(text) = text else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| Invalid::new(format!("must be a whole number from {min} to {max}")))
}

/// The one id of a path.
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

// What a route ignores, or only a machine sends, is not in the document.
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
