//! Finds the reason why a start wrote no session: its key, the template and its settings, the agent
//! or a limit.

use greenroom_domain::SessionCount;
use greenroom_store::{
    KeyClaim, NewSession, StartedRow, TemplateAvailability, TokenReissue, template,
};
use tokio::time::Instant;

use crate::bulkhead::Work;
use crate::{Error, Greenroom};

/// The state of the key after an insert that wrote no row. A concurrent start may have taken the
/// key.
enum KeyState {
    /// This session with time left holds the key, and was started with the same request.
    Replayed(Box<StartedRow>),
    /// The key was released, or a concurrent start took it meanwhile: retry.
    Changed,
    /// No session holds the key, so another reason blocked the insert.
    NotHeld,
}

impl Greenroom {
    /// Finds the reason why the statement wrote no session, in this order: the key, the template,
    /// its settings, the agent, the limit. Returns the session of the key if it is a replay, and the reason as an
    /// error otherwise. `None` means that the reason has disappeared and the start can be retried.
    pub(super) async fn explain_refusal(
        &self,
        new: &NewSession,
        limit: Option<SessionCount>,
        deadline: Instant,
    ) -> Result<Option<StartedRow>, Error> {
        if let Some(key) = new.key.explicit() {
            match self.replay(new, key, deadline).await? {
                KeyState::Replayed(started) => return Ok(Some(*started)),
                KeyState::Changed => return Ok(None),
                KeyState::NotHeld => {}
            }
        }
        if let Some(key) = new.key.implicit() {
            let find = async |db: &mut _| key.is_resumable(db, new.organization_id).await;
            if self.shared.database.run_until(Work::StartStep, deadline, find).await? {
                // Another transaction changed the session while the statement resumed it.
                return Ok(None);
            }
        }
        let (organization, id) = (new.organization_id, new.session_template_id);
        let find = async |db: &mut _| template::availability(db, organization, id).await;
        match self.shared.database.run_until(Work::StartStep, deadline, find).await? {
            TemplateAvailability::Foreign => Err(Error::TemplateForbidden(id)),
            TemplateAvailability::Archived | TemplateAvailability::Absent => {
                Err(Error::TemplateNotFound(id))
            }
            TemplateAvailability::Unusable => Err(Error::TemplateUnusable(id)),
            TemplateAvailability::Startable
                if !self.template_has_requested_agent(new, deadline).await? =>
            {
                Err(Error::AgentMismatch)
            }
            TemplateAvailability::Startable => match limit {
                Some(limit) => Err(Error::TooManyActiveSessions { limit }),
                // An unlocked insert writes nothing for an organization with a limit. Assume a
                // limit, so that the next attempt locks the organization.
                None => {
                    self.shared.limits.limited_organizations.insert(organization);
                    Ok(None)
                }
            },
        }
    }

    /// Finds the session that holds the key, and extends its `token_expiry` if the request is the
    /// same.
    ///
    /// # Errors
    ///
    /// Returns [`Error::IdempotencyKeyReused`] if the key belongs to a different request, and
    /// [`Error::SessionOver`] if the session that holds the key is over or has no time left.
    async fn replay(
        &self,
        new: &NewSession,
        key: &KeyClaim,
        deadline: Instant,
    ) -> Result<KeyState, Error> {
        let organization = new.organization_id;
        let database = &self.shared.database;
        let reissue = async |db: &mut _| {
            TokenReissue::Key(key).execute(db, organization, new.defaults.token_ttl).await
        };
        if let Some(started) = database.run_until(Work::StartStep, deadline, reissue).await? {
            return Ok(KeyState::Replayed(Box::new(started)));
        }
        let release = async |db: &mut _| key.release_if_expired(db, organization).await;
        if database.run_until(Work::StartStep, deadline, release).await? {
            return Ok(KeyState::Changed);
        }
        let find = async |db: &mut _| key.find_holder(db, organization).await;
        let Some(holder) = database.run_until(Work::StartStep, deadline, find).await? else {
            return Ok(KeyState::NotHeld);
        };
        if !holder.is_same_request {
            return Err(Error::IdempotencyKeyReused);
        }
        if !holder.has_time_left {
            return Err(Error::SessionOver(holder.id));
        }
        // The session was committed after the first query. A retry finds it.
        Ok(KeyState::Changed)
    }

    /// Returns whether the template has the requested agent. A request without `agent_name` accepts
    /// every template.
    async fn template_has_requested_agent(
        &self,
        new: &NewSession,
        deadline: Instant,
    ) -> Result<bool, Error> {
        if new.agent_name.is_none() {
            return Ok(true);
        }
        let (organization, id) = (new.organization_id, new.session_template_id);
        let find = async |db: &mut _| template::find(db, organization, id).await;
        let found = self.shared.database.run_until(Work::StartStep, deadline, find).await?;
        Ok(found.is_some_and(|template| template.settings.agent_name == new.agent_name))
    }
}
