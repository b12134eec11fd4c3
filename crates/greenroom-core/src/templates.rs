//! Session templates: writing and reading them.

use diesel_async::{AsyncConnection, AsyncPgConnection};
use greenroom_domain::{OrganizationId, SessionTemplateId};
use greenroom_store::{Constraint, SessionTemplate, StoreError, TemplateSettings, organization};

use crate::{Error, Greenroom, clock};

impl Greenroom {
    /// Writes a template's first version, and the organization's row with its first template.
    ///
    /// # Errors
    /// [`Error::TemplateContradicts`] and [`Error::TemplateNameTaken`], else when the database
    /// fails.
    pub async fn create_template(
        &self,
        organization: OrganizationId,
        settings: TemplateSettings,
    ) -> Result<SessionTemplate, Error> {
        let contradictions = settings.contradictions();
        if !contradictions.is_empty() {
            return Err(Error::TemplateContradicts(contradictions));
        }
        let id = clock::template_id(self.shared.clock.now());
        let name = settings.name.clone();
        let written = self.shared.database.run(async |db| {
            db.transaction(async |db: &mut AsyncPgConnection| {
                organization::ensure(db, organization).await?;
                SessionTemplate::insert(db, organization, id, settings).await
            })
            .await
        });
        written.await.map_err(|error| match error {
            Error::Store(StoreError::Conflict(Constraint::TemplateName)) => {
                Error::TemplateNameTaken(name)
            }
            error => error,
        })
    }

    /// The current version of a template of the organization; another organization's is absent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn template(
        &self,
        organization: OrganizationId,
        id: SessionTemplateId,
    ) -> Result<Option<SessionTemplate>, Error> {
        let find = async |db: &mut _| SessionTemplate::find(db, organization, id).await;
        self.shared.database.run(find).await
    }

    /// The newest living templates of the organization.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn templates(
        &self,
        organization: OrganizationId,
        limit: i64,
    ) -> Result<Vec<SessionTemplate>, Error> {
        let list = async |db: &mut _| SessionTemplate::list(db, organization, limit).await;
        self.shared.database.run(list).await
    }
}
