//! Reading or replacing all templates of an organization at once, as for a template file.

use std::collections::BTreeMap;

use diesel_async::AsyncConnection;
use greenroom_domain::{OrganizationId, TemplateName};
use greenroom_store::{
    AsyncPgConnection, FoldedName, SessionTemplate, StoreError, TemplateSettings, connect,
    organization,
};

use super::{check, name_conflict};
use crate::clock::Clock;
use crate::{Error, clock};

/// The desired templates of an organization. A template is identified by its name, without regard
/// to case.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateSet {
    /// The settings of each template.
    pub templates: Vec<TemplateSettings>,
    /// Whether to archive the current templates that are not in `templates`.
    pub prune: bool,
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

/// Changes an organization's templates to those of the set, in the database at `database_url`.
///
/// Applies all changes in one transaction. An unchanged template gets no new version.
/// Returns the changes in the order of the set, and then the archived templates.
///
/// # Errors
///
/// Returns [`Error::TemplateContradicts`] if fields of a template contradict each other. Returns
/// [`Error::TemplateNameTaken`] if the set contains a name twice, or if a concurrent change takes
/// the name. Returns [`Error::Store`] if the database fails.
pub async fn apply_templates(
    database_url: &str,
    organization: OrganizationId,
    set: TemplateSet,
) -> Result<Vec<TemplateChange>, Error> {
    set.templates.iter().try_for_each(check)?;
    let mut current_name = None;
    let mut db = connect(database_url).await.map_err(StoreError::from)?;
    let written = db.transaction(async |db: &mut AsyncPgConnection| {
        organization::lock_templates(db, organization).await?;
        let changes = match changes(db, organization, set).await? {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error)),
        };
        // After the check of the set, because a refused set must write nothing.
        organization::ensure(db, organization).await?;
        for change in &changes {
            current_name = Some(change.name().clone());
            change.write(db, organization).await?;
        }
        Ok(Ok(changes))
    });
    let written: Result<_, StoreError> = written.await;
    written.map_err(|error| name_conflict(error.into(), current_name))?
}

/// Returns the changes that [`apply_templates`] would make, without making them.
///
/// # Errors
///
/// Returns the same errors as [`apply_templates`].
pub async fn compare_templates(
    database_url: &str,
    organization: OrganizationId,
    set: TemplateSet,
) -> Result<Vec<TemplateChange>, Error> {
    set.templates.iter().try_for_each(check)?;
    let mut db = connect(database_url).await.map_err(StoreError::from)?;
    changes(&mut db, organization, set).await?
}

/// Returns the settings of an organization's templates that are not archived, sorted by name.
///
/// # Errors
///
/// Returns a [`StoreError`] if the database fails.
pub async fn current_templates(
    database_url: &str,
    organization: OrganizationId,
) -> Result<Vec<TemplateSettings>, StoreError> {
    let mut db = connect(database_url).await?;
    let current = SessionTemplate::current(&mut db, organization).await?;
    Ok(current.into_iter().map(|(_, template)| template.settings).collect())
}

/// Compares the set with the current templates.
async fn changes(
    db: &mut AsyncPgConnection,
    organization: OrganizationId,
    TemplateSet { templates, prune }: TemplateSet,
) -> Result<Result<Vec<TemplateChange>, Error>, StoreError> {
    let names = FoldedName::of(db, templates.iter().map(|settings| &settings.name)).await?;
    let current = SessionTemplate::current(db, organization).await?;
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
    ) -> Result<(), StoreError> {
        match self {
            Self::Create(settings) => {
                let id = clock::template_id(Clock::System.now());
                SessionTemplate::insert(db, organization, id, settings.clone()).await?;
            }
            Self::Change { current, settings } => {
                current.supersede(db, settings.clone()).await?;
            }
            Self::Archive(current) => current.archive(db).await?,
            Self::Keep(_) => {}
        }
        Ok(())
    }
}
