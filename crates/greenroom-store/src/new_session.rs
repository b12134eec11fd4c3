//! [`NewSession`], the values of a session that its start provides.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::Integer;
use greenroom_domain::template::TokenTtl;
use greenroom_domain::{
    AgentName, JsonObject, OrganizationId, ParticipantAttributes, ParticipantIdentity,
    ParticipantName, ReconcileInterval, RoomName, SessionCount, SessionId, SessionTemplateId,
    UserId,
};

use crate::idempotency::StartKey;

/// The values of a session that the start provides. The template and PostgreSQL's clock provide the
/// remaining columns.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// The organization of the session and of its template.
    pub organization_id: OrganizationId,
    /// A UUID of version 7 with the time of the process. `created_at` is PostgreSQL's time, from
    /// which the process's clock may differ.
    pub id: SessionId,
    /// The template whose current version the session uses.
    pub session_template_id: SessionTemplateId,
    /// `None` means that the user is a guest.
    pub user_id: Option<UserId>,
    /// At most 4 KiB as JSON, for the agent. `None` means that the request has none.
    pub metadata: Option<JsonObject>,
    /// Must be unique among the sessions of all organizations, because they share one LiveKit.
    pub room_name: RoomName,
    /// The LiveKit identity of the user: the `user_id`, or a guest identity.
    pub participant_identity: ParticipantIdentity,
    /// Display name of the user in the room. `None` means the `user_id`; a guest then has no name.
    pub participant_name: Option<ParticipantName>,
    /// Attributes of the user in the room. `None` means that the request has none.
    pub participant_attributes: Option<ParticipantAttributes>,
    /// The agent that the template must name. `None` accepts any template, with or without an
    /// agent.
    pub agent_name: Option<AgentName>,
    /// Whether this process holds the session's bucket and remembers the first check of an `on_join`
    /// session. The stored time is then the end of its join window.
    pub is_first_check_remembered: bool,
    /// Decides whether the start is idempotent, and which session a repeated start returns.
    pub key: StartKey,
    /// The settings of the process.
    pub defaults: StartDefaults,
}

/// The settings of a process that apply to all its starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartDefaults {
    /// Lifetime of the token if the template sets none: 60 to 86,400 seconds.
    pub token_ttl: TokenTtl,
    /// Interval between two checks of an idle session against LiveKit: 1 to 3,600 seconds. An
    /// `on_join` session is first checked within this time.
    pub first_check_within: ReconcileInterval,
    /// The limit of open sessions (`pending` or `active`), used if the organization's row sets none.
    /// `None` means no limit.
    pub max_active_sessions: Option<SessionCount>,
}

/// SQL expression: when the statement issues a token, by PostgreSQL's clock. A JWT contains whole
/// seconds, and `token_expiry` must equal the expiry in the token.
pub(crate) const TOKEN_ISSUED_AT: &str = "date_trunc('second', now())";

/// Pushes the expiry of a token that the statement issues. `template` is the statement's name for
/// the row of `session_templates`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the statement borrows its bind parameters")]
pub(crate) fn push_token_expiry<'b>(
    default_ttl: &'b TokenTtl,
    template: &str,
    mut out: AstPass<'_, 'b, Pg>,
) -> QueryResult<()> {
    out.push_sql(TOKEN_ISSUED_AT);
    out.push_sql(" + make_interval(secs => coalesce(");
    out.push_sql(template);
    out.push_sql(".token_ttl_seconds, ");
    out.push_bind_param::<Integer, _>(default_ttl)?;
    out.push_sql("))");
    Ok(())
}
