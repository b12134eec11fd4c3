//! Who calls, and what they may do: every route of the API asks it, before it looks at anything else.

pub mod claims;
pub mod jwks;
pub mod key;
pub mod scope;
pub mod verify;

use std::future::{Ready, ready};
use std::marker::PhantomData;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap};
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use greenroom_core::Caller;
use greenroom_core::domain::OrganizationId;
use paperclip::actix::OperationModifier;
use paperclip::v2::schema::Apiv2Schema;

use crate::problem::{Code, Problem};
use claims::Identity;
use scope::{Scope, ScopeOf};
use verify::Verifier;

/// Below this everybody says who they are.
const API: &str = "/api/v1/";

/// The middleware that verifies the caller's token, and leaves who it is for the extractors. A
/// handler that was reached without it finds nobody and refuses.
pub async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if request.path().starts_with(API) {
        match verify(&request).await {
            Ok(identity) => drop(request.extensions_mut().insert(identity)),
            Err(reason) => return Ok(request.error_response(unauthenticated(reason))),
        }
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

async fn verify(request: &ServiceRequest) -> Result<Identity, &'static str> {
    let verifier = request.app_data::<web::Data<Verifier>>().ok_or("no verifier is configured")?;
    let token = bearer_token(request.headers()).ok_or("there is no bearer token")?;
    verifier.verify(token).await
}

/// The token of RFC 6750, §2.1; the scheme's name has no case (RFC 9110, §11.1). Two are none.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Which check failed is for the log, without the token.
fn unauthenticated(reason: &str) -> Problem {
    tracing::info!(reason, "a caller was not authenticated");
    Problem::new(Code::Unauthenticated, "Send a valid token: Authorization: Bearer <JWT>.")
}

/// A caller whose token allows what `S` names: a backend, or one of its organization's end users.
pub struct Allowed<S>(pub Caller, PhantomData<S>);

/// A backend whose token allows what `S` names; end users are refused.
pub struct Backend<S>(pub OrganizationId, PhantomData<S>);

impl<S: ScopeOf> FromRequest for Allowed<S> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(allow(request, S::SCOPE).map(|caller| Self(caller, PhantomData)))
    }
}

impl<S: ScopeOf> FromRequest for Backend<S> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(allow(request, S::SCOPE).and_then(|caller| match caller.end_user {
            None => Ok(Self(caller.organization_id, PhantomData)),
            Some(_) => {
                let detail = "This is for backends; the token is an end user's.";
                Err(Problem::new(Code::UserForbidden, detail))
            }
        }))
    }
}

fn allow(request: &HttpRequest, scope: Scope) -> Result<Caller, Problem> {
    let extensions = request.extensions();
    let identity =
        extensions.get::<Identity>().ok_or_else(|| unauthenticated("nobody was asked"))?;
    if identity.scopes.allow(scope) {
        return Ok(identity.caller.clone());
    }
    let detail = format!("This needs a token whose scope claim names {}.", scope.as_str());
    Err(Problem::new(Code::ScopeMissing, detail))
}

// The bearer scheme is added by openapi.rs, for paperclip's OpenAPI 2 has none.
impl<S> Apiv2Schema for Allowed<S> {}
impl<S> OperationModifier for Allowed<S> {}
impl<S> Apiv2Schema for Backend<S> {}
impl<S> OperationModifier for Backend<S> {}
