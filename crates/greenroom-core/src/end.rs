//! Ending a session on request.

use std::time::Duration;

use greenroom_domain::{Caller, SessionId};
use greenroom_livekit::LiveKitError;
use greenroom_store::Session;
use greenroom_store::fact::end_session;
use tokio::time::timeout;

use crate::query::visible_to;
use crate::{Error, Greenroom};

/// How long [`Greenroom::end`] waits for LiveKit to delete the room. After that, the keeper deletes
/// it.
const DELETE_TIMEOUT: Duration = Duration::from_secs(1);

impl Greenroom {
    /// Ends a session that the caller may see, and returns it.
    ///
    /// All participants are disconnected and the room is deleted: before this method returns if
    /// LiveKit responds within one second, otherwise by the keeper. A session that is already over
    /// is returned unchanged. `None` means that the caller may see no session with this id.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after the session was ended, the keeper deletes the room.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Store`] if the database fails, and [`Error::Overloaded`] if no database
    /// connection becomes free in time.
    pub async fn end(&self, caller: &Caller, id: SessionId) -> Result<Option<Session>, Error> {
        let (organization, end_user) = (caller.organization_id, caller.sees_only());
        let end = async |db: &mut _| end_session(db, organization, id, end_user).await;
        let Some(ended) = self.shared.database.run(end).await? else {
            // The session is over already, or the caller may not see it.
            return self.session(caller, id).await;
        };
        self.shared.waiters.wake();
        self.delete_room_of(&ended).await;
        Ok(Some(visible_to(caller, ended)))
    }

    /// Deletes the room now, so that it is usually gone when [`Greenroom::end`] returns. The
    /// session is due, so the keeper checks that the room is gone and does not come back. A room
    /// with an invalid name was not opened by this version.
    async fn delete_room_of(&self, ended: &Session) {
        let Some(room_name) = ended.room_name.valid() else { return };
        let delete = async {
            let _permit = self.shared.livekit.limiter.acquire().await;
            self.shared.livekit.rooms.delete(room_name).await
        };
        let deleted = timeout(DELETE_TIMEOUT, delete).await.unwrap_or(Err(LiveKitError::Timeout));
        if let Err(error) = deleted {
            tracing::warn!(session_id = %ended.id, error = &error as &dyn std::error::Error,
                "failed to delete room of ended session");
        }
        self.shared.search_requested.notify_one();
    }
}
