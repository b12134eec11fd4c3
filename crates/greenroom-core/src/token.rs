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
        let token = self.token_lifetime(self.shared.clock.now());
        let organization = caller.organization_id;
        let reissue = TokenReissue::Session { id, end_user: caller.end_user.as_ref() };
        let execute = async |db: &mut _| reissue.execute(db, organization, token).await;
        if let Some(started) = self.shared.database.run(execute).await? {
            return Ok(Some(self.reissue_token(started)));
        }
        // The caller has no open session with this id. Only now find out why.
        match self.session(caller, id).await? {
            Some(_) => Err(Error::SessionOver(id)),
            None => Ok(None),
        }
    }
}
