//! All templates of an organization at once: as a file says them, or into one.

use std::collections::BTreeMap;

use diesel_async::AsyncConnection;
use greenroom_domain::{OrganizationId, TemplateName};
use greenroom_store::{
    AsyncPgConnection, FoldedName, SessionTemplate, StoreError, TemplateSettings, connect,
    organization,
};

use super::{check, name_taken};
use crate::Error;
use crate::clock::{self, Clock};

/// What the templates of an organization shall be. Each is known by its name, without regard to
/// case.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateSet {
    /// What each of them is set to.
    pub templates: Vec<TemplateSettings>,
    /// Archives the living templates that are not among these, which are else left alone.
    pub prune: bool,
}

/// What becomes of one template.
#[derive(Debug, Clone, PartialEq)]
pub enum TemplateChange {
    /// There is none of this name: it gets its first version.
    Create(TemplateSettings),
    /// It gets its next version.
    Change {
        /// The version there is.
        current: SessionTemplate,
        /// What the next is set to.
        settings: TemplateSettings,
    },
    /// It is as it shall be.
    Keep(SessionTemplate),
    /// It is pruned.
    Archive(SessionTemplate),
}

/// Makes an organization's templates what the set says, in the database of this URL: all of it or,
/// when anything fails, nothing. What is so already gets no new version.
///
/// The changes come in the order of the set; what is archived comes last.
///
/// # Errors
/// [`Error::TemplateContradicts`]; [`Error::TemplateNameTaken`] when the set has a name twice, or
/// somebody else takes it at the same time; else when the database fails.
pub async fn apply_templates(
    database_url: &str,
    organization: OrganizationId,
    set: TemplateSet,
) -> Result<Vec<TemplateChange>, Error> {
    set.templates.iter().try_for_each(check)?;
    let mut writing = None;
    let mut db = connect(database_url).await.map_err(StoreError::from)?;
    let written = db.transaction(async |db: &mut AsyncPgConnection| {
        organization::lock_templates(db, organization).await?;
        let changes = match changes(db, organization, set).await? {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error)),
        };
        // Not before: a set that is refused writes nothing.
        organization::ensure(db, organization).await?;
        for change in &changes {
            writing = Some(change.name().clone());
            change.write(db, organization).await?;
        }
        Ok(Ok(changes))
    });
    let written: Result<_, StoreError> = written.await;
    written.map_err(|error| name_taken(error.into(), writing))?
}

/// What [`apply_templates`] would do, and does not.
///
/// # Errors
/// As [`apply_templates`].
pub async fn compare_templates(
    database_url: &str,
    organization: OrganizationId,
    set: TemplateSet,
) -> Result<Vec<TemplateChange>, Error> {
    set.templates.iter().try_for_each(check)?;
    let mut db = connect(database_url).await.map_err(StoreError::from)?;
    changes(&mut db, organization, set).await?
}

/// The settings of an organization's living templates, in the order of their names.
///
/// # Errors
/// When the database fails.
pub async fn current_templates(
    database_url: &str,
    organization: OrganizationId,
) -> Result<Vec<TemplateSettings>, StoreError> {
    let mut db = connect(database_url).await?;
    let living = SessionTemplate::current(&mut db, organization).await?;
    Ok(living.into_iter().map(|(_, template)| template.settings).collect())
}

/// What the set changes in what is there.
async fn changes(
    db: &mut AsyncPgConnection,
    organization: OrganizationId,
    TemplateSet { templates, prune }: TemplateSet,
) -> Result<Result<Vec<TemplateChange>, Error>, StoreError> {
    let names = FoldedName::of(db, templates.iter().map(|settings| &settings.name)).await?;
    let living = SessionTemplate::current(db, organization).await?;
    Ok(difference(living, names.into_iter().zip(templates), prune))
}

fn difference(
    living: Vec<(FoldedName, SessionTemplate)>,
    wanted: impl Iterator<Item = (FoldedName, TemplateSettings)>,
    prune: bool,
) -> Result<Vec<TemplateChange>, Error> {
    // Each of the living until the set has named it.
    let mut living: BTreeMap<_, _> =
        living.into_iter().map(|(name, template)| (name, Some(template))).collect();
    let mut changes = Vec::new();
    for (name, settings) in wanted {
        changes.push(match living.insert(name, None) {
            None => TemplateChange::Create(settings),
            Some(Some(current)) if current.settings == settings => TemplateChange::Keep(current),
            Some(Some(current)) => TemplateChange::Change { current, settings },
            Some(None) => return Err(Error::TemplateNameTaken(settings.name)),
        });
    }
    if prune {
        changes.extend(living.into_values().flatten().map(TemplateChange::Archive));
    }
    Ok(changes)
}

impl TemplateChange {
    /// The template's name, as it will be.
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
