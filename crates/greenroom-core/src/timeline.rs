//! What happened to a session, in its order.

use chrono::{DateTime, Utc};
use greenroom_domain::lifecycle::TimelineEvent;
use greenroom_domain::{Caller, JsonObject, SessionId};
use greenroom_store::SessionEvent;

use crate::{Error, Greenroom};

/// An entry of a session's timeline, as its caller sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct TimelineEntry {
    /// When Greenroom learned of it.
    pub at: DateTime<Utc>,
    /// What happened.
    pub event: TimelineEvent,
    /// What LiveKit told of it, such as its own time; none for end users.
    pub detail: Option<JsonObject>,
}

impl Greenroom {
    /// The timeline of a session the caller may see, oldest first. None when there is no such
    /// session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn timeline(
        &self,
        caller: &Caller,
        id: SessionId,
    ) -> Result<Option<Vec<TimelineEntry>>, Error> {
        let Some(session) = self.session(caller, id).await? else { return Ok(None) };
        let organization = caller.organization_id;
        let list = async |db: &mut _| SessionEvent::list(db, organization, id).await;
        let events = self.shared.database.run(list).await?;
        let created = SessionEvent {
            at: session.created_at,
            event: TimelineEvent::Created,
            detail: JsonObject::default(),
        };
        let shown = |entry: SessionEvent| TimelineEntry {
            at: entry.at,
            event: entry.event,
            detail: caller.end_user.is_none().then_some(entry.detail),
        };
        Ok(Some(std::iter::once(created).chain(events).map(shown).collect()))
    }
}
