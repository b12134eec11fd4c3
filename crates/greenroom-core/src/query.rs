//! Reading sessions.

use greenroom_domain::{OrganizationId, SessionId};
use greenroom_store::{Page, Session, SessionFilter};

use crate::{Error, Greenroom};

impl Greenroom {
    /// A session of the organization; another organization's is absent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session(
        &self,
        organization: OrganizationId,
        id: SessionId,
    ) -> Result<Option<Session>, Error> {
        self.shared.database.run(async |db| Session::find(db, organization, id).await).await
    }

    /// A page of the organization's sessions, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sessions(
        &self,
        organization: OrganizationId,
        filter: &SessionFilter,
        page: Page,
    ) -> Result<Vec<Session>, Error> {
        let list = async |db: &mut _| Session::list(db, organization, filter, page).await;
        self.shared.database.run(list).await
    }
}
