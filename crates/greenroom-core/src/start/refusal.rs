//! Why a start wrote no session: its key is in use, or the template or a limit forbids it.

use greenroom_domain::{SessionCount, SessionStatus};
use greenroom_store::{
    KeyClaim, NewSession, StartedRow, TemplateAvailability, TokenReissue, template,
};
use tokio::time::Instant;

use crate::{Error, Greenroom};

/// What the key of a request means for a start that wrote no session, for example because it lost
/// the race for the key against a concurrent start.
enum Replay {
    /// The key belongs to this session, which is still open.
    Started(Box<StartedRow>),
    /// The key prevented the insert but no longer does, so the insert can be retried.
    Free,
    /// The key did not prevent the insert.
    Unused,
}

impl Greenroom {
    /// Finds the reason why the statement wrote no session, in this order: the key, the template,
    /// the agent, the limit. Returns the session of the key if it is a replay, and the reason as an
    /// error otherwise. `None` means that the reason has disappeared and the start can be retried.
    pub(super) async fn explain_refusal(
        &self,
        new: &NewSession,
        limit: Option<SessionCount>,
        deadline: Instant,
    ) -> Result<Option<StartedRow>, Error> {
        if let Some(key) = new.key.explicit() {
            match self.replay(new, key, deadline).await? {
                Replay::Started(started) => return Ok(Some(*started)),
                Replay::Free => return Ok(None),
                Replay::Unused => {}
            }
        }
        let (organization, id) = (new.organization_id, new.session_template_id);
        let find = async |db: &mut _| template::availability(db, organization, id).await;
        match self.shared.database.run_until(deadline, find).await? {
            TemplateAvailability::Foreign => Err(Error::TemplateForbidden(id)),
            TemplateAvailability::Archived | TemplateAvailability::Absent => {
                Err(Error::TemplateNotFound(id))
            }
            TemplateAvailability::Startable
                if !self.template_names_agent(new, deadline).await? =>
            {
                Err(Error::AgentMismatch)
            }
            TemplateAvailability::Startable => match limit {
                Some(limit) => Err(Error::TooManyActiveSessions { limit }),
                // The organization may have a limit and was not locked. The next attempt locks it.
                None => {
                    self.shared.limits.limited_organizations.insert(organization);
                    Ok(None)
                }
            },
        }
    }

    /// Finds the session that holds the key, and gives it a new token if the request is the same.
    ///
    /// # Errors
    ///
    /// Returns [`Error::IdempotencyKeyReused`] if the key belongs to a different request, and
    /// [`Error::SessionOver`] if the session that holds the key is over.
    async fn replay(
        &self,
        new: &NewSession,
        key: &KeyClaim,
        deadline: Instant,
    ) -> Result<Replay, Error> {
        let organization = new.organization_id;
        let database = &self.shared.database;
        let reissue =
            async |db: &mut _| TokenReissue::Key(key).execute(db, organization, new.token).await;
        if let Some(started) = database.run_until(deadline, reissue).await? {
            return Ok(Replay::Started(Box::new(started)));
        }
        let release = async |db: &mut _| key.release_if_expired(db, organization).await;
        if database.run_until(deadline, release).await? {
            return Ok(Replay::Free);
        }
        let find = async |db: &mut _| key.find_holder(db, organization).await;
        let Some(holder) = database.run_until(deadline, find).await? else {
            return Ok(Replay::Unused);
        };
        if holder.fingerprint.as_deref() != Some(key.fingerprint.as_slice()) {
            return Err(Error::IdempotencyKeyReused);
        }
        if !SessionStatus::OPEN.contains(&holder.status) {
            return Err(Error::SessionOver(holder.id));
        }
        // The session was committed after the first query. A retry finds it.
        Ok(Replay::Free)
    }

    /// Whether the template has the agent that the request names. True if the request names none.
    async fn template_names_agent(
        &self,
        new: &NewSession,
        deadline: Instant,
    ) -> Result<bool, Error> {
        if new.agent_name.is_none() {
            return Ok(true);
        }
        let (organization, id) = (new.organization_id, new.session_template_id);
        let find = async |db: &mut _| template::find(db, organization, id).await;
        let found = self.shared.database.run_until(deadline, find).await?;
        Ok(found.is_some_and(|template| template.settings.agent_name == new.agent_name))
    }
}
