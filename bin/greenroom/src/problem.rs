//! Failures as clients see them: RFC 9457, and the one place with status codes.

mod code;
mod error;

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpResponse, ResponseError};
use greenroom_core::domain::Invalid;
use paperclip::v2::schema::Apiv2Errors;
use serde::Serialize;

pub use code::Code;

/// The media type of every failure.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// A wrong field: where it is, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    pub field: String,
    pub detail: String,
}

impl FieldError {
    #[must_use]
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }

    /// Of a value the domain refused, pointing at the element when it is a list's.
    #[must_use]
    pub fn of(field: &str, invalid: &Invalid) -> Self {
        let field = match invalid.element {
            Some(element) => format!("{field}[{element}]"),
            None => field.to_owned(),
        };
        Self::new(field, invalid.to_string())
    }
}

/// What `/readyz` looked at: `ok`, or what is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Checks {
    pub database: String,
    pub migrations: String,
    pub livekit: String,
}

/// How many starts there may be, of which none is left. In the words of the IETF's draft on
/// `RateLimit` header fields, third version, which is what clients know.
#[derive(Debug, Clone, Copy)]
struct Quota {
    limit: u64,
    /// In how many seconds one more may be let in.
    next: u64,
    /// In how many seconds all of them may.
    reset: u64,
}

/// A failure on its way to a client.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    allow: Option<&'static str>,
    checks: Option<Box<Checks>>,
    quota: Option<Quota>,
}

/// The members of the body, in the order in which people read them.
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    request_id: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: &'a Option<Box<Checks>>,
}

impl Problem {
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { code, detail, errors: Vec::new(), allow: None, checks: None, quota: None }
    }

    /// A request with wrong fields.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        let detail = format!("Wrong in this request: {}.", fields.join(", "));
        Self { errors, ..Self::new(Code::InvalidRequest, detail) }
    }

    /// A field that wants to decide what the template and the server do.
    #[must_use]
    pub fn not_configurable(what: &str) -> Self {
        Self::new(
            Code::NotConfigurable,
            format!("{what} is for the template and the server to decide; leave it out."),
        )
    }

    /// A method the route does not have; `allow` names those it has.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("This route allows {allow}.");
        Self { allow: Some(allow), ..Self::new(Code::MethodNotAllowed, detail) }
    }

    /// A path that is none of ours.
    #[must_use]
    pub fn no_such_route() -> Self {
        Self::new(Code::RouteNotFound, "There is no such route; /docs shows them all.")
    }

    /// A part that is missing is named by its check.
    #[must_use]
    pub fn not_ready(checks: Checks) -> Self {
        let detail = "Requests cannot be served; the checks say why.";
        Self { checks: Some(Box::new(checks)), ..Self::new(Code::NotReady, detail) }
    }

    /// The problem a failed response carries. One that is not ours comes from actix-web itself,
    /// and what its status says is all that is told.
    pub fn of(error: &actix_web::Error) -> Self {
        if let Some(problem) = error.as_error::<Self>() {
            return Self {
                code: problem.code,
                detail: problem.detail.clone(),
                errors: problem.errors.clone(),
                allow: problem.allow,
                checks: problem.checks.clone(),
                quota: problem.quota,
            };
        }
        match error.as_response_error().status_code() {
            status if status.is_client_error() => {
                // A preflight that asks for too much, for one: its own words name what.
                Self::invalid(vec![FieldError::new("request", error.to_string())])
            }
            _ => Self::internal(&error),
        }
    }

    /// The response, with the id of the request it answers.
    #[must_use]
    pub fn respond(&self, request_id: &str) -> HttpResponse {
        let status = self.code.status();
        let mut response = HttpResponse::build(status);
        response.content_type(CONTENT_TYPE);
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if self.code.retryable() {
            let seconds = self.quota.map_or(1, |quota| quota.next);
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Some(quota) = self.quota {
            response
                .insert_header((RATE_LIMIT, quota.limit))
                .insert_header((RATE_LIMIT_REMAINING, 0))
                .insert_header((RATE_LIMIT_RESET, quota.reset));
        }
        if let Some(allow) = self.allow {
            response.insert_header((header::ALLOW, allow));
        }
        let body = Body {
            r#type: format!("urn:greenroom:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: status.as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            request_id,
            retryable: self.code.retryable(),
            errors: &self.errors,
            checks: &self.checks,
        };
        response.body(serde_json::to_vec(&body).unwrap_or_default())
    }

    /// A fault of ours. Its cause is for the log, and this is where it gets there.
    pub fn internal(cause: &dyn fmt::Display) -> Self {
        tracing::error!(error = %cause, "a request failed");
        Self::new(
            Code::Internal,
            "Something went wrong on our side; the log has it under this request_id.",
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::invalid(vec![error])
    }
}

// What each route may answer is added by openapi.rs from its own table.
impl Apiv2Errors for Problem {}

/// The names of the headers that tell of a limit.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
pub const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
pub const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The name of the header that carries a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
