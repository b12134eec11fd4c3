//! The timeline of a session: its events in order.

use chrono::{DateTime, Utc};
use greenroom_domain::lifecycle::TimelineEvent;
use greenroom_domain::{Caller, JsonObject, Lenient, SessionId};
use greenroom_store::SessionEvent;

use crate::{Error, Greenroom};

/// An entry of a session's timeline, as the caller may see it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TimelineEntry {
    /// When Greenroom recorded the event.
    pub at: DateTime<Utc>,
    /// The kind of event.
    pub event: Lenient<TimelineEvent>,
    /// Details of the event, such as the time that LiveKit reported. `None` if the caller is an end
    /// user.
    pub detail: Option<JsonObject>,
}

impl Greenroom {
    /// Returns the timeline of a session that the caller may see, oldest event first. `None` means
    /// that the caller may see no session with this id. Events that this version cannot decode are
    /// left out and logged.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Store`] if the database fails, and [`Error::Overloaded`] if no database
    /// connection becomes free in time.
    pub async fn timeline(
        &self,
        caller: &Caller,
        id: SessionId,
    ) -> Result<Option<Vec<TimelineEntry>>, Error> {
        let Some(session) = self.session(caller, id).await? else { return Ok(None) };
        let organization = caller.organization_id;
        let list = async |db: &mut _| SessionEvent::list(db, organization, id).await;
        let events = self.shared.database.run(list).await?;
        let decoded = events.into_iter().filter_map(|event| {
            event
                .inspect_err(|error| {
                    tracing::error!(session_id = %id, error,
                        "skipped timeline event that cannot be decoded");
                })
                .ok()
        });
        let created = SessionEvent {
            at: session.created_at,
            event: TimelineEvent::Created.into(),
            detail: JsonObject::default(),
        };
        let visible = |entry: SessionEvent| TimelineEntry {
            at: entry.at,
            event: entry.event,
            detail: caller.may_read_metadata().then_some(entry.detail),
        };
        Ok(Some(std::iter::once(created).chain(decoded).map(visible).collect()))
    }
}
