//! Reading sessions.

use chrono::{DateTime, Utc};
use greenroom_domain::{Caller, SessionId, Stored};
use greenroom_store::{Session, SessionFilter, SessionKey, session};

use crate::page::{CursorScope, Page, PageRequest};
use crate::{Error, Greenroom};

impl Greenroom {
    /// Returns a session that the caller may see.
    ///
    /// `None` means that the session does not exist, belongs to another organization, or, if the
    /// caller is an end user, belongs to another user. An end user gets the session without its
    /// metadata.
    ///
    /// Concurrent calls share a statement.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Store`] if the database fails, [`Error::Overloaded`] if no database
    /// connection becomes free in time, and [`Error::ShuttingDown`] if the runtime of the service is
    /// shutting down.
    pub async fn session(&self, caller: &Caller, id: SessionId) -> Result<Option<Session>, Error> {
        let key = SessionKey { organization_id: caller.organization_id, id };
        let found = self.read_session(key).await?;
        // An end user has a valid id, so a session with an invalid one belongs to another user.
        let is_visible = |session: &Session| match &session.user_id {
            Some(Stored::Invalid(_)) => caller.sees_only().is_none(),
            user => caller.may_see(user.as_ref().and_then(Stored::valid)),
        };
        Ok(found.filter(is_visible).map(|session| visible_to(caller, session)))
    }

    /// Returns a page of the sessions that the caller may see, newest first.
    ///
    /// If all pages are read by cursor, each session that was committed before the first page
    /// appears exactly once, even if sessions are started meanwhile. A session that this version
    /// cannot decode is left out and logged, so a page may have fewer items than its limit.
    ///
    /// # Errors
    ///
    /// Returns [`Error::UserMismatch`] if an end user filters by another user, and
    /// [`Error::InvalidCursor`] if the cursor is malformed or belongs to another list. Returns
    /// [`Error::Store`] if the database fails, and [`Error::Overloaded`] if no database connection
    /// becomes free in time.
    pub async fn sessions(
        &self,
        caller: &Caller,
        mut filter: SessionFilter,
        page: PageRequest,
    ) -> Result<Page<Session>, Error> {
        filter.user_id = caller.acts_for(filter.user_id)?;
        let scope = cursor_scope(caller, &filter);
        let limit = page.query_limit();
        let start = scope.resolve(page.start, SessionId)?;
        let organization = caller.organization_id;
        let list = async |db: &mut _| session::list(db, organization, &filter, start, limit).await;
        let sessions = self.shared.database.run(list).await?;
        let page =
            Page::new(sessions, page.limit, &scope, |session| session.id).without_undecodable();
        Ok(page.map(|session| visible_to(caller, session)))
    }
}

/// The scope of the cursors of a caller's list with a filter.
fn cursor_scope(caller: &Caller, filter: &SessionFilter) -> CursorScope {
    let statuses: Vec<_> = filter.status.iter().map(|status| status.as_str()).collect();
    let time = |at: DateTime<Utc>| at.timestamp_micros().to_string();
    CursorScope::new(
        "sessions",
        &[
            Some(caller.organization_id.to_string()),
            caller.end_user.as_ref().map(|user| user.as_str().to_owned()),
            Some(statuses.join(",")),
            filter.user_id.as_ref().map(|user| user.as_str().to_owned()),
            filter.session_template_id.map(|id| id.to_string()),
            filter.created_after.map(time),
            filter.created_before.map(time),
        ],
    )
}

/// Removes the metadata if the caller may not read it.
pub(crate) fn visible_to(caller: &Caller, mut session: Session) -> Session {
    session.metadata = session.metadata.filter(|_| caller.may_read_metadata());
    session
}
