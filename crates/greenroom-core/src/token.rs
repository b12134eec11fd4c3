//! New join tokens for open sessions.

use greenroom_domain::{Caller, SessionId};
use greenroom_store::TokenReissue;

use crate::{Error, Greenroom, StartedSession};

impl Greenroom {
    /// Issues a new token for a session that the caller may see.
    ///
    /// The new token has the same lifetime as the first token of the session. `None` means that the
    /// caller may see no session with this id.
    ///
    /// # Errors
    ///
    /// Returns [`Error::SessionOver`] if the session is over. Returns [`Error::Store`] if the
    /// database fails, and [`Error::Overloaded`] if no database connection becomes free in time.
    pub async fn refresh_token(
        &self,
        caller: &Caller,
        id: SessionId,
    ) -> Result<Option<StartedSession>, Error> {
        if self.session(caller, id).await?.is_none() {
            return Ok(None);
        }
        let token = self.token_lifetime(self.shared.clock.now());
        let (organization, reissue) = (caller.organization_id, TokenReissue::Session(id));
        let execute = async |db: &mut _| reissue.execute(db, organization, token).await;
        // This write checks again that the session is open. The session may have ended since it was
        // read.
        match self.shared.database.run(execute).await? {
            Some(started) => Ok(Some(self.issue_token(started, false))),
            None => Err(Error::SessionOver(id)),
        }
    }
}
