//! A fresh token for a session that lives.

use greenroom_domain::{Caller, SessionId};
use greenroom_store::TokenReissue;

use crate::{Error, Greenroom, StartedSession};

impl Greenroom {
    /// A fresh token for a session the caller may see, which lives as long as its first one did.
    /// None when there is no such session.
    ///
    /// # Errors
    /// [`Error::SessionOver`] when there is nothing left to join, else when the database fails.
    pub async fn refresh_token(
        &self,
        caller: &Caller,
        id: SessionId,
    ) -> Result<Option<StartedSession>, Error> {
        if self.session(caller, id).await?.is_none() {
            return Ok(None);
        }
        let token = self.token_life(self.shared.clock.now());
        let (organization, reissue) = (caller.organization_id, TokenReissue::Session(id));
        let renew = async |db: &mut _| reissue.execute(db, organization, token).await;
        // The write decides, not the look before it: an end in between wins.
        match self.shared.database.run(renew).await? {
            Some(started) => Ok(Some(self.issue_token(started, false))),
            None => Err(Error::SessionOver(id)),
        }
    }
}
