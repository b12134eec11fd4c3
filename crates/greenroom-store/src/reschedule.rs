//! The next checks of many sessions, written in one statement.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment};
use diesel::sql_types::{Array, BigInt, Nullable, SmallInt, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionId};

use crate::bucket::{Epoch, HELD_BUCKETS};
use crate::sql::{PlannedEachTime, push_locked};
use crate::{SessionSnapshot, StoreError};

impl SessionSnapshot {
    /// Sets the next check of many sessions in one statement: the commit of decisions that change
    /// nothing else.
    ///
    /// Each snapshot comes with its `next_check_at`; `None` means that nothing is left to check. Skips
    /// a session under the conditions of [`commit`](Self::commit). Returns the ids of the
    /// rescheduled sessions.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn reschedule(
        connection: &mut AsyncPgConnection,
        snapshots: &[(&Self, Option<DateTime<Utc>>)],
    ) -> Result<HashSet<SessionId>, StoreError> {
        let reschedule = RescheduleSessions {
            organizations: snapshots.iter().map(|(snapshot, _)| snapshot.organization_id).collect(),
            ids: snapshots.iter().map(|(snapshot, _)| snapshot.id).collect(),
            revisions: snapshots.iter().map(|(snapshot, _)| snapshot.revision).collect(),
            buckets: snapshots.iter().map(|(snapshot, _)| snapshot.id.bucket().number()).collect(),
            epochs: snapshots.iter().map(|(snapshot, _)| snapshot.epoch).collect(),
            next_check_at: snapshots.iter().map(|(_, next)| *next).collect(),
        };
        let ids: Vec<SessionId> = PlannedEachTime(reschedule).load(connection).await?;
        Ok(ids.into_iter().collect())
    }
}

struct RescheduleSessions {
    organizations: Vec<OrganizationId>,
    ids: Vec<SessionId>,
    revisions: Vec<i64>,
    buckets: Vec<i16>,
    epochs: Vec<Option<Epoch>>,
    next_check_at: Vec<Option<DateTime<Utc>>>,
}

impl Query for RescheduleSessions {
    type SqlType = Uuid;
}

impl QueryFragment<Pg> for RescheduleSessions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "with checked (organization_id, id, revision, bucket, epoch, next_check_at) as (
               select * from unnest(",
        );
        out.push_bind_param::<Array<Uuid>, _>(&self.organizations)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Uuid>, _>(&self.ids)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<BigInt>, _>(&self.revisions)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<SmallInt>, _>(&self.buckets)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<BigInt>>, _>(&self.epochs)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Timestamptz>>, _>(&self.next_check_at)?;
        out.push_sql(")), ");
        push_locked("checked", &mut out);
        // The revision is compared after the wait for the lock.
        out.push_sql(
            " update sessions
             set next_check_at = checked.next_check_at, revision = sessions.revision + 1
             from checked join locked using (organization_id, id)
             where sessions.organization_id = checked.organization_id and sessions.id = checked.id
               and sessions.revision = checked.revision
               and (checked.epoch is null or exists (select from ",
        );
        out.push_sql(HELD_BUCKETS);
        out.push_sql(
            " where keeper_buckets.bucket = checked.bucket
                 and keeper_buckets.epoch = checked.epoch))
             returning sessions.id",
        );
        Ok(())
    }
}
