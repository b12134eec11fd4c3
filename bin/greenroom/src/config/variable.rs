//! The names of all variables, with their defaults.

/// An environment variable. A configuration file uses the same name in lower case.
pub struct Variable {
    pub name: &'static str,
    pub need: Need,
    /// Whether `NAME_FILE` may name a file that contains the value.
    pub secret: bool,
}

/// The meaning of a variable that is not set.
pub enum Need {
    /// The configuration is invalid.
    Required,
    /// The variable has this value. An empty default means no value.
    Default(&'static str),
    /// Exactly one variable of this kind must be set.
    OneOf,
}

const fn optional(name: &'static str, default: &'static str) -> Variable {
    Variable { name, need: Need::Default(default), secret: false }
}

const fn required(name: &'static str) -> Variable {
    Variable { name, need: Need::Required, secret: false }
}

const fn secret(variable: Variable) -> Variable {
    Variable { secret: true, ..variable }
}

const fn one_of(name: &'static str) -> Variable {
    Variable { name, need: Need::OneOf, secret: false }
}

/// All variables, in the order of `.env.example`.
pub const VARIABLES: &[Variable] = &[
    optional("GREENROOM_LISTEN", "127.0.0.1:8080"),
    optional("GREENROOM_METRICS_LISTEN", ""),
    optional("GREENROOM_CORS_ORIGINS", ""),
    optional("GREENROOM_CONSOLE", "false"),
    optional("GREENROOM_LOG", "info"),
    optional("GREENROOM_LOG_FORMAT", "text"),
    optional("GREENROOM_STARTS_PER_MINUTE", ""),
    optional("GREENROOM_MAX_ACTIVE_SESSIONS", ""),
    optional("GREENROOM_AGENT_DEADLINE_SECONDS", "30"),
    optional("GREENROOM_RECONCILE_SECONDS", "30"),
    optional("GREENROOM_RETENTION_DAYS", ""),
    optional("GREENROOM_ON_LIVEKIT_DOWN", "fail"),
    secret(required("DATABASE_URL")),
    optional("DATABASE_POOL_SIZE", "10"),
    required("LIVEKIT_URL"),
    optional("LIVEKIT_API_URL", ""),
    secret(required("LIVEKIT_API_KEY")),
    secret(required("LIVEKIT_API_SECRET")),
    secret(optional("LIVEKIT_API_KEY_PREVIOUS", "")),
    secret(optional("LIVEKIT_API_SECRET_PREVIOUS", "")),
    optional("LIVEKIT_TOKEN_TTL_SECONDS", "3600"),
    optional("LIVEKIT_MAX_IN_FLIGHT", "64"),
    optional("LIVEKIT_CALLS_PER_MINUTE", ""),
    secret(one_of("AUTH_JWT_SECRET")),
    one_of("AUTH_JWT_PUBLIC_KEY_FILE"),
    one_of("AUTH_JWKS_URL"),
    secret(optional("AUTH_JWT_SECRET_PREVIOUS", "")),
    optional("AUTH_JWT_ISSUER", ""),
    optional("AUTH_JWT_AUDIENCE", ""),
    optional("AUTH_ORG_CLAIM", "org_id"),
    optional("AUTH_USER_CLAIM", "user_id"),
];

/// The variables that are checked but have no effect yet.
pub const WITHOUT_EFFECT: &[&str] = &["GREENROOM_METRICS_LISTEN", "GREENROOM_CONSOLE"];
