//! Session templates: writing and reading them.

mod set;

use diesel_async::{AsyncConnection, AsyncPgConnection};
use greenroom_domain::{OrganizationId, SessionTemplateId, TemplateName};
use greenroom_store::{
    Constraint, SessionTemplate, StoreError, TemplateFilter, TemplateSettings, organization,
};

use crate::page::{CursorScope, Page, PageRequest};
use crate::{Error, Greenroom, clock};

pub use set::{TemplateChange, TemplateSet, apply_templates, compare_templates, current_templates};

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
        check(&settings)?;
        let id = clock::template_id(self.shared.clock.now());
        let name = Some(settings.name.clone());
        let written = self.shared.database.run(async |db| {
            db.transaction(async |db: &mut AsyncPgConnection| {
                organization::ensure(db, organization).await?;
                SessionTemplate::insert(db, organization, id, settings).await
            })
            .await
        });
        written.await.map_err(|error| name_taken(error, name))
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

    /// A page of the organization's templates, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`] for a cursor of another list, else when the database fails.
    pub async fn templates(
        &self,
        organization: OrganizationId,
        filter: TemplateFilter,
        page: PageRequest,
    ) -> Result<Page<SessionTemplate>, Error> {
        let archived = filter.include_archived.then(String::new);
        let scope = CursorScope::of("templates", &[Some(organization.to_string()), archived]);
        let start = scope.resolve(page.start, SessionTemplateId)?;
        let one_more = page.limit + 1;
        let read = async |db: &mut _| {
            SessionTemplate::list(db, organization, filter, start, one_more).await
        };
        let templates = self.shared.database.run(read).await?;
        Ok(Page::of(templates, page.limit, &scope, |template: &SessionTemplate| template.id.0))
    }

    /// Adds a version to a template: what `change` makes of the current one. Changes wait
    /// for one another, so that none is lost, and `change` must not take long. One
    /// that changes nothing adds no version.
    ///
    /// # Errors
    /// What `change` fails with; [`Error::TemplateNotFound`] when there is none or it is archived,
    /// and else as [`Self::create_template`].
    pub async fn update_template<E: From<Error> + Send>(
        &self,
        organization: OrganizationId,
        id: SessionTemplateId,
        change: impl FnOnce(&TemplateSettings) -> Result<TemplateSettings, E> + Send,
    ) -> Result<SessionTemplate, E> {
        let mut name = None;
        let written = self.shared.database.run(async |db| {
            db.transaction(async |db: &mut AsyncPgConnection| {
                organization::lock_templates(db, organization).await?;
                let current = SessionTemplate::find(db, organization, id).await?;
                let Some(current) = current.filter(|template| template.archived_at.is_none())
                else {
                    return Ok(Err(Error::TemplateNotFound(id).into()));
                };
                let settings = match change(&current.settings) {
                    Ok(settings) if settings == current.settings => return Ok(Ok(current)),
                    Ok(settings) => settings,
                    Err(error) => return Ok(Err(error)),
                };
                if let Err(error) = check(&settings) {
                    return Ok(Err(error.into()));
                }
                name = Some(settings.name.clone());
                current.supersede(db, settings).await.map(Ok)
            })
            .await
        });
        let written = written.await;
        written.map_err(|error| E::from(name_taken(error, name)))?
    }

    /// Archives a template: it starts nothing any more, can still be read, and its name is free.
    /// To archive one again changes nothing.
    ///
    /// # Errors
    /// [`Error::TemplateNotFound`], else when the database fails.
    pub async fn archive_template(
        &self,
        organization: OrganizationId,
        id: SessionTemplateId,
    ) -> Result<(), Error> {
        let archived = self.shared.database.run(async |db| {
            db.transaction(async |db: &mut AsyncPgConnection| {
                organization::lock_templates(db, organization).await?;
                let current = SessionTemplate::find(db, organization, id).await?;
                if let Some(template) = &current {
                    template.archive(db).await?;
                }
                Ok(current.is_some())
            })
            .await
        });
        if archived.await? { Ok(()) } else { Err(Error::TemplateNotFound(id)) }
    }
}

fn check(settings: &TemplateSettings) -> Result<(), Error> {
    let contradictions = settings.contradictions();
    if contradictions.is_empty() { Ok(()) } else { Err(Error::TemplateContradicts(contradictions)) }
}

/// An error of writing a template, with the name that was taken when that is what it tells.
fn name_taken(error: Error, name: Option<TemplateName>) -> Error {
    match (error, name) {
        (Error::Store(StoreError::Conflict(Constraint::TemplateName)), Some(name)) => {
            Error::TemplateNameTaken(name)
        }
        (error, _) => error,
    }
}
