//! The keeper's commit of a decision, in one statement.
//!
//! After the insert, [`record`](crate::record), this module and
//! [`reschedule`](SessionSnapshot::reschedule) are the only writers of the columns of a [`State`].

use diesel::dsl::SqlTypeOf;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{Array, BigInt, Bool, HasSqlType, Jsonb, Nullable, SmallInt, Text, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::{Action, Decision, Event, State, TimelineEvent};
use serde_json::Value;

use crate::bucket::HELD_BUCKETS;
use crate::schema::sessions;
use crate::{SessionSnapshot, StoreError, detail};

macro_rules! state {
    ($($column:ident)+) => {
        pub(crate) type StateColumns = ($(sessions::$column,)+);

        /// The columns of a [`State`], in the order of its fields.
        pub(crate) const STATE_COLUMNS: StateColumns = ($(sessions::$column,)+);

        impl CommitDecision<'_> {
            fn push_state<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                $(self.push_assignment::<sessions::$column, _>(&self.state.$column, out)?;)+
                Ok(())
            }
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
        Ok(CommitDecision::new(self, decision).execute(connection).await? > 0)
    }
}

/// Handwritten, because diesel prepares its own updates anew for each execution. Returns one row if
/// the decision was written.
struct CommitDecision<'a> {
    snapshot: &'a SessionSnapshot,
    bucket: i16,
    state: &'a State,
    dispatches_agent: bool,
    events: NewEvents,
}

/// The events of a decision, as one array per column.
struct NewEvents {
    kinds: Vec<TimelineEvent>,
    source_ids: Vec<Option<String>>,
    details: Vec<Value>,
}

impl NewEvents {
    fn new(Decision { state, events, .. }: &Decision) -> Self {
        Self {
            kinds: events.iter().map(|event| event.event).collect(),
            source_ids: events.iter().map(Event::source_id).collect(),
            details: events.iter().map(|event| detail::of_decision(event.event, state)).collect(),
        }
    }
}

impl<'a> CommitDecision<'a> {
    fn new(snapshot: &'a SessionSnapshot, decision: &'a Decision) -> Self {
        Self {
            snapshot,
            bucket: snapshot.id.bucket().number(),
            state: &decision.state,
            dispatches_agent: decision.actions.iter().any(Action::dispatches_agent),
            events: NewEvents::new(decision),
        }
    }
}

impl CommitDecision<'_> {
    /// Appends `column = value, `.
    ///
    /// The time of a dispatch is that of the commit. The decision contains the time at which the
    /// session was read, which may be seconds earlier: with that time, the dispatch would count as
    /// lost too early.
    fn push_assignment<'b, C, V>(
        &'b self,
        value: &'b V,
        out: &mut AstPass<'_, 'b, Pg>,
    ) -> QueryResult<()>
    where
        C: Column,
        Pg: HasSqlType<SqlTypeOf<C>>,
        V: ToSql<SqlTypeOf<C>, Pg>,
    {
        let is_dispatch_time = C::NAME == sessions::last_dispatch_at::NAME;
        out.push_sql(C::NAME);
        out.push_sql(" = ");
        if is_dispatch_time {
            out.push_sql("case when ");
            out.push_bind_param::<Bool, _>(&self.dispatches_agent)?;
            out.push_sql(" then now() else ");
        }
        out.push_bind_param::<SqlTypeOf<C>, _>(value)?;
        out.push_sql(if is_dispatch_time { " end, " } else { ", " });
        Ok(())
    }

    fn push_update<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("update sessions set ");
        self.push_state(out)?;
        out.push_sql("revision = revision + 1 where ");
        self.push_is_session("id", out)?;
        // PostgreSQL compares the revision again after a wait for the row lock.
        out.push_sql(" and revision = ");
        out.push_bind_param::<BigInt, _>(&self.snapshot.revision)?;
        out.push_sql(" and (");
        out.push_bind_param::<Nullable<BigInt>, _>(&self.snapshot.epoch)?;
        out.push_sql(" is null or exists (select from ");
        out.push_sql(HELD_BUCKETS);
        out.push_sql(" where epoch = ");
        out.push_bind_param::<Nullable<BigInt>, _>(&self.snapshot.epoch)?;
        out.push_sql(" and bucket = ");
        out.push_bind_param::<SmallInt, _>(&self.bucket)?;
        out.push_sql("))");
        Ok(())
    }

    /// Appends the condition that a row belongs to the session. `id` is the column of its id.
    fn push_is_session<'b>(&'b self, id: &str, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("organization_id = ");
        out.push_bind_param::<Uuid, _>(&self.snapshot.organization_id)?;
        out.push_sql(" and ");
        out.push_sql(id);
        out.push_sql(" = ");
        out.push_bind_param::<Uuid, _>(&self.snapshot.id)?;
        Ok(())
    }

    /// Appends a case that returns the source id of a departure that the keeper observed.
    ///
    /// An observation does not show the sid of a participant who has left, so this takes the sid of
    /// the latest recorded join. The decision itself contains no join of the participant.
    fn push_case_of_departure<'b>(
        &'b self,
        departure: TimelineEvent,
        join: TimelineEvent,
        out: &mut AstPass<'_, 'b, Pg>,
    ) -> QueryResult<()> {
        let (departure, join) = (departure.as_str(), join.as_str());
        out.push_sql(&format!(
            " when '{departure}' then (
                select replace(source_id, '{join}/', '{departure}/') from session_events
                where event = '{join}' and "
        ));
        self.push_is_session("session_id", out)
    }

    fn push_new_events<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        const LATEST: &str = " order by seq desc limit 1)";
        out.push_sql(
            "new_events as (
               insert into session_events (organization_id, session_id, at, event, source_id, detail)
               select organization_id, id, now(), decided.event,
                 coalesce(decided.source_id, case decided.event",
        );
        self.push_case_of_departure(TimelineEvent::UserLeft, TimelineEvent::UserJoined, out)?;
        out.push_sql(LATEST);
        self.push_case_of_departure(TimelineEvent::AgentLeft, TimelineEvent::AgentJoined, out)?;
        out.push_sql(" and (detail ->> 'identity' = ");
        out.push_bind_param::<Nullable<Text>, _>(&self.state.agent_left_identity)?;
        out.push_sql(" or ");
        out.push_bind_param::<Nullable<Text>, _>(&self.state.agent_left_identity)?;
        out.push_sql(" is null)");
        out.push_sql(LATEST);
        out.push_sql(" end), decided.detail from written cross join unnest(");
        out.push_bind_param::<Array<Text>, _>(&self.events.kinds)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Text>>, _>(&self.events.source_ids)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Jsonb>, _>(&self.events.details)?;
        out.push_sql(
            ") with ordinality as decided (event, source_id, detail, position)
               order by position
               on conflict do nothing)",
        );
        Ok(())
    }
}

impl QueryId for CommitDecision<'_> {
    type QueryId = ();
    // The text depends on whether there are events, so diesel caches the statement by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Pg> for CommitDecision<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if self.events.kinds.is_empty() {
            return self.push_update(&mut out);
        }
        out.push_sql("with written as (");
        self.push_update(&mut out)?;
        out.push_sql(" returning organization_id, id), ");
        self.push_new_events(&mut out)?;
        out.push_sql(" select from written");
        Ok(())
    }
}
