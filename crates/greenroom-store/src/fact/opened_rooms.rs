//! Rooms that were opened at about the same time, as one array per column.

use std::time::Duration;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::{Array, Nullable, Text, Uuid};
use greenroom_domain::lifecycle::{Event, TimelineEvent};
use greenroom_domain::{OrganizationId, SessionId};

use crate::SessionKey;
use crate::bucket::ReplicaId;
use crate::sql::OPEN;

/// A session whose room was opened.
#[derive(Debug, Clone)]
pub struct OpenedRoom {
    /// The session.
    pub key: SessionKey,
    /// LiveKit's SID of the room.
    pub sid: String,
    /// The process that remembers the next check, if it holds the session's bucket.
    pub holder: Option<ReplicaId>,
}

/// The columns of opened rooms.
#[derive(Debug, Clone)]
pub struct OpenedRooms {
    organizations: Vec<OrganizationId>,
    ids: Vec<SessionId>,
    source_ids: Vec<Option<String>>,
    holders: Vec<Option<uuid::Uuid>>,
    /// PostgreSQL's setting, in milliseconds. Zero means no limit.
    lock_timeout: String,
}

impl OpenedRooms {
    pub(super) fn new(rooms: &[&OpenedRoom], lock_timeout: Duration) -> Self {
        let mut columns = Self {
            organizations: Vec::new(),
            ids: Vec::new(),
            source_ids: Vec::new(),
            holders: Vec::new(),
            lock_timeout: lock_timeout.as_millis().to_string(),
        };
        for OpenedRoom { key, sid, holder } in rooms {
            let created = Event { event: TimelineEvent::RoomCreated, sid: Some(sid.clone()) };
            columns.organizations.push(key.organization_id);
            columns.ids.push(key.id);
            columns.source_ids.push(created.source_id());
            columns.holders.push(holder.map(|replica| replica.0));
        }
        columns
    }

    /// Pushes the CTE `before`: the open sessions, in the order of the primary key, in which all
    /// statements that write several sessions lock them.
    ///
    /// `number * 0 = 0` is always true, and lowers PostgreSQL's estimate to one row; `offset 0` keeps the
    /// search of an index per row. The plan therefore stays fast when the table has grown.
    pub(super) fn push_before<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("opened as (select * from unnest(");
        out.push_bind_param::<Array<Uuid>, _>(&self.organizations)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Uuid>, _>(&self.ids)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Text>>, _>(&self.source_ids)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Uuid>>, _>(&self.holders)?;
        out.push_sql(
            ") with ordinality as row (organization_id, id, source_id, holder, number)
               where number * 0 = 0 and (select set_config('lock_timeout', ",
        );
        out.push_bind_param::<Text, _>(&self.lock_timeout)?;
        out.push_sql(
            ", true)) is not null order by organization_id, id),
             before as (select opened.source_id, opened.holder, found.*
               from opened cross join lateral (
                 select sessions.ctid, sessions.revision, sessions.agent_status from sessions
                 where sessions.organization_id = opened.organization_id
                   and sessions.id = opened.id and ",
        );
        out.push_sql(OPEN);
        out.push_sql(" offset 0) as found), ");
        Ok(())
    }

    /// A concurrent update changes the revision, and moves the row to another `ctid`. The session is
    /// then not written.
    pub(super) fn push_condition(out: &mut AstPass<'_, '_, Pg>) {
        out.push_sql("sessions.ctid = before.ctid and sessions.revision = before.revision");
    }
}
