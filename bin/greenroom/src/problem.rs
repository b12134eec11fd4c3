//! Failures as clients see them (RFC 9457). Only this module and its submodules use status codes.

mod code;
mod error;

use std::fmt;

use actix_web::http::header::HeaderName;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use greenroom_core::domain::Invalid;
use paperclip::v2::schema::Apiv2Errors;
use serde::Serialize;

pub use self::code::Code;

/// The media type of every failure.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// An invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The path of the field, such as `enabled_panels[3]`.
    pub field: String,
    /// What the value must be, such as `must be a string`.
    pub detail: String,
}

impl FieldError {
    #[must_use]
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }

    /// Converts an error of the domain. If an element of a list is invalid, the field names the
    /// element.
    #[must_use]
    pub fn of(field: &str, invalid: &Invalid) -> Self {
        let field = match invalid.element {
            Some(element) => format!("{field}[{element}]"),
            None => field.to_owned(),
        };
        Self::new(field, invalid.to_string())
    }
}

/// The result of each check of `/readyz`: `ok`, or the fault.
#[derive(Debug, Clone, Serialize)]
pub struct Checks {
    pub database: String,
    pub migrations: String,
    pub livekit: String,
}

/// An exhausted limit, for the header fields of the third version of the IETF draft `RateLimit
/// header fields for HTTP`, which clients support.
#[derive(Debug, Clone, Copy)]
struct Quota {
    limit: u64,
    /// Seconds until one more request may succeed.
    retry_after: u64,
    /// Seconds until the whole limit is available again.
    reset_after: u64,
}

/// A failure that becomes a response.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    allow: Option<&'static str>,
    checks: Option<Box<Checks>>,
    quota: Option<Quota>,
}

/// The members of the body, in a readable order.
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

    /// A request with invalid fields.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        let detail = format!("Invalid fields: {}. See errors for the details.", fields.join(", "));
        Self { errors, ..Self::new(Code::InvalidRequest, detail) }
    }

    /// A field that the request sets, but that the template or the server determines.
    #[must_use]
    pub fn not_configurable(field: &str) -> Self {
        Self::new(
            Code::NotConfigurable,
            format!("The template or the server determines {field}. Remove it from the request."),
        )
    }

    /// A method that the route does not support. `allow` lists the supported methods.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("This route does not support the method. Use {allow}.");
        Self { allow: Some(allow), ..Self::new(Code::MethodNotAllowed, detail) }
    }

    /// A path that is not a route.
    #[must_use]
    pub fn route_not_found() -> Self {
        Self::new(Code::RouteNotFound, "This path is not a route. See /docs for all routes.")
    }

    /// A process that cannot serve requests. The checks say why.
    #[must_use]
    pub fn not_ready(checks: Checks) -> Self {
        let detail = "Greenroom cannot serve requests. See checks for the reasons.";
        Self { checks: Some(Box::new(checks)), ..Self::new(Code::NotReady, detail) }
    }

    /// Returns the problem in an error of actix-web. An error that contains no [`Problem`] comes
    /// from actix-web itself. It becomes `invalid_request` or `internal`, according to its status.
    pub fn from_actix(error: &actix_web::Error) -> Self {
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
                // For example a CORS preflight for a method that is not allowed. The text says what
                // is wrong.
                Self::invalid(vec![FieldError::new("request", error.to_string())])
            }
            _ => Self::internal(&error),
        }
    }

    /// Builds the response to the request with this id.
    #[must_use]
    pub fn respond(&self, request_id: &str) -> HttpResponse {
        let status = self.code.status();
        let mut response = HttpResponse::build(status);
        response.content_type(CONTENT_TYPE);
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if self.code.retryable() {
            let seconds = self.quota.map_or(1, |quota| quota.retry_after);
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Some(quota) = self.quota {
            response
                .insert_header((RATE_LIMIT, quota.limit))
                .insert_header((RATE_LIMIT_REMAINING, 0))
                .insert_header((RATE_LIMIT_RESET, quota.reset_after));
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

    /// A fault of Greenroom. Logs the cause, which the response does not contain.
    pub fn internal(cause: &dyn fmt::Display) -> Self {
        tracing::error!(error = %cause, "failed to handle request");
        Self::new(
            Code::Internal,
            "Greenroom failed to handle the request. Its log contains the cause under this request_id.",
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

// `openapi.rs` adds the failures of each route from its own table.
impl Apiv2Errors for Problem {}

/// The maximum number of sessions, or of starts per minute.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
/// The remaining starts or sessions: always 0, because only refusals have this header.
pub const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// Seconds until the whole limit is available again.
pub const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The id of the request, in requests and responses.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
