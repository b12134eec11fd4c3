//! The keeper's claims: sessions that are due, each leased to one process at a time.

use chrono::{DateTime, Utc};
use diesel::dsl::SqlTypeOf;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::State;
use greenroom_domain::template::{AgentDeadline, MaxDuration, ReconnectWindow};
use greenroom_domain::{
    AgentName, OnAgentHangup, OrganizationId, ParticipantIdentity, RoomCreation, RoomName,
    SessionId,
};

use crate::StoreError;
use crate::commit::{STATE_COLUMNS, StateColumns};
use crate::schema::{session_templates, sessions};

/// A due session, which nobody else looks at until `lease_until`.
#[derive(Debug, Clone, Queryable)]
pub struct Claim {
    pub organization_id: OrganizationId,
    pub id: SessionId,
    pub room_name: RoomName,
    pub room_creation: RoomCreation,
    pub participant_identity: ParticipantIdentity,
    pub created_at: DateTime<Utc>,
    pub join_by: DateTime<Utc>,
    pub token_expiry: DateTime<Utc>,
    /// Every writer adds one, so that a look at what has changed since is noticed.
    pub revision: i64,
    pub lease_until: Option<DateTime<Utc>>,
    pub agent_name: Option<AgentName>,
    pub agent_deadline: Option<AgentDeadline>,
    pub agent_required: bool,
    pub on_agent_hangup: OnAgentHangup,
    pub reconnect_window: ReconnectWindow,
    pub max_duration: MaxDuration,
    pub state: State,
}

/// Which of them come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOrder {
    /// Those that have been due for longest.
    OldestFirst,
    /// Those that became due last.
    NewestFirst,
}

impl ClaimOrder {
    #[must_use]
    pub fn toggled(self) -> Self {
        match self {
            Self::OldestFirst => Self::NewestFirst,
            Self::NewestFirst => Self::OldestFirst,
        }
    }
}

/// What was claimed at once.
#[derive(Debug, Clone, Default)]
pub struct ClaimBatch {
    /// When, by PostgreSQL's clock.
    pub at: DateTime<Utc>,
    pub sessions: Vec<Claim>,
}

/// Which due sessions are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    Any,
    /// Only those with something under way: what is merely held against what LiveKit shows waits.
    InProgress,
}

impl Claim {
    /// ClaimBatch up to `limit` sessions that are due, for fifteen seconds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due(
        connection: &mut AsyncPgConnection,
        limit: i64,
        urgency: Urgency,
        order: ClaimOrder,
    ) -> Result<ClaimBatch, StoreError> {
        let taken: Vec<(Self, DateTime<Utc>)> =
            ClaimDue { limit, urgency, order }.load(connection).await?;
        let at = taken.iter().map(|(_, at)| *at).next().unwrap_or_default();
        Ok(ClaimBatch { at, sessions: taken.into_iter().map(|(claim, _)| claim).collect() })
    }
}

/// The columns of a [`Claim`], in its order, named once for their type and their value.
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
    sessions.room_creation
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

/// What waits when there is no room for every look: a session in whose course nothing is under way,
/// and which its webhooks tell of.
const IDLE: &str = "room_missing_since is null and room_finished_at is null
    and (agent_status <> 'ready' or agent_left_identity is distinct from agent_identity)
    and (status = 'pending' and join_by > now() and user_joined_at is null and agent_status <> 'dispatched'
         and (room_created_at is not null or room_creation = 'on_join')
      or status = 'active' and end_by > now() + interval '30 seconds'
         and agent_status in ('none', 'unavailable', 'ready'))";

struct ClaimDue {
    limit: i64,
    urgency: Urgency,
    order: ClaimOrder,
}

impl QueryId for ClaimDue {
    type QueryId = ();
    // The text differs by the urgency and the order, and is what the prepared statement is found by.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for ClaimDue {
    type SqlType = (SqlTypeOf<ClaimColumns>, Timestamptz);
}

impl QueryFragment<Pg> for ClaimDue {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "with due as materialized (
               select organization_id, id from sessions
               where next_check_at <= now() and (lease_until is null or lease_until <= now())",
        );
        if self.urgency == Urgency::InProgress {
            out.push_sql(" and not (");
            out.push_sql(IDLE);
            out.push_sql(")");
        }
        out.push_sql(match self.order {
            ClaimOrder::OldestFirst => " order by next_check_at limit ",
            ClaimOrder::NewestFirst => " order by next_check_at desc limit ",
        });
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        // Outside, `sessions` is what was written of the table inside.
        out.push_sql(
            " for update skip locked),
             sessions as (
               update sessions set lease_until = now() + interval '15 seconds', revision = revision + 1
               from due where sessions.organization_id = due.organization_id and sessions.id = due.id
               returning sessions.*)
             select ",
        );
        CLAIM_COLUMNS.walk_ast(out.reborrow())?;
        out.push_sql(
            ", now() from sessions join session_templates
               on session_templates.organization_id = sessions.organization_id
               and session_templates.id = sessions.session_template_id
               and session_templates.version = sessions.session_template_version",
        );
        Ok(())
    }
}
