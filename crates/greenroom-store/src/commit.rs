//! What the keeper writes of a claim: what was decided, or that there is nothing to do.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::dsl::{IntervalDsl, now};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::Error as DieselError;
use diesel::sql_types::{Array, BigInt, Nullable, Timestamptz, Uuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::{Action, Decision, Event, State, TimelineEvent};
use greenroom_domain::{OrganizationId, SessionId};
use serde_json::{Value, json};

use crate::schema::{session_events, sessions};
use crate::{Claim, StoreError};

/// How long the actions of a decision may take before somebody else looks: seconds.
const ACTION_LEASE_SECONDS: i32 = 6;

macro_rules! state {
    ($($column:ident)+) => {
        pub(crate) type StateColumns = ($(sessions::$column,)+);

        /// The columns of a [`State`], in its order.
        pub(crate) const STATE_COLUMNS: StateColumns = ($(sessions::$column,)+);

        /// Writes a [`State`], where nobody has written since; the lease as of then, if so.
        async fn write_state(
            connection: &mut AsyncPgConnection,
            claim: &Claim,
            state: &State,
            acting: bool,
        ) -> QueryResult<Option<Option<DateTime<Utc>>>> {
            let lease = if acting { ACTION_LEASE_SECONDS } else { 0 };
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

impl Claim {
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
        let asks = requests_agent(decision);
        let lease = if decision.events.is_empty() && !asks {
            write_state(connection, this, &decision.state, acting).await?
        } else {
            let write = async |connection: &mut AsyncPgConnection| {
                let lease = write_state(connection, this, &decision.state, acting).await?;
                if lease.is_some() {
                    this.insert_events(connection, decision).await?;
                }
                if lease.is_some() && asks {
                    this.stamp_dispatch(connection).await?;
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

    /// The agent is asked for from now, not from when it was looked at: a look may take seconds, and
    /// what is asked for too late would count as lost too soon.
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
                Event { event, sid: Some(sid) } => Some(format!("{event}/{sid}")),
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
                    session_events::detail.eq(detail(event.event, &decision.state)),
                ))
                .on_conflict_do_nothing()
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    /// The name of a leaving that was seen, not told: a look shows nobody, so that the stay that has
    /// ended is the one that was told of last; of several agents, this one's.
    async fn departure_source_id(
        &self,
        connection: &mut AsyncPgConnection,
        joined: TimelineEvent,
        identity: Option<&str>,
        left: TimelineEvent,
    ) -> QueryResult<Option<String>> {
        let mut stays = session_events::table
            .filter(session_events::organization_id.eq(self.organization_id))
            .filter(session_events::session_id.eq(self.id))
            .filter(session_events::event.eq(joined))
            .order(session_events::seq.desc())
            .select(session_events::source_id)
            .into_boxed();
        if let Some(identity) = identity {
            let told = session_events::detail.retrieve_as_text("identity");
            stays = stays.filter(told.eq(identity));
        }
        let last: Option<Option<String>> = stays.first(connection).await.optional()?;
        let sid = last.flatten().and_then(|id| Some(id.split_once('/')?.1.to_owned()));
        Ok(sid.map(|sid| format!("{left}/{sid}")))
    }

    /// Lets others look, now that everything is done, or that a look has come to nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(&self, connection: &mut AsyncPgConnection) -> Result<(), StoreError> {
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
    pub async fn reschedule(
        connection: &mut AsyncPgConnection,
        claims: &[(Self, Option<DateTime<Utc>>)],
    ) -> Result<HashSet<SessionId>, StoreError> {
        let reschedule = Reschedule {
            organizations: claims.iter().map(|(claim, _)| claim.organization_id).collect(),
            ids: claims.iter().map(|(claim, _)| claim.id).collect(),
            revisions: claims.iter().map(|(claim, _)| claim.revision).collect(),
            next_check_at: claims.iter().map(|(_, next)| *next).collect(),
        };
        let ids: Vec<SessionId> = reschedule.load(connection).await?;
        Ok(ids.into_iter().collect())
    }
}

/// Whether an agent is asked for by what was decided.
fn requests_agent(decision: &Decision) -> bool {
    let asks = |action: &Action| matches!(action, Action::Dispatch | Action::OpenRoom);
    decision.state.last_dispatch_at.is_some() && decision.actions.iter().any(asks)
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

struct Reschedule {
    organizations: Vec<OrganizationId>,
    ids: Vec<SessionId>,
    revisions: Vec<i64>,
    next_check_at: Vec<Option<DateTime<Utc>>>,
}

impl QueryId for Reschedule {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Reschedule {
    type SqlType = Uuid;
}

impl QueryFragment<Pg> for Reschedule {
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
