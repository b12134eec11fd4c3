//! Facts that LiveKit's webhooks report, and the statement that records a fact.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Jsonb, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::RoomName;
use serde_json::{Value, json};

use crate::StoreError;

/// An event in a session's room that a LiveKit webhook reported.
///
/// A `sid` is LiveKit's id of a room, or of one visit of a participant in a room. A `reason` is
/// LiveKit's disconnect reason, such as `CLIENT_INITIATED`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    RoomStarted {
        sid: String,
    },
    RoomFinished,
    /// A participant who is not an agent joined. Recorded only if `identity` is that of the
    /// session's user; the same applies to [`Fact::UserLeft`].
    UserJoined {
        identity: String,
        sid: String,
    },
    UserLeft {
        identity: String,
        sid: String,
        reason: Option<String>,
    },
    AgentJoined {
        identity: String,
        sid: String,
    },
    AgentLeft {
        identity: String,
        sid: String,
        reason: Option<String>,
    },
}

impl Fact {
    /// Merges the fact into its session, appends the timeline event and makes the session due, in
    /// one statement. Never sets a status.
    ///
    /// Each recorded time is the earliest or the latest of its kind, so facts may arrive in any
    /// order and more than once. `at` is LiveKit's time of the event, in whole seconds. Returns
    /// false if the fact does not belong to a session's room or user.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn record(
        &self,
        connection: &mut AsyncPgConnection,
        room: &RoomName,
        at: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let (event, sid) = self.event();
        let record = RecordFact {
            fact: self,
            room,
            at,
            event,
            source_id: event.zip(sid).map(|(event, sid)| format!("{event}/{sid}")),
            detail: self.detail(at),
        };
        let sessions: i64 = record.get_result(connection).await?;
        Ok(sessions > 0)
    }

    /// The name and the LiveKit sid of the timeline event, if the fact has one.
    fn event(&self) -> (Option<&'static str>, Option<&str>) {
        match self {
            Self::RoomStarted { sid } => (Some("room_created"), Some(sid)),
            Self::RoomFinished => (None, None),
            Self::UserJoined { sid, .. } => (Some("user_joined"), Some(sid)),
            Self::UserLeft { sid, .. } => (Some("user_left"), Some(sid)),
            Self::AgentJoined { sid, .. } => (Some("agent_joined"), Some(sid)),
            Self::AgentLeft { sid, .. } => (Some("agent_left"), Some(sid)),
        }
    }

    /// The `detail` of the timeline event.
    fn detail(&self, at: DateTime<Utc>) -> Value {
        let at = at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        match self {
            Self::RoomStarted { .. } | Self::RoomFinished => json!({"livekit_at": at}),
            Self::UserJoined { identity, .. } | Self::AgentJoined { identity, .. } => {
                json!({"livekit_at": at, "identity": identity})
            }
            Self::UserLeft { identity, reason, .. } | Self::AgentLeft { identity, reason, .. } => {
                json!({"livekit_at": at, "identity": identity, "reason": reason})
            }
        }
    }

    /// Whether the keeper must also check a session that is over, because its room is open again.
    fn wakes_closed_session(&self) -> bool {
        matches!(
            self,
            Self::RoomStarted { .. } | Self::UserJoined { .. } | Self::AgentJoined { .. }
        )
    }
}

struct RecordFact<'a> {
    fact: &'a Fact,
    room: &'a RoomName,
    at: DateTime<Utc>,
    event: Option<&'static str>,
    source_id: Option<String>,
    detail: Value,
}

impl QueryId for RecordFact<'_> {
    type QueryId = ();
    // The text depends on the fact, so diesel caches the prepared statement by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for RecordFact<'_> {
    type SqlType = BigInt;
}

impl RecordFact<'_> {
    /// LiveKit reports whole seconds. Takes the end of that second, capped at `now()` to tolerate
    /// clock skew.
    fn push_at<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("least(now(), ");
        out.push_bind_param::<Timestamptz, _>(&self.at)?;
        out.push_sql(" + interval '999 milliseconds')");
        Ok(())
    }

    fn push_latest<'b>(&'b self, column: &str, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(column);
        out.push_sql(" = greatest(");
        out.push_sql(column);
        out.push_sql(", ");
        self.push_at(out)?;
        out.push_sql("), ");
        Ok(())
    }

    /// Pushes the assignments to the columns of the fact, each with a trailing comma.
    fn push_facts<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match self.fact {
            Fact::RoomStarted { .. } => {
                out.push_sql("room_created_at = coalesce(room_created_at, now()), ");
                Ok(())
            }
            Fact::RoomFinished => self.push_latest("room_finished_at", out),
            Fact::UserJoined { .. } => self.push_latest("user_joined_at", out),
            Fact::UserLeft { .. } => self.push_latest("user_left_at", out),
            Fact::AgentJoined { identity, .. } => {
                // Clear the recorded departure of an agent that has come back.
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
            Fact::AgentLeft { .. } => self.push_agent_left(out),
        }
    }

    /// Sets the three `agent_left_*` columns together, so that they describe one departure. They
    /// change if this departure is later, or if it adds the reason to a departure that the keeper
    /// observed; the latter keeps the observed time.
    fn push_agent_left<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let Fact::AgentLeft { identity, reason, .. } = self.fact else { return Ok(()) };
        out.push_sql(
            "(agent_left_at, agent_left_identity, agent_left_reason) = (
               select case when is_observed then agent_left_at else at end, identity, reason
               from (select ",
        );
        self.push_at(out)?;
        out.push_sql(" as at, ");
        out.push_bind_param::<Text, _>(identity)?;
        out.push_sql("::text as identity, ");
        out.push_bind_param::<Nullable<Text>, _>(reason)?;
        out.push_sql(
            "::text as reason) reported,
               lateral (select agent_left_reason is null and agent_left_identity = reported.identity as is_observed) known
               where is_observed or agent_left_at is null or at > agent_left_at
             union all
               select agent_left_at, agent_left_identity, agent_left_reason
             limit 1), ",
        );
        Ok(())
    }
}

impl QueryFragment<Pg> for RecordFact<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("with session as (update sessions set ");
        self.push_facts(&mut out)?;
        out.push_sql("revision = revision + 1, next_check_at = ");
        out.push_sql(if self.fact.wakes_closed_session() {
            "now()"
        } else {
            "case when status in ('pending', 'active') then now() else next_check_at end"
        });
        out.push_sql(" where room_name = ");
        out.push_bind_param::<Text, _>(self.room)?;
        if let Fact::UserJoined { identity, .. } | Fact::UserLeft { identity, .. } = self.fact {
            out.push_sql(" and participant_identity = ");
            out.push_bind_param::<Text, _>(identity)?;
        }
        out.push_sql(" returning organization_id, id)");
        if self.event.is_some() {
            out.push_sql(
                ", new_event as (
                   insert into session_events (organization_id, session_id, at, event, source_id, detail)
                   select organization_id, id, now(), ",
            );
            out.push_bind_param::<Nullable<Text>, _>(&self.event)?;
            out.push_sql(", ");
            out.push_bind_param::<Nullable<Text>, _>(&self.source_id)?;
            out.push_sql(", ");
            out.push_bind_param::<Jsonb, _>(&self.detail)?;
            out.push_sql(" from session on conflict do nothing)");
        }
        out.push_sql(" select count(*) from session");
        Ok(())
    }
}
