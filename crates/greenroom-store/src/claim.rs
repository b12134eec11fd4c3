//! The keeper's claims: sessions that are due, each leased to one process at a time.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::dsl::{IntervalDsl, SqlTypeOf, now};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::Error as DieselError;
use diesel::sql_types::{Array, BigInt, Nullable, Timestamptz, Uuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::{Decision, Event, State, TimelineEvent};
use greenroom_domain::template::{AgentDeadline, MaxDuration, ReconnectWindow};
use greenroom_domain::{
    AgentName, OnAgentHangup, OrganizationId, ParticipantIdentity, RoomCreation, RoomName,
    SessionId,
};
use serde_json::{Value, json};

use crate::StoreError;
use crate::schema::{session_events, session_templates, sessions};

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
    pub state: State,
    /// Every writer adds one, so that a look at what has changed since is noticed.
    pub revision: i64,
    pub lease_until: Option<DateTime<Utc>>,
    pub agent_name: Option<AgentName>,
    pub agent_deadline: Option<AgentDeadline>,
    pub agent_required: bool,
    pub on_agent_hangup: OnAgentHangup,
    pub reconnect_window: ReconnectWindow,
    pub max_duration: MaxDuration,
}

/// Which of them come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// Those that have been due for longest.
    Oldest,
    /// Those that became due last.
    Newest,
}

impl First {
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Oldest => Self::Newest,
            Self::Newest => Self::Oldest,
        }
    }
}

/// What was claimed at once.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// When, by PostgreSQL's clock.
    pub at: DateTime<Utc>,
    pub sessions: Vec<Claim>,
}

/// Which due sessions are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    Any,
    /// Only those with something under way: what is merely held against what LiveKit shows waits.
    UnderWay,
}

macro_rules! state {
    ($($column:ident)+) => {
        type StateColumns = ($(sessions::$column,)+);

        /// The columns of a [`State`], in its order.
        const STATE: StateColumns = ($(sessions::$column,)+);

        /// Writes a [`State`], where nobody has written since; the lease as of then, if so.
        async fn write_state(
            connection: &mut AsyncPgConnection,
            claim: &Claim,
            state: &State,
            acting: bool,
        ) -> QueryResult<Option<Option<DateTime<Utc>>>> {
            let lease = if acting { TO_ACT } else { 0 };
            let unchanged = sessions::table
                .find((claim.organization_id, claim.id))
                .filter(sessions::revision.eq(claim.revision));
            diesel::update(unchanged)
                .set((
                    ($(sessions::$column.eq(&state.$column),)+),
                    sessions::lease_until.eq((now.into_sql::<Timestamptz>() + lease.seconds()).nullable()),
                    sessions::revision.eq(sessions::revision + 1),
                ))
                .returning(sessions::lease_until)
                .get_result(connection)
                .await
                .optional()
        }
    };
}

state! {
    status agent_status end_reason started_at ended_at end_by
    room_created_at room_missing_since room_finished_at room_gone_at
    user_joined_at user_left_at
    agent_wanted_since last_dispatch_at agent_identity
    agent_left_at agent_left_reason agent_left_identity
    ending_notified_at next_check_at
}

/// How long the actions of a decision may take before somebody else looks: seconds.
const TO_ACT: i32 = 6;

