//! Reading or replacing all templates of an organization at once, as for a template file.

use std::collections::BTreeMap;
use std::time::Duration;

use diesel_async::AsyncConnection;
use greenroom_domain::{Caller, OrganizationId, TemplateName};
use greenroom_store::{
    AsyncPgConnection, FoldedName, SessionTemplate, StoreError, TemplateSettings, organization,
    template,
};

use super::{check, name_conflict};
use crate::clock::Clock;
use crate::error::require_permission;
use crate::{Admin, Error, clock};

/// Time limit for work on a set, which may contain hundreds of templates, including the wait for a
/// connection. PostgreSQL limits each statement to 5 s.
const SET_TIMEOUT: Duration = Duration::from_mins(1);

/// The desired templates of an organization. A template is identified by its name, without regard
/// to case.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TemplateSet {
    /// The settings of each template.
    pub templates: Vec<TemplateSettings>,
    /// Whether to archive the current templates that are not in `templates`.
    pub prune: bool,
}

impl TemplateSet {
    /// Creates a set of templates.
    #[must_use]
    pub fn new(templates: Vec<TemplateSettings>, prune: bool) -> Self {
        Self { templates, prune }
    }
}

/// The change of one template.
#[derive(Debug, Clone, PartialEq)]
pub enum TemplateChange {
    /// No current template has this name: the template is created.
    Create(TemplateSettings),
    /// The settings differ: the template gets a new version.
    Change {
        /// The current version.
        current: SessionTemplate,
        /// The settings of the new version.
        settings: TemplateSettings,
    },
    /// The settings are equal: the template stays unchanged.
    Keep(SessionTemplate),
    /// The template is not in the set and is archived.
    Archive(SessionTemplate),
}

impl Admin {
    /// Changes the templates of the caller's organization to those of the set.
    ///
    /// Applies all changes in one transaction. An unchanged template gets no new version.
    /// Returns the changes in the order of the set, and then the archived templates.
    ///
    /// # Errors
    ///
    /// Returns [`Error::TemplateContradicts`] if fields of a template contradict each other.
    /// Returns [`Error::TemplateNameTaken`] if the set contains a name twice, or if a concurrent
    /// change takes the name. Returns [`Error::BackendOnly`] if the caller is an end user,
    /// [`Error::Store`] if the database fails or the changes take longer than one minute, and
    /// [`Error::Overloaded`] if no database connection becomes free in time.
    pub async fn apply_templates(
        &self,
        caller: &Caller,
        set: TemplateSet,
    ) -> Result<Vec<TemplateChange>, Error> {
        let organization = check_set(caller, &set)?;
        let mut current_name = None;
        let written = self.database.run_within(SET_TIMEOUT, async |db| {
            db.transaction(async |db: &mut AsyncPgConnection| {
                organization::lock_templates(db, organization).await?;
                let changes = match changes(db, organization, set).await? {
                    Ok(changes) => changes,
                    Err(error) => return Ok(Err(error)),
                };
                // After the check of the set, because a refused set must write nothing.
                organization::ensure(db, organization).await?;
                for change in &changes {
                    current_name = Some(change.name().clone());
                    change.write(db, organization, self.clock).await?;
                }
                Ok(Ok(changes))
            })
            .await
        });
        let written = written.await;
        written.map_err(|error| name_conflict(error, current_name))?
    }

    /// Returns the changes that [`apply_templates`](Self::apply_templates) would make, without
    /// making them.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`apply_templates`](Self::apply_templates).
    pub async fn compare_templates(
        &self,
        caller: &Caller,
        set: TemplateSet,
    ) -> Result<Vec<TemplateChange>, Error> {
        let organization = check_set(caller, &set)?;
        let compare = async |db: &mut _| changes(db, organization, set).await;
        self.database.run_within(SET_TIMEOUT, compare).await?
    }

    /// Returns the settings of the templates of the caller's organization that are not archived,
    /// sorted by name.
    ///
    /// # Errors
    ///
    /// Returns [`Error::BackendOnly`] if the caller is an end user, [`Error::Store`] if the database
    /// fails or the query takes longer than one minute, and [`Error::Overloaded`] if no database
    /// connection becomes free in time.
    pub async fn current_templates(&self, caller: &Caller) -> Result<Vec<TemplateSettings>, Error> {
        require_permission(caller.may_manage_templates())?;
        let organization = caller.organization_id;
        let read = async |db: &mut _| template::current(db, organization).await;
        let current = self.database.run_within(SET_TIMEOUT, read).await?;
        Ok(current.into_iter().map(|(_, template)| template.settings).collect())
    }
}

/// Checks the caller and each template of the set. Returns the organization of the templates.
fn check_set(caller: &Caller, set: &TemplateSet) -> Result<OrganizationId, Error> {
    require_permission(caller.may_manage_templates())?;
    set.templates.iter().try_for_each(check)?;
    Ok(caller.organization_id)
}

/// Compares the set with the current templates.
async fn changes(
    db: &mut AsyncPgConnection,
    organization: OrganizationId,
    TemplateSet { templates, prune }: TemplateSet,
) -> Result<Result<Vec<TemplateChange>, Error>, StoreError> {
    let names = FoldedName::of(db, templates.iter().map(|settings| &settings.name)).await?;
    let current = template::current(db, organization).await?;
    Ok(difference(current, names.into_iter().zip(templates), prune))
}

fn difference(
    current: Vec<(FoldedName, SessionTemplate)>,
    desired: impl Iterator<Item = (FoldedName, TemplateSettings)>,
    prune: bool,
) -> Result<Vec<TemplateChange>, Error> {
    // `None` marks a name that the set has already used.
    let mut remaining: BTreeMap<_, _> =
        current.into_iter().map(|(name, template)| (name, Some(template))).collect();
    let mut changes = Vec::new();
    for (name, settings) in desired {
        changes.push(match remaining.insert(name, None) {
            None => TemplateChange::Create(settings),
            Some(Some(current)) if current.settings == settings => TemplateChange::Keep(current),
            Some(Some(current)) => TemplateChange::Change { current, settings },
            Some(None) => return Err(Error::TemplateNameTaken(settings.name)),
        });
    }
    if prune {
        changes.extend(remaining.into_values().flatten().map(TemplateChange::Archive));
    }
    Ok(changes)
}

impl TemplateChange {
    /// Returns the name that the template has after the change.
    #[must_use]
    pub fn name(&self) -> &TemplateName {
        match self {
            Self::Create(settings) | Self::Change { settings, .. } => &settings.name,
            Self::Keep(current) | Self::Archive(current) => &current.settings.name,
        }
    }

    async fn write(
        &self,
        db: &mut AsyncPgConnection,
        organization: OrganizationId,
        clock: Clock,
    ) -> Result<(), StoreError> {
        match self {
            Self::Create(settings) => {
                let id = clock::template_id(clock.now());
                template::insert(db, organization, id, settings.clone()).await?;
            }
            Self::Change { current, settings } => {
                template::supersede(db, current, settings.clone()).await?;
            }
            Self::Archive(current) => template::archive(db, current).await?,
            Self::Keep(_) => {}
        }
        Ok(())
    }
}
