//! Reading sessions.

use chrono::{DateTime, Utc};
use greenroom_domain::{Caller, SessionId};
use greenroom_store::{Session, SessionFilter};

use crate::page::{CursorScope, Page, PageRequest};
use crate::{Error, Greenroom};

impl Greenroom {
    /// A session the caller may see. Another organization's is absent, and to an end user another
    /// user's, too.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session(&self, caller: &Caller, id: SessionId) -> Result<Option<Session>, Error> {
        let organization = caller.organization_id;
        let find = async |db: &mut _| Session::find(db, organization, id).await;
        let found = self.shared.database.run(find).await?;
        let theirs = found.filter(|session| caller.may_see(session.user_id.as_ref()));
        Ok(theirs.map(|session| shown_to(caller, session)))
    }

    /// A page of the sessions the caller may see, newest first.
    ///
    /// Walked by cursor, a list shows every session that was committed before its first page
    /// exactly once, whatever is started meanwhile.
    ///
    /// # Errors
    /// [`Error::UserMismatch`] when an end user asks for somebody else's, [`Error::InvalidCursor`]
    /// for a cursor of another list, else when the database fails.
    pub async fn sessions(
        &self,
        caller: &Caller,
        mut filter: SessionFilter,
        page: PageRequest,
    ) -> Result<Page<Session>, Error> {
        filter.user_id = caller.acts_for(filter.user_id)?;
        let scope = cursor_scope(caller, &filter);
        let start = scope.resolve(page.start, SessionId)?;
        let organization = caller.organization_id;
        let one_more = page.limit + 1;
        let read =
            async |db: &mut _| Session::list(db, organization, &filter, start, one_more).await;
        let sessions = self.shared.database.run(read).await?;
        let shown = sessions.into_iter().map(|session| shown_to(caller, session)).collect();
        Ok(Page::of(shown, page.limit, &scope, |session: &Session| session.id.0))
    }
}

/// The list a caller sees through a filter.
fn cursor_scope(caller: &Caller, filter: &SessionFilter) -> CursorScope {
    let statuses: Vec<_> = filter.status.iter().map(|status| status.as_str()).collect();
    let time = |at: DateTime<Utc>| at.timestamp_micros().to_string();
    CursorScope::of(
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

/// The session as this caller sees it: metadata is between the backend and the agent.
fn shown_to(caller: &Caller, session: Session) -> Session {
    let metadata = session.metadata.filter(|_| caller.end_user.is_none());
    Session { metadata, ..session }
}
