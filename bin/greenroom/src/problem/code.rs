//! The table of problem codes, with the status and the title of each.

use actix_web::http::StatusCode;

macro_rules! codes {
    ($($code:ident = $text:literal, $status:ident, $title:literal;)+) => {
        /// The stable name of a kind of failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($code,)+ }

        impl Code {
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)+ }
            }

            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$code => StatusCode::$status,)+ }
            }

            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$code => $title,)+ }
            }
        }
    };
}

codes! {
    InvalidRequest = "invalid_request", BAD_REQUEST, "Invalid request";
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "Invalid cursor";
    InvalidIdempotencyKey = "invalid_idempotency_key", BAD_REQUEST, "Invalid idempotency key";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Not authenticated";
    TemplateForbidden = "template_forbidden", FORBIDDEN, "Template belongs to another organization";
    ScopeMissing = "scope_missing", FORBIDDEN, "Missing scope";
    UserForbidden = "user_forbidden", FORBIDDEN, "Not allowed for end users";
    TemplateNotFound = "template_not_found", NOT_FOUND, "Template not found";
    SessionNotFound = "session_not_found", NOT_FOUND, "Session not found";
    RouteNotFound = "route_not_found", NOT_FOUND, "Route not found";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    SessionOver = "session_over", CONFLICT, "Session is over";
    TemplateNameTaken = "template_name_taken", CONFLICT, "Template name already in use";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "Request body too large";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Unsupported media type";
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "Idempotency key reused";
    NotConfigurable = "not_configurable", UNPROCESSABLE_ENTITY, "Field not configurable";
    TooManyActiveSessions = "too_many_active_sessions", TOO_MANY_REQUESTS, "Too many open sessions";
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many starts";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error";
    LiveKitError = "livekit_error", BAD_GATEWAY, "LiveKit refused the request";
    LiveKitUnavailable = "livekit_unavailable", SERVICE_UNAVAILABLE, "LiveKit unavailable";
    LiveKitTimeout = "livekit_timeout", GATEWAY_TIMEOUT, "LiveKit did not respond in time";
    DatabaseUnavailable = "database_unavailable", SERVICE_UNAVAILABLE, "Database unavailable";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Overloaded";
    NotReady = "not_ready", SERVICE_UNAVAILABLE, "Not ready";
}

impl Code {
    /// Returns whether the same request may succeed later.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(
            self.status(),
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        )
    }
}
