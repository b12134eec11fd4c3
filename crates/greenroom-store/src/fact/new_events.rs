//! The timeline events of a fact.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::{Jsonb, Nullable, Text};
use greenroom_domain::lifecycle::{Event, Fact, TimelineEvent};
use serde_json::Value;

use super::Subject;
use super::sql::RecordFact;
use crate::detail;

pub(super) struct NewEvent {
    event: TimelineEvent,
    source_id: Option<String>,
    detail: Value,
}

impl NewEvent {
    pub(super) fn of_fact(fact: &Fact, at: DateTime<Utc>) -> Vec<Self> {
        let mut events = fact.events();
        if let Fact::RoomOpened { .. } = fact {
            events.push(Event { event: TimelineEvent::AgentDispatched, sid: None });
        }
        let new_event = |event: Event| Self {
            source_id: event.source_id(),
            detail: detail::of_fact(event.event, fact, at),
            event: event.event,
        };
        events.into_iter().map(new_event).collect()
    }
}

impl RecordFact<'_> {
    pub(super) fn push_new_events<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if self.events.is_empty() {
            return Ok(());
        }
        out.push_sql(
            ", new_events as (
               insert into session_events (organization_id, session_id, at, event, source_id, detail) ",
        );
        for (index, NewEvent { event, source_id, detail }) in self.events.iter().enumerate() {
            out.push_sql(if index == 0 { "" } else { " union all " });
            out.push_sql("select organization_id, id, now(), '");
            out.push_sql(event.as_str());
            out.push_sql("', ");
            match (self.subject, source_id) {
                (Subject::Opened(_), Some(_)) => out.push_sql("source_id"),
                _ => out.push_bind_param::<Nullable<Text>, _>(source_id)?,
            }
            out.push_sql(", ");
            out.push_bind_param::<Jsonb, _>(detail)?;
            out.push_sql(" from sessions");
            // Only a waiting agent counts as dispatched by this call.
            if let (Fact::RoomOpened { .. }, TimelineEvent::AgentDispatched) = (self.fact, event) {
                out.push_sql(" where agent_was_waiting");
            }
        }
        out.push_sql(" on conflict do nothing)");
        Ok(())
    }
}
