//! Reads sessions for a check, without a lock.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::deserialize::FromSqlRow;
use diesel::dsl::SqlTypeOf;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Timestamptz;
use diesel_async::{AsyncConnectionCore, AsyncPgConnection};
use futures_util::TryStreamExt;
use greenroom_domain::lifecycle::{AgentPolicy, SessionPolicy, State, TrackedSession};
use greenroom_domain::template::{AgentDeadline, MaxDuration, ReconnectWindow};
use greenroom_domain::{
    AgentName, OnAgentHangup, OrganizationId, ParticipantIdentity, ReconcileInterval, RoomName,
    SessionId,
};

use crate::bucket::{Epoch, HeldBuckets};
use crate::commit::{STATE_COLUMNS, StateColumns};
use crate::due::NEGLECTED_AFTER;
use crate::listed_keys::{ListedKeys, ONE_ROW};
use crate::schema::{session_templates, sessions};
use crate::{SessionKey, StoreError, UnreadableSession};

/// A session that this process checks, because it holds the session's bucket.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionSnapshot {
    /// The organization to which the session belongs.
    pub organization_id: OrganizationId,
    /// Unique within the organization.
    pub id: SessionId,
    /// The session's room in LiveKit, which may not exist yet or no longer.
    pub room_name: RoomName,
    /// The agent to dispatch. `None` means that the template has no agent.
    pub agent_name: Option<AgentName>,
    /// Incremented by each write, so that a commit detects a change since the session was read.
    pub revision: i64,
    /// The epoch of the session's bucket, so that a commit detects that another replica acquired the
    /// bucket. `None` means that this process does not hold the bucket, and that the session is
    /// [neglected](NEGLECTED_AFTER).
    pub epoch: Option<Epoch>,
    /// The policy and the state when the session was read, on which the next decision depends.
    pub session: TrackedSession,
}

/// Policy values that apply if the template sets none.
#[derive(Debug, Clone, Copy)]
pub struct PolicyDefaults {
    /// Time that an agent has to join after it was requested: 5 to 300 seconds.
    pub agent_deadline: AgentDeadline,
    /// Interval between two checks of an idle session against LiveKit: 1 to 3,600 seconds. No
    /// template sets it.
    pub reconcile_every: ReconcileInterval,
}

/// The columns of a snapshot.
#[derive(Queryable)]
struct SnapshotRow {
    organization_id: OrganizationId,
    id: SessionId,
    room_name: RoomName,
    participant_identity: ParticipantIdentity,
    created_at: DateTime<Utc>,
    join_by: DateTime<Utc>,
    token_expiry: DateTime<Utc>,
    revision: i64,
    agent_name: Option<AgentName>,
    agent_deadline: Option<AgentDeadline>,
    agent_required: bool,
    on_agent_hangup: OnAgentHangup,
    reconnect_window: ReconnectWindow,
    max_duration: MaxDuration,
    state: State,
}

impl SnapshotRow {
    fn is_neglected(&self, at: DateTime<Utc>) -> bool {
        self.state.next_check_at.is_some_and(|due| due <= at - NEGLECTED_AFTER)
    }

    fn into_snapshot(self, epoch: Option<Epoch>, defaults: PolicyDefaults) -> SessionSnapshot {
        let seconds = |seconds: i32| TimeDelta::seconds(seconds.into());
        let deadline = self.agent_deadline.unwrap_or(defaults.agent_deadline);
        let agent = self.agent_name.as_ref().map(|_| AgentPolicy {
            deadline: seconds(deadline.get()),
            required: self.agent_required,
            on_hangup: self.on_agent_hangup,
        });
        let policy = SessionPolicy {
            agent,
            reconnect_window: seconds(self.reconnect_window.get()),
            max_duration: seconds(self.max_duration.get()),
            reconcile_every: seconds(defaults.reconcile_every.get()),
        };
        SessionSnapshot {
            organization_id: self.organization_id,
            id: self.id,
            room_name: self.room_name,
            agent_name: self.agent_name,
            revision: self.revision,
            epoch,
            session: TrackedSession {
                id: self.id,
                policy,
                participant_identity: self.participant_identity,
                created_at: self.created_at,
                join_by: self.join_by,
                token_expiry: self.token_expiry,
                state: self.state,
            },
        }
    }
}

