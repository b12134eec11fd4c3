//! Session templates. A row is one version of a template.

mod current;
mod settings;

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionTemplateId};

use crate::listed_row::load_listed;
use crate::schema::session_templates;
use crate::{ListedRow, PageStart, StoreError};

pub(crate) use self::settings::IS_USABLE;

pub use self::current::{FoldedName, current};
pub use self::settings::TemplateSettings;

const FIRST_VERSION: i32 = 1;

/// One version of a template.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = session_templates, check_for_backend(Pg))]
#[non_exhaustive]
pub struct SessionTemplate {
    /// The organization to which the template belongs.
    pub organization_id: OrganizationId,
    /// The same in all versions of the template.
    pub id: SessionTemplateId,
    /// 1 for the first version; each change of the settings adds 1.
    pub version: i32,
    /// The settings of this version.
    #[diesel(embed)]
    pub settings: TemplateSettings,
    /// When the first version was inserted.
    pub created_at: DateTime<Utc>,
    /// When this version was inserted.
    pub updated_at: DateTime<Utc>,
    /// When the template was archived. `None` means that it is not archived.
    pub archived_at: Option<DateTime<Utc>>,
}

/// Which templates a list shows.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TemplateFilter {
    /// Also lists archived templates. False by default.
    pub include_archived: bool,
}

impl TemplateFilter {
    /// Also shows archived templates, if `include_archived` is true.
    #[must_use]
    pub fn archived(self, include_archived: bool) -> Self {
        Self { include_archived, ..self }
    }
}

/// Whether an organization can start sessions from a template, and the reason if it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateAvailability {
    /// The organization has the template, and it is not archived.
    Startable,
    /// The organization has the template, but it has a setting that this version does not know or
    /// allow.
    Unusable,
    /// The organization has the template, but it is archived.
    Archived,
    /// The template belongs to another organization.
    Foreign,
    /// No organization has the template.
    Absent,
}

/// Inserts the first version of a template.
///
/// # Errors
/// Returns [`Constraint::TemplateName`](crate::Constraint::TemplateName) if the name is taken,
/// and another [`StoreError`] if the query fails.
pub async fn insert(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    id: SessionTemplateId,
    settings: TemplateSettings,
) -> Result<SessionTemplate, StoreError> {
    let first = Version { organization, id, number: FIRST_VERSION, created_at: None };
    insert_version(connection, first, settings).await
}

/// A version to insert.
struct Version {
    organization: OrganizationId,
    id: SessionTemplateId,
    number: i32,
    /// When the first version was inserted. `None` means that this is the first version.
    created_at: Option<DateTime<Utc>>,
}

async fn insert_version(
    connection: &mut AsyncPgConnection,
    version: Version,
    settings: TemplateSettings,
) -> Result<SessionTemplate, StoreError> {
    let created_at = sql::<Timestamptz>("coalesce(")
        .bind::<Nullable<Timestamptz>, _>(version.created_at)
        .sql(", now())");
    let row = (
        session_templates::organization_id.eq(version.organization),
        session_templates::id.eq(version.id),
        session_templates::version.eq(version.number),
        settings,
        session_templates::created_at.eq(created_at),
        session_templates::updated_at.eq(diesel::dsl::now),
    );
    let inserted = diesel::insert_into(session_templates::table)
        .values(row)
        .returning(SessionTemplate::as_returning())
        .get_result(connection)
        .await?;
    Ok(inserted)
}

/// Reads the current version of a template, archived or not. Returns `None` if the organization
/// has no such template.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn find(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    id: SessionTemplateId,
) -> Result<Option<SessionTemplate>, StoreError> {
    let found = session_templates::table
        .filter(session_templates::organization_id.eq(organization))
        .filter(session_templates::id.eq(id))
        .filter(session_templates::superseded_at.is_null())
        .select(SessionTemplate::as_select())
        .first(connection)
        .await
        .optional()?;
    Ok(found)
}

/// Inserts the version that follows `current`.
///
/// `current` must be the current version, read in the same transaction after
/// [`lock_templates`](crate::organization::lock_templates).
///
/// # Errors
/// Returns [`Constraint::TemplateName`](crate::Constraint::TemplateName) if the name is taken,
/// and another [`StoreError`] if a query fails.
pub async fn supersede(
    connection: &mut AsyncPgConnection,
    current: &SessionTemplate,
    settings: TemplateSettings,
) -> Result<SessionTemplate, StoreError> {
    // Before the insert, because a unique index allows one current version per id.
    diesel::update(session_templates::table.find((
        current.organization_id,
        current.id,
        current.version,
    )))
    .set(session_templates::superseded_at.eq(diesel::dsl::now))
    .execute(connection)
    .await?;
    let next = Version {
        organization: current.organization_id,
        id: current.id,
        number: current.version + 1,
        created_at: Some(current.created_at),
    };
    insert_version(connection, next, settings).await
}

/// Archives the template. If it is already archived, its `archived_at` stays unchanged.
///
/// `current` must be the current version, as for [`supersede`].
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn archive(
    connection: &mut AsyncPgConnection,
    current: &SessionTemplate,
) -> Result<(), StoreError> {
    let this =
        session_templates::table.find((current.organization_id, current.id, current.version));
    diesel::update(this.filter(session_templates::archived_at.is_null()))
        .set(session_templates::archived_at.eq(diesel::dsl::now))
        .execute(connection)
        .await?;
    Ok(())
}

/// Lists the current versions of an organization's templates, newest template first. A row that
/// cannot be decoded does not hide the others.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn list(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    filter: TemplateFilter,
    start: PageStart<SessionTemplateId>,
    limit: i64,
) -> Result<Vec<ListedRow<SessionTemplate>>, StoreError> {
    let mut query = session_templates::table
        .filter(session_templates::organization_id.eq(organization))
        .filter(session_templates::superseded_at.is_null())
        .order(session_templates::id.desc())
        .limit(limit)
        .select(SessionTemplate::as_select())
        .into_boxed();
    match start {
        PageStart::Offset(0) => {}
        PageStart::Offset(offset) => query = query.offset(offset),
        PageStart::After(id) => query = query.filter(session_templates::id.lt(id)),
    }
    if !filter.include_archived {
        query = query.filter(session_templates::archived_at.is_null());
    }
    load_listed(connection, query).await
}

/// Finds out whether an organization can start sessions from a template.
///
/// This is the only query on the request path that reads rows of other organizations, because
/// it distinguishes a foreign template from an absent one.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn availability(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    id: SessionTemplateId,
) -> Result<TemplateAvailability, StoreError> {
    let found: Option<(OrganizationId, bool, bool)> = session_templates::table
        .filter(session_templates::id.eq(id))
        .filter(session_templates::superseded_at.is_null())
        .select((
            session_templates::organization_id,
            session_templates::archived_at.is_not_null(),
            sql::<Bool>(IS_USABLE),
        ))
        .first(connection)
        .await
        .optional()?;
    Ok(match found {
        None => TemplateAvailability::Absent,
        Some((owner, ..)) if owner != organization => TemplateAvailability::Foreign,
        Some((_, true, _)) => TemplateAvailability::Archived,
        Some((_, false, false)) => TemplateAvailability::Unusable,
        Some((_, false, true)) => TemplateAvailability::Startable,
    })
}
