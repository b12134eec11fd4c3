//! The keeper's claims: due sessions, each leased to one process at a time.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::deserialize::FromSqlRow;
use diesel::dsl::SqlTypeOf;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::{AsyncConnectionCore, AsyncPgConnection};
use futures_util::TryStreamExt;
use greenroom_domain::lifecycle::{AgentPolicy, END_NOTICE, SessionPolicy, State, TrackedSession};
use greenroom_domain::template::{AgentDeadline, MaxDuration, ReconnectWindow};
use greenroom_domain::{
    AgentName, OnAgentHangup, OrganizationId, ParticipantIdentity, ReconcileInterval, RoomName,
    SessionId,
};

use crate::commit::{STATE_COLUMNS, StateColumns};
use crate::schema::{session_templates, sessions};
use crate::sql::{interval, push_interval};
use crate::{StoreError, UnreadableSession};

/// How long a claim leases its sessions. The process must have written its results by then.
pub const CLAIM_LEASE: TimeDelta = TimeDelta::seconds(15);

/// A due session that one process has leased until `lease_until`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Claim {
    /// The organization to which the session belongs.
    pub organization_id: OrganizationId,
    /// Unique within the organization.
    pub id: SessionId,
    /// The session's room in LiveKit, which may not exist yet or no longer.
    pub room_name: RoomName,
    /// The agent to dispatch. `None` means that the template has no agent.
    pub agent_name: Option<AgentName>,
    /// Incremented by each write, so that a commit detects a change since the claim.
    pub revision: i64,
    /// When the lease expires. Never `None` in a new claim; the column is nullable.
    pub lease_until: Option<DateTime<Utc>>,
    /// The policy and the state at the time of the claim, on which the next decision depends.
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

/// The columns of a claim.
#[derive(Queryable)]
struct ClaimRow {
    organization_id: OrganizationId,
    id: SessionId,
    room_name: RoomName,
    participant_identity: ParticipantIdentity,
    created_at: DateTime<Utc>,
    join_by: DateTime<Utc>,
    token_expiry: DateTime<Utc>,
    revision: i64,
    lease_until: Option<DateTime<Utc>>,
    agent_name: Option<AgentName>,
    agent_deadline: Option<AgentDeadline>,
    agent_required: bool,
    on_agent_hangup: OnAgentHangup,
    reconnect_window: ReconnectWindow,
    max_duration: MaxDuration,
    state: State,
}

impl ClaimRow {
    fn into_claim(self, defaults: PolicyDefaults) -> Claim {
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
        Claim {
            organization_id: self.organization_id,
            id: self.id,
            room_name: self.room_name,
            agent_name: self.agent_name,
            revision: self.revision,
            lease_until: self.lease_until,
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

/// The order in which due sessions are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOrder {
    /// Start with the sessions that have been due for longest.
    OldestFirst,
    /// Start with the sessions that became due last.
    NewestFirst,
}

impl ClaimOrder {
    /// The opposite order.
    #[must_use]
    pub fn toggled(self) -> Self {
        match self {
            Self::OldestFirst => Self::NewestFirst,
            Self::NewestFirst => Self::OldestFirst,
        }
    }
}

/// The sessions of one claim.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ClaimBatch {
    /// When the sessions were claimed, by PostgreSQL's clock. The Unix epoch if the batch is empty.
    pub at: DateTime<Utc>,
    /// The claimed sessions that can be decoded, in no particular order.
    pub sessions: Vec<Claim>,
    /// Claimed sessions with a value that this version does not know or that breaks a rule.
    pub unreadable: Vec<UnreadableSession>,
}

/// Which due sessions are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// All due sessions.
    Any,
    /// All except idle sessions, which are checked only to reconcile them with LiveKit.
    InProgress,
}

