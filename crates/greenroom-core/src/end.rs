//! Ending a session by request.

use std::time::Duration;

use greenroom_domain::{Caller, SessionId};
use greenroom_store::{EndCause, Session};
use tokio::time::timeout;

use crate::{Error, Greenroom};

/// How long an end waits to see the room deleted; then the keeper sees to it.
const DELETE_TIMEOUT: Duration = Duration::from_secs(1);

impl Greenroom {
    /// Ends a session the caller may see: everybody is disconnected and the room deleted, at once or
    /// as soon as LiveKit can. One that is over already stays as it is. None when there is no such
    /// session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end(&self, caller: &Caller, id: SessionId) -> Result<Option<Session>, Error> {
        if self.session(caller, id).await?.is_none() {
            return Ok(None);
        }
        let organization = caller.organization_id;
        let end = async |db: &mut _| Session::end(db, organization, id, EndCause::Requested).await;
        if let Some(ended) = self.shared.database.run(end).await? {
            self.close_room(&ended).await;
            self.shared.waiters.wake();
        }
        self.session(caller, id).await
    }

    /// Deletes the room now, so that whoever asked finds it gone. That it is gone, and stays so, the
    /// keeper sees: the session is due.
    async fn close_room(&self, ended: &Session) {
        let delete = async {
            let _call = self.shared.livekit_limiter.acquire().await;
            self.shared.rooms.delete(&ended.room_name).await
        };
        if !matches!(timeout(DELETE_TIMEOUT, delete).await, Ok(Ok(()))) {
            tracing::warn!(session_id = %ended.id, "the room could not be deleted yet");
        }
        self.shared.due.notify_one();
    }
}
