//! Who calls: the bearer token, verified.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use greenroom_core::domain::OrganizationId;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use paperclip::actix::OperationModifier;
use paperclip::v2::schema::Apiv2Schema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::problem::{Code, Problem};

/// Verifies callers' tokens.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

/// A caller who is known: a backend of this organization.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    pub organization: OrganizationId,
}

#[derive(Deserialize)]
struct Claims {
    org_id: OrganizationId,
    #[serde(default, deserialize_with = "present")]
    user_id: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    scope: Option<Value>,
}

/// A claim that is null is there: serde alone would take it for absent.
fn present<'de, D: Deserializer<'de>>(claim: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(claim).map(Some)
}

impl Verifier {
    #[must_use]
    pub fn new(secret: &SecretString) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 30;
        validation.validate_nbf = true;
        // No audience is expected, so one that is there says nothing.
        validation.validate_aud = false;
        Self { key: DecodingKey::from_secret(secret.expose_secret().as_bytes()), validation }
    }

    fn verify(&self, request: &HttpRequest) -> Result<Caller, Problem> {
        let token = bearer_token(request).ok_or_else(|| unauthenticated("no bearer token"))?;
        let verified = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation);
        let claims = verified.map_err(|error| unauthenticated(&error.to_string()))?.claims;
        // To ignore these claims would make a backend of an end user, or of a caller with less
        // rights than all.
        if claims.user_id.is_some() {
            return Err(Problem::new(
                Code::UserForbidden,
                "Tokens with a user_id claim are not accepted yet.",
            ));
        }
        if claims.scope.is_some() {
            return Err(Problem::new(
                Code::ScopeMissing,
                "Tokens with a scope claim are not accepted yet.",
            ));
        }
        Ok(Caller { organization: claims.org_id })
    }
}

/// The token of RFC 6750, §2.1; the scheme's name has no case (RFC 9110, §11.1).
fn bearer_token(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Which check failed is for the log, without the token.
fn unauthenticated(reason: &str) -> Problem {
    tracing::info!(reason, "a caller was not authenticated");
    Problem::new(Code::Unauthenticated, "Send a valid token: Authorization: Bearer <JWT>.")
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let verifier = request.app_data::<web::Data<Verifier>>();
        let verify = |verifier: &web::Data<Verifier>| verifier.verify(request);
        ready(verifier.map_or_else(|| Err(unauthenticated("no verifier is configured")), verify))
    }
}

// The bearer scheme is added by openapi.rs, for paperclip's OpenAPI 2 has none.
impl Apiv2Schema for Caller {}
impl OperationModifier for Caller {}