impl Claim {
    /// Claims up to `limit` due sessions for [`CLAIM_LEASE`]. Skips sessions that another process
    /// has leased.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn due(
        connection: &mut AsyncPgConnection,
        limit: i64,
        urgency: Urgency,
        order: ClaimOrder,
        defaults: PolicyDefaults,
    ) -> Result<ClaimBatch, StoreError> {
        let claim = ClaimDueSessions { limit, urgency, order };
        let mut rows = AsyncConnectionCore::load(connection, claim).await?;
        let mut batch = ClaimBatch::default();
        // One row at a time, so that one that cannot be decoded does not hide the others.
        while let Some(row) = rows.try_next().await? {
            match <(DateTime<Utc>, ClaimRow) as FromSqlRow<ClaimedSql, Pg>>::build_from_row(&row) {
                Ok((at, row)) => {
                    batch.at = at;
                    batch.sessions.push(row.into_claim(defaults));
                }
                Err(error) => batch.unreadable.push(UnreadableSession::new(&row, &*error)?),
            }
        }
        Ok(batch)
    }
}

/// Defines the columns of a [`ClaimRow`], in the order of its fields, as a type and as a value.
macro_rules! claim {
    ($($table:ident.$column:ident)+) => {
        type ClaimColumns = ($($table::$column,)+ StateColumns);

        static CLAIM_COLUMNS: ClaimColumns = ($($table::$column,)+ STATE_COLUMNS);
    };
}

claim! {
    sessions.organization_id
    sessions.id
    sessions.room_name
    sessions.participant_identity
    sessions.created_at
    sessions.join_by
    sessions.token_expiry
    sessions.revision
    sessions.lease_until
    session_templates.agent_name
    session_templates.agent_deadline_seconds
    session_templates.agent_required
    session_templates.on_agent_hangup
    session_templates.reconnect_window_seconds
    session_templates.max_duration_seconds
}

/// SQL condition: the session is idle. The same rule as `TrackedSession::is_idle`; a test compares
/// the two.
#[must_use]
pub fn idle() -> String {
    format!(
        "room_missing_since is null and room_finished_at is null
         and (agent_status <> 'ready' or agent_left_identity is distinct from agent_identity)
         and (status = 'pending' and join_by > now() and user_joined_at is null
           and agent_status <> 'dispatched'
           and (room_created_at is not null or room_creation = 'on_join')
           or status = 'active' and end_by > now() + {}
           and agent_status in ('none', 'unavailable', 'ready'))",
        interval(END_NOTICE)
    )
}

/// The SQL types of a claimed row: when it was claimed, and its columns, of which the ids come first.
type ClaimedSql = (Timestamptz, SqlTypeOf<ClaimColumns>);

struct ClaimDueSessions {
    limit: i64,
    urgency: Urgency,
    order: ClaimOrder,
}

impl QueryId for ClaimDueSessions {
    type QueryId = ();
    // The text depends on urgency and order, so diesel caches the prepared statement by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for ClaimDueSessions {
    type SqlType = ClaimedSql;
}

impl QueryFragment<Pg> for ClaimDueSessions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "with due as materialized (
               select organization_id, id from sessions
               where next_check_at <= now() and (lease_until is null or lease_until <= now())",
        );
        if self.urgency == Urgency::InProgress {
            out.push_sql(" and not (");
            out.push_sql(&idle());
            out.push_sql(")");
        }
        out.push_sql(match self.order {
            ClaimOrder::OldestFirst => " order by next_check_at limit ",
            ClaimOrder::NewestFirst => " order by next_check_at desc limit ",
        });
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        // The CTE has the table's name, so that `CLAIM_COLUMNS` resolve to the updated rows.
        out.push_sql(
            " for update skip locked),
             sessions as (
               update sessions set lease_until = now() + ",
        );
        push_interval(CLAIM_LEASE, &mut out);
        out.push_sql(
            ", revision = revision + 1
               from due where sessions.organization_id = due.organization_id and sessions.id = due.id
               returning sessions.*)
             select now(), ",
        );
        CLAIM_COLUMNS.walk_ast(out.reborrow())?;
        out.push_sql(
            " from sessions join session_templates
               on session_templates.organization_id = sessions.organization_id
               and session_templates.id = sessions.session_template_id
               and session_templates.version = sessions.session_template_version",
        );
        Ok(())
    }
}