/// Sessions that were read together.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SnapshotBatch {
    /// When the sessions were read, by PostgreSQL's clock. The Unix epoch if the batch is empty.
    pub at: DateTime<Utc>,
    /// The sessions that can be decoded, in no particular order.
    pub sessions: Vec<SessionSnapshot>,
    /// Sessions with a value that this version does not know or that breaks a rule.
    pub unreadable: Vec<UnreadableSession>,
}

impl SessionSnapshot {
    /// Returns the ids of the session.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        SessionKey { organization_id: self.organization_id, id: self.id }
    }

    /// Reads sessions for a check. Omits sessions that need no further check, and sessions of other
    /// buckets that are not [neglected](NEGLECTED_AFTER) any more.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn read(
        connection: &mut AsyncPgConnection,
        keys: &[SessionKey],
        held: &HeldBuckets,
        defaults: PolicyDefaults,
    ) -> Result<SnapshotBatch, StoreError> {
        let read = ReadSessions(ListedKeys::new(keys));
        let mut rows = AsyncConnectionCore::load(connection, read).await?;
        let mut batch = SnapshotBatch::default();
        // One row at a time, so that one that cannot be decoded does not hide the others.
        while let Some(row) = rows.try_next().await? {
            match <(DateTime<Utc>, SnapshotRow) as FromSqlRow<SnapshotSql, Pg>>::build_from_row(
                &row,
            ) {
                Ok((at, row)) => {
                    batch.at = at;
                    let epoch = held.get(&row.id.bucket()).copied();
                    if epoch.is_some() || row.is_neglected(at) {
                        batch.sessions.push(row.into_snapshot(epoch, defaults));
                    }
                }
                Err(error) => batch.unreadable.push(UnreadableSession::new(&row, &*error)?),
            }
        }
        Ok(batch)
    }
}

/// Defines the columns of a [`SnapshotRow`], in the order of its fields, as a type and as a value.
macro_rules! snapshot_columns {
    ($($table:ident.$column:ident)+) => {
        type SnapshotColumns = ($($table::$column,)+ StateColumns);

        static SNAPSHOT_COLUMNS: SnapshotColumns = ($($table::$column,)+ STATE_COLUMNS);
    };
}

snapshot_columns! {
    sessions.organization_id
    sessions.id
    sessions.room_name
    sessions.participant_identity
    sessions.created_at
    sessions.join_by
    sessions.token_expiry
    sessions.revision
    session_templates.agent_name
    session_templates.agent_deadline_seconds
    session_templates.agent_required
    session_templates.on_agent_hangup
    session_templates.reconnect_window_seconds
    session_templates.max_duration_seconds
}

/// The SQL types of a row: when it was read, and its columns, of which the ids come first.
type SnapshotSql = (Timestamptz, SqlTypeOf<SnapshotColumns>);

#[derive(QueryId)]
struct ReadSessions(ListedKeys);

impl Query for ReadSessions {
    type SqlType = SnapshotSql;
}

impl QueryFragment<Pg> for ReadSessions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("select now(), ");
        SNAPSHOT_COLUMNS.walk_ast(out.reborrow())?;
        out.push_sql(" from ");
        self.0.push(&mut out)?;
        out.push_sql(
            " cross join lateral (
               select * from session_templates where organization_id = sessions.organization_id
                 and id = sessions.session_template_id
                 and version = sessions.session_template_version offset 0) as session_templates",
        );
        out.push_sql(ONE_ROW);
        // In the subquery of the sessions, PostgreSQL might use the index of this column instead.
        out.push_sql(" and sessions.next_check_at is not null");
        Ok(())
    }
}
