//! [`NewSession`], and the SQL that `InsertSession` and `ResumeOrInsertSession` share.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::{Bool, Integer, Jsonb, Nullable, Text, Uuid};
use greenroom_domain::lifecycle::JOB_ASSIGNMENT_TIMEOUT;
use greenroom_domain::template::TokenTtl;
use greenroom_domain::{
    AgentName, JsonObject, OrganizationId, ParticipantAttributes, ParticipantIdentity,
    ParticipantName, ReconcileInterval, RoomName, SessionCount, SessionId, SessionTemplateId,
    UserId,
};

use crate::idempotency::{KeyClaim, StartKey};
use crate::open_sessions::{DECLARE_UNCOUNTED, push_open_sessions};
use crate::organization::push_max_sessions;
use crate::sql::push_interval;
use crate::template::IS_USABLE;

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
    /// Lifetime of the token if the template sets none: 60 to 86,400 seconds.
    pub default_token_ttl: TokenTtl,
    /// Interval between two checks of an idle session against LiveKit: 1 to 3,600 seconds. An
    /// `on_join` session is first checked within this time.
    pub first_check_within: ReconcileInterval,
    /// Whether this process holds the session's bucket and remembers the first check of an `on_join`
    /// session. The stored time is then the end of its join window.
    pub is_first_check_remembered: bool,
    /// Decides whether the start is idempotent, and which session a repeated start returns.
    pub key: StartKey,
    /// The server's default limit of open sessions (`pending` or `active`), used if the
    /// organization's row sets none. `None` means no limit.
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

impl NewSession {
    /// Pushes a query for the current version of the template. The query returns no row if the
    /// template is absent or archived, has a setting that this version does not know or another
    /// agent than the request, or if the organization has reached its limit. Without `LOCKED`, it returns no row for any organization with a
    /// limit.
    ///
    /// `LOCKED` selects one of two texts instead of being a bind parameter. With a parameter,
    /// PostgreSQL would prefer a custom plan, which can omit the count, and therefore plan every
    /// execution. `counted` is that of the lock.
    #[expect(clippy::ref_option, reason = "the statement borrows its bind parameters")]
    pub(crate) fn push_template<'b, const LOCKED: bool>(
        &'b self,
        counted: &'b Option<i64>,
        mut out: AstPass<'_, 'b, Pg>,
    ) -> QueryResult<()> {
        out.push_sql("select session_templates.*, ");
        out.push_sql(DECLARE_UNCOUNTED);
        out.push_sql(
            " from session_templates
             join organizations on organizations.id = session_templates.organization_id
             cross join lateral (
               select ",
        );
        push_max_sessions(&self.max_active_sessions, &mut out)?;
        out.push_sql(
            " as max_sessions) as session_limit
             where superseded_at is null and archived_at is null and session_templates.organization_id = ",
        );
        out.push_bind_param::<Uuid, _>(&self.organization_id)?;
        out.push_sql(" and session_templates.id = ");
        out.push_bind_param::<Uuid, _>(&self.session_template_id)?;
        out.push_sql(" and ");
        out.push_sql(IS_USABLE);
        out.push_sql(" and agent_name is not distinct from coalesce(");
        out.push_bind_param::<Nullable<Text>, _>(&self.agent_name)?;
        out.push_sql(", agent_name) and (session_limit.max_sessions is null");
        if LOCKED {
            out.push_sql(" or session_limit.max_sessions > ");
            push_open_sessions(counted, &mut out)?;
        }
        out.push_sql(")");
        Ok(())
    }

    /// Pushes a CTE that inserts the session from the CTE `template`. The CTE has the table's name,
    /// so that the columns of [`Session`](crate::Session) resolve to the inserted row.
    pub(crate) fn push_insert<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "sessions as (
               insert into sessions (
                 organization_id, session_template_id, session_template_version,
                 modality_profile, enabled_panels, room_creation, status, agent_status, join_by, next_check_at,
                 id, user_id, metadata, room_name,
                 participant_identity, participant_name, participant_attributes, created_at,
                 idempotency_key, idempotency_fingerprint, token_expiry)
               select
                 organization_id, id, version,
                 modality_profile, enabled_panels, room_creation, 'pending',
                 case when agent_name is null then 'none' else 'waiting' end,
                 now() + make_interval(secs => join_window_seconds),
                 case when room_creation = 'on_start' then now() + ",
        );
        push_interval(JOB_ASSIGNMENT_TIMEOUT, &mut out);
        out.push_sql(" when ");
        out.push_bind_param::<Bool, _>(&self.is_first_check_remembered)?;
        out.push_sql(" then now() + make_interval(secs => join_window_seconds)");
        out.push_sql(" else now() + make_interval(secs => least(join_window_seconds, ");
        out.push_bind_param::<Integer, _>(&self.first_check_within)?;
        out.push_sql(")) end, ");
        out.push_bind_param::<Uuid, _>(&self.id)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Text>, _>(&self.user_id)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Jsonb>, _>(&self.metadata)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(&self.room_name)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(&self.participant_identity)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Text>, _>(&self.participant_name)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Jsonb>, _>(&self.participant_attributes)?;
        // The API shows milliseconds, so a time that it returned selects the same sessions.
        out.push_sql(", date_trunc('milliseconds', now()), ");
        KeyClaim::push_columns(self.key.claim(), out.reborrow())?;
        out.push_sql(", ");
        push_token_expiry(&self.default_token_ttl, "template", out.reborrow())?;
        out.push_sql(
            " from template
              on conflict (organization_id, idempotency_key) where idempotency_key is not null do nothing
              returning *)",
        );
        Ok(())
    }
}
