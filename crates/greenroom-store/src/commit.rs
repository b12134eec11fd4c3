//! The keeper's writes to a session: a decision, or only the next check.
//!
//! After the insert, [`record`](crate::record) and this module are the only writers of the columns
//! of a [`State`].

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::dsl::{exists, now};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment};
use diesel::result::Error as DieselError;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, SmallInt, Timestamptz, Uuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::{Action, Decision, Event, State, TimelineEvent};
use greenroom_domain::{OrganizationId, SessionId};

use crate::bucket::{Epoch, held_bucket};
use crate::schema::{session_events, sessions};
use crate::sql::{PlannedEachTime, push_locked};
use crate::{SessionSnapshot, StoreError, detail};

macro_rules! state {
    ($($column:ident)+) => {
        pub(crate) type StateColumns = ($(sessions::$column,)+);

        /// The columns of a [`State`], in the order of its fields.
        pub(crate) const STATE_COLUMNS: StateColumns = ($(sessions::$column,)+);

        /// Writes a [`State`] unless the revision has changed since the session was read, or another
        /// replica has acquired the bucket. Returns whether it was written.
        async fn write_state(
            connection: &mut AsyncPgConnection,
            snapshot: &SessionSnapshot,
            state: &State,
        ) -> QueryResult<bool> {
            let unchanged = sessions::table
                .find((snapshot.organization_id, snapshot.id))
                .filter(sessions::revision.eq(snapshot.revision))
                .filter(
                    exists(held_bucket(snapshot.id.bucket(), snapshot.epoch.unwrap_or_default()))
                        .or(snapshot.epoch.is_none().into_sql::<Bool>()),
                );
            let written = diesel::update(unchanged)
                .set((
                    ($(sessions::$column.eq(&state.$column),)+),
                    sessions::revision.eq(sessions::revision + 1),
                ))
                .execute(connection)
                .await?;
            Ok(written > 0)
        }
    };
}

state! {
    status agent_status room_creation end_reason started_at ended_at end_by
    room_created_at room_missing_since room_finished_at room_gone_at
    user_joined_at user_left_at
    agent_wanted_since last_dispatch_at agent_identity
    agent_left_at agent_left_reason agent_left_identity
    ending_notified_at next_check_at
}

impl SessionSnapshot {
    /// Writes a decision, before any of its actions is performed.
    ///
    /// Returns false and writes nothing if the revision has changed since the session was read,
    /// because the decision is then based on outdated facts, or if this process no longer holds the
    /// session's bucket.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn commit(
        &self,
        connection: &mut AsyncPgConnection,
        decision: &Decision,
    ) -> Result<bool, StoreError> {
        let dispatches_agent = decision.actions.iter().any(Action::dispatches_agent);
        if decision.events.is_empty() && !dispatches_agent {
            return Ok(write_state(connection, self, &decision.state).await?);
        }
        let write = async |connection: &mut AsyncPgConnection| {
            let is_written = write_state(connection, self, &decision.state).await?;
            if is_written {
                self.insert_events(connection, decision).await?;
            }
            if is_written && dispatches_agent {
                self.stamp_dispatch(connection).await?;
            }
            Ok::<_, DieselError>(is_written)
        };
        Ok(connection.transaction(write).await?)
    }

    /// Sets `last_dispatch_at` to the time of the commit. The decision contains the time at
    /// which the session was read, which may be seconds earlier: with that time, the dispatch would count as lost too
    /// early.
    async fn stamp_dispatch(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        diesel::update(sessions::table.find((self.organization_id, self.id)))
            .set(sessions::last_dispatch_at.eq(now.into_sql::<Timestamptz>().nullable()))
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn insert_events(
        &self,
        connection: &mut AsyncPgConnection,
        decision: &Decision,
    ) -> QueryResult<()> {
        for event in &decision.events {
            let source_id = match event {
                Event { sid: Some(_), .. } => event.source_id(),
                Event { event: TimelineEvent::UserLeft, sid: None } => {
                    self.departure_source_id(
                        connection,
                        TimelineEvent::UserJoined,
                        None,
                        event.event,
                    )
                    .await?
                }
                Event { event: TimelineEvent::AgentLeft, sid: None } => {
                    let agent = decision.state.agent_left_identity.as_deref();
                    self.departure_source_id(
                        connection,
                        TimelineEvent::AgentJoined,
                        agent,
                        event.event,
                    )
                    .await?
                }
                Event { sid: None, .. } => None,
            };
            diesel::insert_into(session_events::table)
                .values((
                    session_events::organization_id.eq(self.organization_id),
                    session_events::session_id.eq(self.id),
                    session_events::at.eq(now),
                    session_events::event.eq(event.event),
                    session_events::source_id.eq(source_id),
                    session_events::detail.eq(detail::of_decision(event.event, &decision.state)),
                ))
                .on_conflict_do_nothing()
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    /// The source id of a departure that the keeper observed.
    ///
    /// An observation does not show the sid of a participant who has left, so this takes the sid of
    /// the latest recorded join. `identity` selects one of several agents; `None` means any.
    async fn departure_source_id(
        &self,
        connection: &mut AsyncPgConnection,
        join_event: TimelineEvent,
        identity: Option<&str>,
        leave_event: TimelineEvent,
    ) -> QueryResult<Option<String>> {
        let mut joins = session_events::table
            .filter(session_events::organization_id.eq(self.organization_id))
            .filter(session_events::session_id.eq(self.id))
            .filter(session_events::event.eq(join_event))
            .order(session_events::seq.desc())
            .select(session_events::source_id)
            .into_boxed();
        if let Some(identity) = identity {
            let joined = session_events::detail.retrieve_as_text("identity");
            joins = joins.filter(joined.eq(identity));
        }
        let last: Option<Option<String>> = joins.first(connection).await.optional()?;
        let joined = last.flatten();
        Ok(joined.as_deref().and_then(TimelineEvent::sid_of).map(|sid| leave_event.source_id(sid)))
    }

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
               and (checked.epoch is null or exists (
                 select from keeper_buckets
                 join keeper_replicas on keeper_replicas.id = keeper_buckets.replica
                 where keeper_buckets.bucket = checked.bucket
                   and keeper_buckets.epoch = checked.epoch and keeper_replicas.lease_until > now()))
             returning sessions.id",
        );
        Ok(())
    }
}