impl Claim {
    /// Claims up to `limit` sessions that are due, for fifteen seconds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(
        connection: &mut AsyncPgConnection,
        limit: i64,
        urgency: Urgency,
        first: First,
    ) -> Result<Claims, StoreError> {
        let taken: Vec<(Self, DateTime<Utc>)> =
            Take { limit, urgency, first }.load(connection).await?;
        let at = taken.iter().map(|(_, at)| *at).next().unwrap_or_default();
        Ok(Claims { at, sessions: taken.into_iter().map(|(claim, _)| claim).collect() })
    }

    /// Writes down a decision before any of its actions is done. The lease ends with it when there
    /// are none, else six seconds later. False when somebody has written meanwhile: the decision is
    /// of what is no longer so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn commit(
        &mut self,
        connection: &mut AsyncPgConnection,
        decision: &Decision,
    ) -> Result<bool, StoreError> {
        let acting = !decision.actions.is_empty();
        let this = &*self;
        let lease = if decision.events.is_empty() {
            write_state(connection, this, &decision.state, acting).await?
        } else {
            let write = async |connection: &mut AsyncPgConnection| {
                let lease = write_state(connection, this, &decision.state, acting).await?;
                if lease.is_some() {
                    this.tell(connection, decision).await?;
                }
                Ok::<_, DieselError>(lease)
            };
            connection.transaction(write).await?
        };
        if let Some(lease) = lease {
            self.lease_until = lease;
        }
        Ok(lease.is_some())
    }

    async fn tell(
        &self,
        connection: &mut AsyncPgConnection,
        decision: &Decision,
    ) -> QueryResult<()> {
        for event in &decision.events {
            let source_id = match event {
                Event { event, sid: Some(sid) } => Some(format!("{event}/{sid}")),
                Event { event: TimelineEvent::UserLeft, sid: None } => {
                    self.left(connection, TimelineEvent::UserJoined, event.event).await?
                }
                Event { event: TimelineEvent::AgentLeft, sid: None } => {
                    self.left(connection, TimelineEvent::AgentJoined, event.event).await?
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
                    session_events::detail.eq(detail(event.event, &decision.state)),
                ))
                .on_conflict_do_nothing()
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    /// The name of a leaving that was seen, not told: a look shows nobody, so that the stay that has
    /// ended is the one that was told of last.
    async fn left(
        &self,
        connection: &mut AsyncPgConnection,
        joined: TimelineEvent,
        left: TimelineEvent,
    ) -> QueryResult<Option<String>> {
        let last: Option<Option<String>> = session_events::table
            .filter(session_events::organization_id.eq(self.organization_id))
            .filter(session_events::session_id.eq(self.id))
            .filter(session_events::event.eq(joined))
            .order(session_events::seq.desc())
            .select(session_events::source_id)
            .first(connection)
            .await
            .optional()?;
        let sid = last.flatten().and_then(|id| Some(id.split_once('/')?.1.to_owned()));
        Ok(sid.map(|sid| format!("{left}/{sid}")))
    }

    /// Lets others look, now that everything is done, or that a look has come to nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn free(&self, connection: &mut AsyncPgConnection) -> Result<(), StoreError> {
        // Only one's own lease: one that ran out may be somebody else's by now.
        let held = sessions::table
            .find((self.organization_id, self.id))
            .filter(sessions::lease_until.eq(self.lease_until));
        diesel::update(held)
            .set(sessions::lease_until.eq(None::<DateTime<Utc>>))
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Puts off the next look at sessions of which nothing else is to be written, all in one
    /// statement, and frees them. Those that somebody has written meanwhile stay as they are; which
    /// were put off is the answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_off(
        connection: &mut AsyncPgConnection,
        claims: &[(Self, Option<DateTime<Utc>>)],
    ) -> Result<HashSet<SessionId>, StoreError> {
        let put_off = PutOff {
            organizations: claims.iter().map(|(claim, _)| claim.organization_id).collect(),
            ids: claims.iter().map(|(claim, _)| claim.id).collect(),
            revisions: claims.iter().map(|(claim, _)| claim.revision).collect(),
            next_check_at: claims.iter().map(|(_, next)| *next).collect(),
        };
        let ids: Vec<SessionId> = put_off.load(connection).await?;
        Ok(ids.into_iter().collect())
    }
}

/// What the timeline says of an event that was seen or decided.
fn detail(event: TimelineEvent, state: &State) -> Value {
    match event {
        TimelineEvent::AgentJoined => json!({"identity": state.agent_identity}),
        TimelineEvent::AgentLeft => json!({"identity": state.agent_left_identity}),
        TimelineEvent::Ended | TimelineEvent::Failed | TimelineEvent::Expired => {
            json!({"end_reason": state.end_reason})
        }
        _ => json!({}),
    }
}

