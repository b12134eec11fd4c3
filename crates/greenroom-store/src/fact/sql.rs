//! The SQL text of [`record`](super::record): what a fact changes, and in which sessions.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::{self, Nullable, Text, Timestamptz};
use greenroom_domain::RoomCreation;
use greenroom_domain::lifecycle::Fact;
use uuid::Uuid;

use super::Subject;
use super::new_events::NewEvent;
use super::opened_rooms::OpenedRooms;
use crate::bucket::ReplicaId;
use crate::overdue::{PAST_MAX_DURATION, push_overdue};
use crate::sql::{OPEN, push_may_see};

/// The CTEs of the statement. The CTE `sessions` returns the updated rows.
pub(super) struct RecordFact<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) fact: &'a Fact,
    at: DateTime<Utc>,
    pub(super) holder: Option<Uuid>,
    pub(super) events: Vec<NewEvent>,
}

impl<'a> RecordFact<'a> {
    pub(super) fn new(
        subject: Subject<'a>,
        fact: &'a Fact,
        at: DateTime<Utc>,
        holder: Option<ReplicaId>,
    ) -> Self {
        Self {
            subject,
            fact,
            at,
            holder: holder.map(|replica| replica.0),
            events: NewEvent::of_fact(fact, at),
        }
    }
}

