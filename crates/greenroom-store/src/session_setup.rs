//! A session together with the settings that open its room and dispatch its agent.

use chrono::{DateTime, Utc};
use diesel::deserialize;
use diesel::dsl::SqlTypeOf;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::template::ReconnectWindow;
use greenroom_domain::{
    AgentName, Invalid, JsonObject, Lenient, ModalityProfile, OrganizationId,
    ParticipantAttributes, ParticipantIdentity, ParticipantName, RoomCreation, RoomName, SessionId,
    Stored, UserId,
};

use crate::{Session, StoreError};

/// A session with the values that its join token and its room need. A session of which one of these
/// values is unknown or breaks a rule cannot be decoded: a token for the room `""`, for example,
/// would admit its user to every room.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionSetup {
    /// The columns that the API shows.
    pub session: Session,
    /// `None` means that the user is a guest.
    pub user_id: Option<UserId>,
    /// The LiveKit room. Unique across organizations.
    pub room_name: RoomName,
    /// The LiveKit identity of the user.
    pub participant_identity: ParticipantIdentity,
    /// The tracks that the user may publish. `None` means all.
    pub modality_profile: Option<ModalityProfile>,
    /// The template's value, or `on_join` if the start continued without LiveKit.
    pub room_creation: RoomCreation,
    /// Display name of the user in the room. `None` means the `user_id`; a guest then has no name.
    pub participant_name: Option<ParticipantName>,
    /// Attributes of the user in the room. `None` means that the start set none.
    pub participant_attributes: Option<ParticipantAttributes>,
    /// `None` means that the template has no agent.
    pub agent_name: Option<AgentName>,
    /// The template's metadata for the agent. Empty if the template sets none.
    pub agent_metadata: JsonObject,
    /// Time that the room waits for a user who left: 5 to 3,600 seconds.
    pub reconnect_window: ReconnectWindow,
    /// Seconds left until `join_by` by PostgreSQL's clock, at least 0.
    pub join_within: i32,
}

/// A committed session, with the values that its join token needs.
#[derive(Debug, Clone, Queryable)]
#[non_exhaustive]
pub struct StartedRow {
    /// The session and the settings of its room.
    pub setup: SessionSetup,
    /// Expiry of the token of this start. [`Session::token_expiry`](crate::Session::token_expiry)
    /// is the latest expiry of all tokens.
    pub token_expiry: DateTime<Utc>,
    /// When the token of this start is issued, by PostgreSQL's clock, in whole seconds.
    pub token_issued_at: DateTime<Utc>,
    /// Whether the room is known to have been opened.
    pub room_created: bool,
}

impl Queryable<SessionSetupSql, Pg> for SessionSetup {
    type Row = (
        Session,
        Option<ParticipantName>,
        Option<ParticipantAttributes>,
        Option<AgentName>,
        JsonObject,
        ReconnectWindow,
        i32,
    );

    fn build(row: Self::Row) -> deserialize::Result<Self> {
        let (session, name, attributes, agent_name, agent_metadata, reconnect_window, join_within) =
            row;
        let user_id = session.user_id.as_ref().map(Stored::checked).transpose();
        let profile = session.modality_profile.map(Lenient::checked).transpose();
        Ok(Self {
            room_name: in_column("room_name", session.room_name.checked())?,
            user_id: in_column("user_id", user_id)?,
            participant_identity: in_column(
                "participant_identity",
                session.participant_identity.checked(),
            )?,
            modality_profile: in_column("modality_profile", profile)?,
            room_creation: in_column("room_creation", session.room_creation.checked())?,
            session,
            participant_name: name,
            participant_attributes: attributes,
            agent_name,
            agent_metadata,
            reconnect_window,
            join_within,
        })
    }
}

/// Adds the name of the column to the reason why its value cannot be used.
fn in_column<T>(column: &str, value: Result<T, Invalid>) -> deserialize::Result<T> {
    value.map_err(|invalid| format!("{column} {invalid}").into())
}

/// The SQL types of a [`StartedRow`].
pub(crate) type StartedRowSql = (SessionSetupSql, Timestamptz, Timestamptz, Bool);

impl SessionSetup {
    /// Reads the setup of a session. Returns `None` if the organization has no such session.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn find(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
    ) -> Result<Option<Self>, StoreError> {
        let select = SelectSessionSetup { organization, id, columns: SessionSetupColumns::new() };
        Ok(select.get_result(connection).await.optional()?)
    }
}

/// The columns of a [`SessionSetup`]. The statement must name the row of the session `sessions`,
/// and the row of its template `template`.
pub(crate) struct SessionSetupColumns {
    session: <Session as Selectable<Pg>>::SelectExpression,
}

/// The SQL types of a [`SessionSetup`].
pub(crate) type SessionSetupSql =
    (SessionSql, Nullable<Text>, Nullable<Jsonb>, Nullable<Text>, Jsonb, Integer, Integer);

type SessionSql = SqlTypeOf<<Session as Selectable<Pg>>::SelectExpression>;

impl SessionSetupColumns {
    pub(crate) fn new() -> Self {
        Self { session: <Session as Selectable<Pg>>::construct_selection() }
    }

    pub(crate) fn push<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.session.walk_ast(out.reborrow())?;
        out.push_sql(
            ", sessions.participant_name, sessions.participant_attributes,
               template.agent_name, template.agent_metadata, template.reconnect_window_seconds,
               greatest(0, ceil(extract(epoch from sessions.join_by - now())))::integer",
        );
        Ok(())
    }
}

/// The join condition of a session and the version of its template that it was started from.
pub(crate) const TEMPLATE_JOIN: &str = "template.organization_id = sessions.organization_id
    and template.id = sessions.session_template_id and template.version = sessions.session_template_version";

struct SelectSessionSetup {
    organization: OrganizationId,
    id: SessionId,
    columns: SessionSetupColumns,
}

impl QueryId for SelectSessionSetup {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for SelectSessionSetup {
    type SqlType = SessionSetupSql;
}

impl QueryFragment<Pg> for SelectSessionSetup {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("select ");
        self.columns.push(out.reborrow())?;
        out.push_sql(" from sessions join session_templates template on ");
        out.push_sql(TEMPLATE_JOIN);
        out.push_sql(" where sessions.organization_id = ");
        out.push_bind_param::<Uuid, _>(&self.organization)?;
        out.push_sql(" and sessions.id = ");
        out.push_bind_param::<Uuid, _>(&self.id)
    }
}
