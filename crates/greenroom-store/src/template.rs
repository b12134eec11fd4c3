//! Session templates: one row is one version of one template.

mod current;

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::template::{
    AgentDeadline, Contradiction, JoinWindow, MaxDuration, ReconnectWindow, TokenTtl,
    contradictions,
};
use greenroom_domain::{
    AgentName, EnabledPanels, JsonObject, ModalityProfile, OnAgentHangup, OrganizationId,
    RoomCreation, SessionTemplateId, TemplateName,
};

use crate::schema::session_templates;
use crate::{PageStart, StoreError};

pub use current::FoldedName;

const FIRST_VERSION: i32 = 1;

/// What the template's author decides.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = session_templates, check_for_backend(Pg))]
#[diesel(treat_none_as_default_value = false)]
pub struct TemplateSettings {
    pub name: TemplateName,
    pub modality_profile: Option<ModalityProfile>,
    /// None leaves the choice to the client.
    pub enabled_panels: Option<EnabledPanels>,
    pub agent_name: Option<AgentName>,
    pub agent_metadata: JsonObject,
    pub agent_required: bool,
    /// None is the server's default.
    pub agent_deadline_seconds: Option<AgentDeadline>,
    pub on_agent_hangup: OnAgentHangup,
    pub room_creation: RoomCreation,
    pub join_window_seconds: JoinWindow,
    pub reconnect_window_seconds: ReconnectWindow,
    pub max_duration_seconds: MaxDuration,
    /// None is the server's default.
    pub token_ttl_seconds: Option<TokenTtl>,
}

impl TemplateSettings {
    /// The settings of a template that says nothing but its name.
    #[must_use]
    pub fn new(name: TemplateName) -> Self {
        Self {
            name,
            modality_profile: None,
            enabled_panels: None,
            agent_name: None,
            agent_metadata: JsonObject::default(),
            agent_required: false,
            agent_deadline_seconds: None,
            on_agent_hangup: OnAgentHangup::Keep,
            room_creation: RoomCreation::OnStart,
            join_window_seconds: JoinWindow::constant::<600>(),
            reconnect_window_seconds: ReconnectWindow::constant::<60>(),
            max_duration_seconds: MaxDuration::constant::<7_200>(),
            token_ttl_seconds: None,
        }
    }

    /// The fields that contradict one another.
    #[must_use]
    pub fn contradictions(&self) -> Vec<Contradiction> {
        contradictions(
            self.agent_name.as_ref(),
            self.agent_required,
            &self.agent_metadata,
            self.room_creation,
        )
    }
}

/// One version of a template.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = session_templates, check_for_backend(Pg))]
pub struct SessionTemplate {
    pub organization_id: OrganizationId,
    pub id: SessionTemplateId,
    pub version: i32,
    #[diesel(embed)]
    pub settings: TemplateSettings,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub archived_at: Option<DateTime<Utc>>,
}

/// Which templates a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct TemplateFilter {
    pub include_archived: bool,
}

/// How a template stands to an organization that cannot start it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateAvailability {
    /// It is the organization's own and living.
    Startable,
    /// It is the organization's own, and archived.
    Archived,
    /// It is another organization's.
    Foreign,
    /// There is none.
    Absent,
}

impl SessionTemplate {
    /// Writes the first version of a template.
    ///
    /// # Errors
    /// [`Constraint::TemplateName`](crate::Constraint::TemplateName) when the name is taken, else
    /// when the database fails.
    pub async fn insert(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionTemplateId,
        settings: TemplateSettings,
    ) -> Result<Self, StoreError> {
        use session_templates as columns;

        let row = (
            columns::organization_id.eq(organization),
            columns::id.eq(id),
            columns::version.eq(FIRST_VERSION),
            settings,
            columns::created_at.eq(diesel::dsl::now),
            columns::updated_at.eq(diesel::dsl::now),
        );
        let inserted = diesel::insert_into(session_templates::table)
            .values(row)
            .returning(Self::as_returning())
            .get_result(connection)
            .await?;
        Ok(inserted)
    }

    /// The current version, archived or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionTemplateId,
    ) -> Result<Option<Self>, StoreError> {
        let found = session_templates::table
            .filter(session_templates::organization_id.eq(organization))
            .filter(session_templates::id.eq(id))
            .filter(session_templates::superseded_at.is_null())
            .select(Self::as_select())
            .first(connection)
            .await
            .optional()?;
        Ok(found)
    }

    /// Adds the version that comes after this one, which must be the current one for as long as
    /// [`lock_templates`](crate::organization::lock_templates) holds.
    ///
    /// # Errors
    /// [`Constraint::TemplateName`](crate::Constraint::TemplateName) when the name is taken, else
    /// when the database fails.
    pub async fn supersede(
        &self,
        connection: &mut AsyncPgConnection,
        settings: TemplateSettings,
    ) -> Result<Self, StoreError> {
        use session_templates as columns;

        // Before the next is written: an id has one current version.
        diesel::update(columns::table.find((self.organization_id, self.id, self.version)))
            .set(columns::superseded_at.eq(diesel::dsl::now))
            .execute(connection)
            .await?;
        let row = (
            columns::organization_id.eq(self.organization_id),
            columns::id.eq(self.id),
            columns::version.eq(self.version + 1),
            settings,
            columns::created_at.eq(self.created_at),
            columns::updated_at.eq(diesel::dsl::now),
        );
        let inserted = diesel::insert_into(columns::table)
            .values(row)
            .returning(Self::as_returning())
            .get_result(connection)
            .await?;
        Ok(inserted)
    }

    /// Archives this version, on the same condition. One that is archived keeps its time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn archive(&self, connection: &mut AsyncPgConnection) -> Result<(), StoreError> {
        use session_templates as columns;

        let this = columns::table.find((self.organization_id, self.id, self.version));
        diesel::update(this.filter(columns::archived_at.is_null()))
            .set(columns::archived_at.eq(diesel::dsl::now))
            .execute(connection)
            .await?;
        Ok(())
    }

    /// The current versions of an organization's templates, newest template first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        filter: TemplateFilter,
        start: PageStart<SessionTemplateId>,
        limit: i64,
    ) -> Result<Vec<Self>, StoreError> {
        let mut query = session_templates::table
            .filter(session_templates::organization_id.eq(organization))
            .filter(session_templates::superseded_at.is_null())
            .order(session_templates::id.desc())
            .limit(limit)
            .select(Self::as_select())
            .into_boxed();
        match start {
            PageStart::Offset(0) => {}
            PageStart::Offset(offset) => query = query.offset(offset),
            PageStart::After(id) => query = query.filter(session_templates::id.lt(id)),
        }
        if !filter.include_archived {
            query = query.filter(session_templates::archived_at.is_null());
        }
        Ok(query.load(connection).await?)
    }

    /// Why a start found nothing to start: the one query that looks past its organization, so that
    /// a template of another one can be told from none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn availability(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionTemplateId,
    ) -> Result<TemplateAvailability, StoreError> {
        let found: Option<(OrganizationId, bool)> = session_templates::table
            .filter(session_templates::id.eq(id))
            .filter(session_templates::superseded_at.is_null())
            .select((
                session_templates::organization_id,
                session_templates::archived_at.is_not_null(),
            ))
            .first(connection)
            .await
            .optional()?;
        Ok(match found {
            None => TemplateAvailability::Absent,
            Some((owner, _)) if owner != organization => TemplateAvailability::Foreign,
            Some((_, true)) => TemplateAvailability::Archived,
            Some((_, false)) => TemplateAvailability::Startable,
        })
    }
}
