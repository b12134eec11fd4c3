//! What LiveKit told of a room, as one statement: facts merged, the event told, the session due.
//!
//! Nothing here sets a status. Facts are each the earliest or the latest of their kind, so that their
//! order does not matter, nor how often they come.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Jsonb, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::RoomName;
use serde_json::{Value, json};

use crate::StoreError;

/// Something that LiveKit told of a session's room. Sids are LiveKit's own names for a room and for
/// somebody's stay in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    RoomStarted {
        sid: String,
    },
    RoomFinished,
    /// Of anybody who is no agent: whether it is the session's user shows by its identity.
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
    /// Writes it down, and tells whether it is of a session's room. `at` is LiveKit's time, of which
    /// it tells whole seconds.
    ///
    /// # Errors
    /// When the database fails.
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
        let told: i64 = record.get_result(connection).await?;
        Ok(told > 0)
    }

    /// What the timeline says of it.
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

    /// A room that is open, or somebody in one, has to be looked at even when its session is over.
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
    // The text differs by the fact, and is what the prepared statement is found by.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for RecordFact<'_> {
    type SqlType = BigInt;
}

impl RecordFact<'_> {
    /// When it was: a whole second is over at its end, and nothing happens later than now, however
    /// LiveKit's clock goes.
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
                // One that is back has not left.
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

    /// The three that tell of one leaving change together: by a later one, and by the reason of one
    /// that a look had only missed.
    fn push_agent_left<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let Fact::AgentLeft { identity, reason, .. } = self.fact else { return Ok(()) };
        out.push_sql(
            "(agent_left_at, agent_left_identity, agent_left_reason) = (
               select case when explained then agent_left_at else at end, identity, reason
               from (select ",
        );
        self.push_at(out)?;
        out.push_sql(" as at, ");
        out.push_bind_param::<Text, _>(identity)?;
        out.push_sql("::text as identity, ");
        out.push_bind_param::<Nullable<Text>, _>(reason)?;
        out.push_sql(
            "::text as reason) told,
               lateral (select agent_left_reason is null and agent_left_identity = told.identity as explained) missed
               where explained or agent_left_at is null or at > agent_left_at
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
                ", told as (
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
