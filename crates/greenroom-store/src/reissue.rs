//! The statement that issues a new token for a session, on a replayed start or on a refresh.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Binary, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::TimelineEvent;
use greenroom_domain::template::TokenTtl;
use greenroom_domain::{OrganizationId, SessionId, UserId};

use crate::StoreError;
use crate::idempotency::{HAS_TIME_LEFT, KeyClaim, holds_key, limits_lock_waits};
use crate::new_session::{TOKEN_ISSUED_AT, push_token_expiry};
use crate::session_setup::{SessionSetupColumns, StartedRow, StartedRowSql, TEMPLATE_JOIN};
use crate::sql::push_may_see;

/// The session for which a new token is issued.
#[derive(Debug, Clone, Copy)]
pub enum TokenReissue<'a> {
    /// The session with this id, if the caller may see it. The reissue is recorded in its timeline as
    /// `token_refreshed`.
    Session {
        /// The id of the session, in the organization that [`TokenReissue::execute`] receives.
        id: SessionId,
        /// The user that the session must have, from
        /// [`Caller::sees_only`](greenroom_domain::Caller::sees_only). `None` means any user or a
        /// guest.
        end_user: Option<&'a UserId>,
    },
    /// The session that was started with this key and the same request, within
    /// [`KEY_LIFETIME`](greenroom_domain::idempotency::KEY_LIFETIME).
    Key(&'a KeyClaim),
}

impl TokenReissue<'_> {
    /// Extends the `token_expiry` of a session to that of the new token. Returns `None` if no such
    /// session exists, or the session is over or has no time left: see [`HAS_TIME_LEFT`]. The
    /// token's lifetime is `default_ttl` if the session's template sets none.
    ///
    /// The write orders a refresh against a concurrent end of the session, and makes a replay as
    /// durable as a start.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn execute(
        self,
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        default_ttl: TokenTtl,
    ) -> Result<Option<StartedRow>, StoreError> {
        let reissue = ReissueToken {
            organization,
            target: self,
            default_ttl,
            columns: SessionSetupColumns::new(),
        };
        Ok(reissue.get_result(connection).await.optional()?)
    }
}

struct ReissueToken<'a> {
    organization: OrganizationId,
    target: TokenReissue<'a>,
    default_ttl: TokenTtl,
    columns: SessionSetupColumns,
}

impl QueryId for ReissueToken<'_> {
    type QueryId = ();
    // The text depends on the target, so diesel caches the prepared statement by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for ReissueToken<'_> {
    type SqlType = StartedRowSql;
}

impl QueryFragment<Pg> for ReissueToken<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // The CTE has the table's name, so that the columns of `Session` resolve to the updated
        // row.
        //
        // Unlike other writes, this one leaves `revision` unchanged. The keeper decides nothing
        // about an open session by `token_expiry`, and a client that refreshes constantly must not
        // cause the keeper's commits to be refused.
        out.push_sql(
            "with sessions as (update sessions set token_expiry = greatest(token_expiry, ",
        );
        push_token_expiry(&self.default_ttl, "template", out.reborrow())?;
        out.push_sql(") from session_templates template where ");
        out.push_sql(TEMPLATE_JOIN);
        out.push_sql(" and ");
        out.push_sql(HAS_TIME_LEFT);
        out.push_sql(" and sessions.organization_id = ");
        out.push_bind_param::<Uuid, _>(&self.organization)?;
        match &self.target {
            TokenReissue::Session { id, end_user } => {
                out.push_sql(" and sessions.id = ");
                out.push_bind_param::<Uuid, _>(id)?;
                push_may_see(*end_user, &mut out)?;
            }
            TokenReissue::Key(key) => {
                out.push_sql(" and sessions.idempotency_key = ");
                out.push_bind_param::<Binary, _>(key.hash.as_slice())?;
                out.push_sql(" and ");
                key.fingerprint.push_is_same(out.reborrow())?;
                out.push_sql(" and ");
                out.push_sql(&holds_key("sessions"));
                out.push_sql(" and ");
                out.push_sql(&limits_lock_waits());
            }
        }
        out.push_sql(" returning sessions.*)");
        if let TokenReissue::Session { .. } = self.target {
            out.push_sql(
                ", new_event as (insert into session_events (organization_id, session_id, at, event)
                   select organization_id, id, now(), '",
            );
            out.push_sql(TimelineEvent::TokenRefreshed.as_str());
            out.push_sql("' from sessions)");
        }
        out.push_sql(" select ");
        self.columns.push(out.reborrow())?;
        out.push_sql(", ");
        push_token_expiry(&self.default_ttl, "template", out.reborrow())?;
        out.push_sql(", ");
        out.push_sql(TOKEN_ISSUED_AT);
        out.push_sql(", sessions.room_created_at is not null from sessions join session_templates template on ");
        out.push_sql(TEMPLATE_JOIN);
        Ok(())
    }
}
