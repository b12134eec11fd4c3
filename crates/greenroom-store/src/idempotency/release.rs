//! Releases the key of one session, so that a start may take it.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{Binary, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::OrganizationId;

use super::{KeyClaim, holds_key, limits_lock_waits, resumable};
use crate::StoreError;

impl KeyClaim {
    /// Releases the key if its session is older than
    /// [`KEY_LIFETIME`](greenroom_domain::idempotency::KEY_LIFETIME). Returns whether it did.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn release_if_expired(
        &self,
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
    ) -> Result<bool, StoreError> {
        let condition = format!("not {}", holds_key("sessions"));
        let release = ReleaseKey { organization, key: self, condition };
        Ok(release.execute(connection).await? > 0)
    }

    /// Releases an implicit key if its user can no longer resume the session that holds it.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn release(
        &self,
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
    ) -> Result<(), StoreError> {
        // `not` would not match if the user has never left: the condition is then null.
        let condition = format!("{} is not true", resumable());
        ReleaseKey { organization, key: self, condition }.execute(connection).await?;
        Ok(())
    }
}

/// Handwritten, because diesel prepares its own updates anew for each execution.
struct ReleaseKey<'a> {
    organization: OrganizationId,
    key: &'a KeyClaim,
    condition: String,
}

impl QueryId for ReleaseKey<'_> {
    type QueryId = ();
    // diesel finds the prepared statement by its text, which contains the condition.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Pg> for ReleaseKey<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "update sessions set idempotency_key = null, idempotency_fingerprint = null,
             revision = revision + 1 where organization_id = ",
        );
        out.push_bind_param::<Uuid, _>(&self.organization)?;
        out.push_sql(" and idempotency_key = ");
        out.push_bind_param::<Binary, _>(self.key.hash.as_slice())?;
        out.push_sql(" and ");
        out.push_sql(&self.condition);
        out.push_sql(" and ");
        out.push_sql(&limits_lock_waits());
        Ok(())
    }
}