type ClaimColumns = (
    sessions::organization_id,
    sessions::id,
    sessions::room_name,
    sessions::room_creation,
    sessions::participant_identity,
    sessions::created_at,
    sessions::join_by,
    sessions::token_expiry,
    StateColumns,
    sessions::revision,
    sessions::lease_until,
    session_templates::agent_name,
    session_templates::agent_deadline_seconds,
    session_templates::agent_required,
    session_templates::on_agent_hangup,
    session_templates::reconnect_window_seconds,
    session_templates::max_duration_seconds,
);

/// The columns of a [`Claim`], in its order.
static CLAIM: ClaimColumns = (
    sessions::organization_id,
    sessions::id,
    sessions::room_name,
    sessions::room_creation,
    sessions::participant_identity,
    sessions::created_at,
    sessions::join_by,
    sessions::token_expiry,
    STATE,
    sessions::revision,
    sessions::lease_until,
    session_templates::agent_name,
    session_templates::agent_deadline_seconds,
    session_templates::agent_required,
    session_templates::on_agent_hangup,
    session_templates::reconnect_window_seconds,
    session_templates::max_duration_seconds,
);

/// What waits when there is no room for every look: a session in whose course nothing is under way,
/// and which its webhooks tell of.
const AT_REST: &str = "room_missing_since is null and room_finished_at is null
    and (status = 'pending' and join_by > now() and user_joined_at is null and agent_status <> 'dispatched'
         and (room_created_at is not null or room_creation = 'on_join')
      or status = 'active' and end_by > now() + interval '30 seconds'
         and (agent_status in ('none', 'unavailable') or agent_status = 'ready' and agent_left_identity is distinct from agent_identity))";

struct Take {
    limit: i64,
    urgency: Urgency,
    first: First,
}

impl QueryId for Take {
    type QueryId = ();
    // The text differs by the urgency and the order, and is what the prepared statement is found by.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Take {
    type SqlType = (SqlTypeOf<ClaimColumns>, Timestamptz);
}

impl QueryFragment<Pg> for Take {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "with due as materialized (
               select organization_id, id from sessions
               where next_check_at <= now() and (lease_until is null or lease_until <= now())",
        );
        if self.urgency == Urgency::UnderWay {
            out.push_sql(" and not (");
            out.push_sql(AT_REST);
            out.push_sql(")");
        }
        out.push_sql(match self.first {
            First::Oldest => " order by next_check_at limit ",
            First::Newest => " order by next_check_at desc limit ",
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
        CLAIM.walk_ast(out.reborrow())?;
        out.push_sql(
            ", now() from sessions join session_templates
               on session_templates.organization_id = sessions.organization_id
               and session_templates.id = sessions.session_template_id
               and session_templates.version = sessions.session_template_version",
        );
        Ok(())
    }
}

struct PutOff {
    organizations: Vec<OrganizationId>,
    ids: Vec<SessionId>,
    revisions: Vec<i64>,
    next_check_at: Vec<Option<DateTime<Utc>>>,
}

impl QueryId for PutOff {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for PutOff {
    type SqlType = Uuid;
}

impl QueryFragment<Pg> for PutOff {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "update sessions
             set next_check_at = look.next_check_at, lease_until = null, revision = sessions.revision + 1
             from unnest(",
        );
        out.push_bind_param::<Array<Uuid>, _>(&self.organizations)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Uuid>, _>(&self.ids)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<BigInt>, _>(&self.revisions)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Timestamptz>>, _>(&self.next_check_at)?;
        out.push_sql(
            ") as look (organization_id, id, revision, next_check_at)
             where sessions.organization_id = look.organization_id and sessions.id = look.id
               and sessions.revision = look.revision
             returning sessions.id",
        );
        Ok(())
    }
}
