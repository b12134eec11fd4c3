//! Session templates: creating, reading, changing and archiving them.

mod set;

use diesel_async::{AsyncConnection, AsyncPgConnection};
use greenroom_domain::{Caller, SessionTemplateId, TemplateName};
use greenroom_store::{
    Constraint, SessionTemplate, StoreError, TemplateFilter, TemplateSettings, organization,
    template,
};

use crate::error::require_permission;
use crate::page::{CursorScope, Page, PageRequest};
use crate::{Error, Greenroom, clock};

pub use self::set::{TemplateChange, TemplateSet};

impl Greenroom {
    /// Creates a template of the caller's organization, and returns its first version.
    ///
    /// The first template of an organization also creates the organization's row.
    ///
    /// # Errors
    ///
    /// Returns [`Error::TemplateContradicts`] if fields of `settings` contradict each other, and
    /// [`Error::TemplateNameTaken`] if another template that is not archived has the name. Returns
    /// [`Error::BackendOnly`] if the caller is an end user, [`Error::Store`] if the database fails,
    /// and [`Error::Overloaded`] if no database connection becomes free in time.
    pub async fn create_template(
        &self,
        caller: &Caller,
        settings: TemplateSettings,
    ) -> Result<SessionTemplate, Error> {
        require_permission(caller.may_manage_templates())?;
        check(&settings)?;
        let organization = caller.organization_id;
        let id = clock::template_id(self.shared.clock.now());
        let name = Some(settings.name.clone());
        let written = self.shared.database.run(async |db| {
            db.transaction(async |db: &mut AsyncPgConnection| {
                organization::ensure(db, organization).await?;
                template::insert(db, organization, id, settings).await
            })
            .await
        });
        written.await.map_err(|error| name_conflict(error, name))
    }

    /// Returns the current version of a template, or the last version of an archived template.
    ///
    /// `None` means that the template does not exist or belongs to another organization.
    ///
    /// # Errors
    ///
    /// Returns [`Error::BackendOnly`] if the caller is an end user, [`Error::Store`] if the database
    /// fails, and [`Error::Overloaded`] if no database connection becomes free in time.
    pub async fn template(
        &self,
        caller: &Caller,
        id: SessionTemplateId,
    ) -> Result<Option<SessionTemplate>, Error> {
        require_permission(caller.may_manage_templates())?;
        let organization = caller.organization_id;
        let find = async |db: &mut _| template::find(db, organization, id).await;
        self.shared.database.run(find).await
    }

    /// Returns a page of the templates of the caller's organization, newest first. A template that
    /// this version cannot decode is left out and logged, so a page may have fewer items than its
    /// limit.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidCursor`] if the cursor is malformed or belongs to another list.
    /// Returns [`Error::BackendOnly`] if the caller is an end user, [`Error::Store`] if the database
    /// fails, and [`Error::Overloaded`] if no database connection becomes free in time.
    pub async fn templates(
        &self,
        caller: &Caller,
        filter: TemplateFilter,
        page: PageRequest,
    ) -> Result<Page<SessionTemplate>, Error> {
        require_permission(caller.may_manage_templates())?;
        let organization = caller.organization_id;
        let archived = filter.include_archived.then(String::new);
        let scope = CursorScope::new("templates", &[Some(organization.to_string()), archived]);
        let limit = page.query_limit();
        let start = scope.resolve(page.start, SessionTemplateId)?;
        let list = async |db: &mut _| template::list(db, organization, filter, start, limit).await;
        let templates = self.shared.database.run(list).await?;
        Ok(Page::new(templates, page.limit, &scope, |template| template.id).without_undecodable())
    }

    /// Applies `change` to the current settings of a template, and returns the new version.
    ///
    /// Concurrent changes of the templates of an organization wait for each other, so that no
    /// change is lost. `change` runs while the templates are locked and must not take long. If the
    /// settings do not change, no version is added, and the current version is returned.
    ///
    /// # Errors
    ///
    /// Returns the error of `change` if it fails, and [`Error::TemplateNotFound`] if the template
    /// does not exist, belongs to another organization or is archived. Returns the errors of
    /// [`create_template`](Self::create_template) for the changed settings.
    pub async fn update_template<E: From<Error> + Send>(
        &self,
        caller: &Caller,
        id: SessionTemplateId,
        change: impl FnOnce(&TemplateSettings) -> Result<TemplateSettings, E> + Send,
    ) -> Result<SessionTemplate, E> {
        require_permission(caller.may_manage_templates())?;
        let organization = caller.organization_id;
        let mut name = None;
        let written = self.shared.database.run(async |db| {
            db.transaction(async |db: &mut AsyncPgConnection| {
                organization::lock_templates(db, organization).await?;
                let current = template::find(db, organization, id).await?;
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
                template::supersede(db, &current, settings).await.map(Ok)
            })
            .await
        });
        let written = written.await;
        written.map_err(|error| E::from(name_conflict(error, name)))?
    }

    /// Archives a template.
    ///
    /// An archived template can still be read, but it starts no sessions, and its name can be used
    /// again. Archiving an archived template changes nothing.
    ///
    /// # Errors
    ///
    /// Returns [`Error::TemplateNotFound`] if the template does not exist or belongs to another
    /// organization. Returns [`Error::BackendOnly`] if the caller is an end user, [`Error::Store`]
    /// if the database fails, and [`Error::Overloaded`] if no database connection becomes free in
    /// time.
    pub async fn archive_template(
        &self,
        caller: &Caller,
        id: SessionTemplateId,
    ) -> Result<(), Error> {
        require_permission(caller.may_manage_templates())?;
        let organization = caller.organization_id;
        let archived = self.shared.database.run(async |db| {
            db.transaction(async |db: &mut AsyncPgConnection| {
                organization::lock_templates(db, organization).await?;
                let current = template::find(db, organization, id).await?;
                if let Some(current) = &current {
                    template::archive(db, current).await?;
                }
                Ok(current.is_some())
            })
            .await
        });
        if archived.await? { Ok(()) } else { Err(Error::TemplateNotFound(id)) }
    }
}

fn check(settings: &TemplateSettings) -> Result<(), Error> {
    let violations = settings.violations();
    if violations.is_empty() { Ok(()) } else { Err(Error::TemplateContradicts(violations)) }
}

/// Converts a conflict of template names to [`Error::TemplateNameTaken`].
fn name_conflict(error: Error, name: Option<TemplateName>) -> Error {
    match (error, name) {
        (Error::Store(StoreError::Conflict(Constraint::TemplateName)), Some(name)) => {
            Error::TemplateNameTaken(name)
        }
        (error, _) => error,
    }
}
