//! Authentication and authorization of API requests: a middleware, and the extractors of handlers.

pub mod claims;
pub mod jwks;
pub mod key;
pub mod scope;
pub mod verify;

use std::future::{Ready, ready};
use std::marker::PhantomData;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::http::header::HeaderMap;
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use greenroom_core::{Caller, Error};
use paperclip::actix::OperationModifier;
use paperclip::v2::schema::Apiv2Schema;

use self::claims::Identity;
use self::scope::{Scope, ScopeOf};
use self::verify::Verifier;
use crate::problem::{Code, Problem};

/// Requests below this path need a caller's token.
const API_PREFIX: &str = "/api/v1/";

/// Middleware that verifies the token of each request below [`API_PREFIX`] and attaches the
/// [`Identity`] for the extractors. An extractor that finds no identity refuses the request.
pub async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if request.path().starts_with(API_PREFIX) {
        match identify(&request).await {
            Ok(identity) => drop(request.extensions_mut().insert(identity)),
            Err(error) => return Ok(request.error_response(unauthenticated(error))),
        }
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

async fn identify(request: &ServiceRequest) -> Result<Identity, &'static str> {
    let verifier =
        request.app_data::<web::Data<Verifier>>().ok_or("the application has no verifier")?;
    let token = bearer_token(request.headers()).ok_or("the request has no bearer token")?;
    verifier.verify(token).await
}

/// Reads the bearer token (RFC 6750, §2.1). The scheme's name is case-insensitive (RFC 9110,
/// §11.1). Two `Authorization` headers are ambiguous and count as no token.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Logs which check failed, without the token. The response does not contain the reason.
fn unauthenticated(error: &str) -> Problem {
    tracing::info!(error, "failed to authenticate a caller");
    let detail = "The bearer token is missing or invalid. Send Authorization: Bearer <JWT>.";
    Problem::new(Code::Unauthenticated, detail)
}

/// Extracts the caller, if its token permits the scope `S` and the scope is not closed to the
/// caller.
///
/// Core checks the caller again. The check here only decides the order: a caller that may not use
/// the route is refused before its body is read.
pub struct Allowed<S>(pub Caller, PhantomData<S>);

impl<S: ScopeOf> FromRequest for Allowed<S> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authorize(request, S::SCOPE).map(|caller| Self(caller, PhantomData)))
    }
}

/// Returns the caller if its token and the rules for callers permit the scope.
fn authorize(request: &HttpRequest, scope: Scope) -> Result<Caller, Problem> {
    let extensions = request.extensions();
    let identity = extensions
        .get::<Identity>()
        .ok_or_else(|| unauthenticated("the authentication middleware did not run"))?;
    if !identity.scopes.permit(scope) {
        let detail = format!(
            "The token's scope claim does not include {}. Use a token with this scope.",
            scope.as_str()
        );
        return Err(Problem::new(Code::ScopeMissing, detail));
    }
    if !scope.is_open_to(&identity.caller) {
        return Err(Error::BackendOnly.into());
    }
    Ok(identity.caller.clone())
}

// `openapi.rs` adds the bearer scheme, because OpenAPI 2, which paperclip generates, has none.
impl<S> Apiv2Schema for Allowed<S> {}
impl<S> OperationModifier for Allowed<S> {}