impl RecordFact<'_> {
    /// The time of the event: the end of LiveKit's second, capped at `now()` to tolerate clock
    /// skew.
    fn push_at<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("least(now(), ");
        out.push_bind_param::<Timestamptz, _>(&self.at)?;
        out.push_sql(" + interval '999 milliseconds')");
        Ok(())
    }

    /// Sets a time column to the later of its value and the event's time.
    fn push_latest<'b>(&'b self, column: &str, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(column);
        out.push_sql(" = greatest(");
        out.push_sql(column);
        out.push_sql(", ");
        self.push_at(out)?;
        out.push_sql("), ");
        Ok(())
    }

    fn push_assignments<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match self.fact {
            // `coalesce` keeps the times that a webhook or the keeper recorded meanwhile.
            Fact::RoomOpened { .. } => out.push_sql(
                "room_created_at = coalesce(room_created_at, now()),
                 agent_wanted_since = case when before.agent_status not in ('none', 'unavailable')
                   then coalesce(agent_wanted_since, now()) else agent_wanted_since end,
                 last_dispatch_at = case when before.agent_status not in ('none', 'unavailable')
                   then coalesce(last_dispatch_at, now()) else last_dispatch_at end,
                 agent_status = case before.agent_status
                   when 'waiting' then 'dispatched' else before.agent_status end, ",
            ),
            Fact::EndAnnounced => {
                out.push_sql("ending_notified_at = coalesce(ending_notified_at, now()), ");
            }
            Fact::RoomNotOpened | Fact::EndRequested | Fact::MaxDurationReached => {
                if let Some((status, reason)) = self.fact.end() {
                    out.push_sql("ended_at = now(), status = '");
                    out.push_sql(status.as_str());
                    out.push_sql("', end_reason = '");
                    out.push_sql(reason.as_str());
                    out.push_sql("', ");
                }
            }
            Fact::RoomDeferred => {
                out.push_sql("room_creation = '");
                out.push_sql(RoomCreation::OnJoin.as_str());
                out.push_sql("', ");
            }
            Fact::RoomOpenedLate { .. } | Fact::RoomStarted { .. } => {
                out.push_sql("room_created_at = coalesce(room_created_at, now()), ");
            }
            Fact::RoomFinished => self.push_latest("room_finished_at", out)?,
            Fact::UserJoined { .. } => self.push_latest("user_joined_at", out)?,
            Fact::UserLeft { .. } => self.push_latest("user_left_at", out)?,
            Fact::AgentJoined { .. } => self.push_agent_joined(out)?,
            Fact::AgentLeft { .. } => self.push_agent_left(out)?,
        }
        Ok(())
    }

    /// Clears the recorded departure if the same agent joined at or after it.
    fn push_agent_joined<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let Fact::AgentJoined { identity, .. } = self.fact else { return Ok(()) };
        out.push_sql(
            "(agent_left_at, agent_left_identity, agent_left_reason) = (
               select agent_left_at, agent_left_identity, agent_left_reason
               where agent_left_identity is distinct from ",
        );
        out.push_bind_param::<Text, _>(identity)?;
        out.push_sql(" or agent_left_at > ");
        self.push_at(out)?;
        out.push_sql("), ");
        Ok(())
    }

    /// The three columns describe one departure, so they change together. If a departure of this
    /// agent is recorded without a reason, as observations record it, the report only adds its
    /// reason. Otherwise, a later departure replaces all three.
    fn push_agent_left<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let Fact::AgentLeft { identity, reason, .. } = self.fact else { return Ok(()) };
        out.push_sql(
            "(agent_left_at, agent_left_identity, agent_left_reason) = (
               select case when adds_reason then agent_left_at else at end, identity, reason
               from (select ",
        );
        self.push_at(out)?;
        out.push_sql(" as at, ");
        out.push_bind_param::<Text, _>(identity)?;
        out.push_sql("::text as identity, ");
        out.push_bind_param::<Nullable<Text>, _>(reason)?;
        out.push_sql(
            "::text as reason) reported,
               lateral (select agent_left_reason is null and agent_left_identity = reported.identity
                 as adds_reason) known
               where adds_reason or agent_left_at is null or at > agent_left_at
             union all
               select agent_left_at, agent_left_identity, agent_left_reason
             limit 1), ",
        );
        Ok(())
    }

    fn push_condition<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match &self.subject {
            Subject::Room(room) => {
                out.push_sql("sessions.room_name = ");
                out.push_bind_param::<Text, _>(*room)?;
            }
            Subject::Session { organization, id, end_user } => {
                out.push_sql("sessions.organization_id = ");
                out.push_bind_param::<sql_types::Uuid, _>(organization)?;
                out.push_sql(" and sessions.id = ");
                out.push_bind_param::<sql_types::Uuid, _>(id)?;
                push_may_see(*end_user, out)?;
            }
            Subject::Overdue(..) => out.push_sql(
                "(sessions.organization_id, sessions.id) in
                   (select organization_id, id from overdue)",
            ),
            Subject::Opened(_) => OpenedRooms::push_condition(out),
        }
        // The same condition as `Fact::concerns`.
        if let Fact::UserJoined { identity, .. } | Fact::UserLeft { identity, .. } = self.fact {
            out.push_sql(" and sessions.participant_identity = ");
            out.push_bind_param::<Text, _>(identity)?;
        }
        if self.fact.needs_open_session() {
            out.push_sql(" and sessions.");
            out.push_sql(OPEN);
        }
        // A replay of the start may have opened the room meanwhile; then the session must not fail.
        if let Fact::RoomNotOpened | Fact::RoomDeferred = self.fact {
            out.push_sql(" and sessions.room_created_at is null");
        }
        if let Fact::RoomDeferred = self.fact {
            out.push_sql(" and sessions.status = 'pending'");
        }
        if let Fact::MaxDurationReached = self.fact {
            out.push_sql(" and sessions.");
            out.push_sql(PAST_MAX_DURATION);
        }
        Ok(())
    }

    /// `columns` are the columns that the CTE `sessions` returns.
    pub(super) fn push_tables<'b>(
        &'b self,
        columns: &str,
        out: &mut AstPass<'_, 'b, Pg>,
    ) -> QueryResult<()> {
        let needs_before = matches!(self.fact, Fact::RoomOpened { .. });
        out.push_sql("with ");
        if let Subject::Overdue(deadline, range) = self.subject {
            push_overdue(deadline, range, out);
        }
        // The update must know the agent status that it replaces.
        if let Subject::Opened(rooms) = self.subject {
            rooms.push_before(out)?;
        } else if needs_before {
            out.push_sql("before as (select agent_status from sessions where ");
            self.push_condition(out)?;
            out.push_sql(" for update), ");
        }
        out.push_sql("sessions as (update sessions set ");
        self.push_assignments(out)?;
        out.push_sql("revision = sessions.revision + 1, next_check_at = ");
        self.push_next_check(out)?;
        out.push_sql(if needs_before { " from before where " } else { " where " });
        self.push_condition(out)?;
        out.push_sql(" returning ");
        out.push_sql(columns);
        out.push_sql(", ");
        self.push_is_held(out)?;
        out.push_sql(" as is_held");
        if needs_before {
            out.push_sql(", before.agent_status = 'waiting' as agent_was_waiting");
        }
        if let Subject::Opened(_) = self.subject {
            out.push_sql(", before.source_id");
        }
        out.push_sql(")");
        self.push_new_events(out)
    }
}
