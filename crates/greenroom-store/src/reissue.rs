//! A further token for a session that lives: a start that is sent again, and a refresh.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Binary, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionId};

use crate::StoreError;
use crate::idempotency::KeyClaim;
use crate::session_setup::{SessionSetupColumns, TEMPLATE_JOIN};
use crate::start::{StartedRow, StartedRowSql, TokenLifetime};

/// Which session gets the token.
#[derive(Debug, Clone, Copy)]
pub enum TokenReissue<'a> {
    /// By its id; the timeline tells of it.
    Session(SessionId),
    /// By the key it was started with, when the request is the same.
    Key(&'a KeyClaim),
}

impl TokenReissue<'_> {
    /// Puts the session's `token_expiry` off, which is what settles a refresh against an end, and
    /// makes an acknowledged replay as durable as a start. None when the session is over, or not
    /// there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn execute(
        self,
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        token: TokenLifetime,
    ) -> Result<Option<StartedRow>, StoreError> {
        let renew =
            ReissueToken { organization, target: self, token, columns: SessionSetupColumns::new() };
        Ok(renew.get_result(connection).await.optional()?)
    }
}

struct ReissueToken<'a> {
    organization: OrganizationId,
    target: TokenReissue<'a>,
    token: TokenLifetime,
    columns: SessionSetupColumns,
}

impl QueryId for ReissueToken<'_> {
    type QueryId = ();
    // The text differs by what is renewed, and is what the prepared statement is found by.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for ReissueToken<'_> {
    type SqlType = StartedRowSql;
}

impl QueryFragment<Pg> for ReissueToken<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // `sessions` is the table inside, and what was written of it outside. The one writer that adds
        // nothing to `revision`: of a session that lives nobody decides by this column, and whoever
        // refreshes all the time shall not keep the keeper from it.
        out.push_sql(
            "with sessions as (update sessions set token_expiry = greatest(token_expiry, ",
        );
        self.token.push_expiry("template", out.reborrow())?;
        out.push_sql(") from session_templates template where ");
        out.push_sql(TEMPLATE_JOIN);
        out.push_sql(
            " and sessions.status in ('pending', 'active') and sessions.organization_id = ",
        );
        out.push_bind_param::<Uuid, _>(&self.organization)?;
        match &self.target {
            TokenReissue::Session(id) => {
                out.push_sql(" and sessions.id = ");
                out.push_bind_param::<Uuid, _>(id)?;
            }
            TokenReissue::Key(key) => {
                out.push_sql(" and sessions.idempotency_key = ");
                out.push_bind_param::<Binary, _>(key.hash.as_slice())?;
                out.push_sql(" and sessions.idempotency_fingerprint = ");
                out.push_bind_param::<Binary, _>(key.fingerprint.as_slice())?;
                out.push_sql(" and sessions.created_at > now() - interval '24 hours'");
            }
        }
        out.push_sql(" returning sessions.*)");
        if let TokenReissue::Session(_) = self.target {
            out.push_sql(
                ", told as (insert into session_events (organization_id, session_id, at, event)
                   select organization_id, id, now(), 'token_refreshed' from sessions)",
            );
        }
        out.push_sql(" select ");
        self.columns.push(out.reborrow())?;
        out.push_sql(", ");
        self.token.push_expiry("template", out.reborrow())?;
        out.push_sql(", sessions.room_created_at is not null from sessions join session_templates template on ");
        out.push_sql(TEMPLATE_JOIN);
        Ok(())
    }
}
