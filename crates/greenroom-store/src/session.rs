//! Sessions: the columns that the API shows, and the queries that read them.

mod find;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::AsyncPgConnection;
use greenroom_domain::{
    AgentStatus, EnabledPanels, EndReason, JsonObject, Lenient, ModalityProfile, OrganizationId,
    PageLimit, ParticipantIdentity, RoomCreation, RoomName, SessionId, SessionStatus,
    SessionTemplateId, Stored, UserId,
};

use crate::listed_row::load_listed;
use crate::schema::sessions;
use crate::sql::{OPEN, PlannedOnce};
use crate::{ListedRow, PageStart, StoreError};

pub use self::find::find_many;

/// Maximum difference between a process's clock, which dates ids, and PostgreSQL's, which dates
/// `created_at`. A list that is filtered by time omits sessions of processes with a larger
/// difference.
const MAX_CLOCK_DIFFERENCE: TimeDelta = TimeDelta::days(2);

/// A bound that is earlier than all sessions. PostgreSQL has no times before 4714 BC.
const EARLIEST: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// Maximum number of sessions of a list, including the one that shows that there is a next page.
const MAX_LISTED: u16 = PageLimit::MAX + 1;

/// The columns of a session that the API shows. Values that this version does not know, and texts
/// that break a rule, are decoded for display. [`SessionSetup`](crate::SessionSetup) and
/// the rows that the keeper reads are decoded strictly.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = sessions, check_for_backend(Pg))]
#[non_exhaustive]
pub struct Session {
    /// The organization to which the session belongs.
    pub organization_id: OrganizationId,
    /// A UUID of version 7 with the time of the process that started the session, so that ids sort
    /// by creation time as far as the clocks of the processes agree.
    pub id: SessionId,
    /// The template that the session was started from.
    pub session_template_id: SessionTemplateId,
    /// The version of the template that the session was started from. Never changes.
    pub session_template_version: i32,
    /// `None` means that the user is a guest.
    pub user_id: Option<Stored<UserId>>,
    /// The tracks that the user may publish. `None` means all.
    pub modality_profile: Option<Lenient<ModalityProfile>>,
    /// `None` leaves the choice to the client.
    pub enabled_panels: Option<EnabledPanels>,
    /// At most 4 KiB as JSON. `None` means that the start set none, or that core removed it because
    /// the caller may not read it.
    pub metadata: Option<JsonObject>,
    /// The LiveKit room. Unique across organizations.
    pub room_name: Stored<RoomName>,
    /// The LiveKit identity of the user.
    pub participant_identity: Stored<ParticipantIdentity>,
    /// The template's value, or `on_join` if the start continued without LiveKit.
    pub room_creation: Lenient<RoomCreation>,
    /// `ended`, `expired` and `failed` are final.
    pub status: Lenient<SessionStatus>,
    /// Keeps its last value after the session is over.
    pub agent_status: Lenient<AgentStatus>,
    /// `None` until the session is over.
    pub end_reason: Option<Lenient<EndReason>>,
    /// The latest expiry of the issued tokens.
    pub token_expiry: DateTime<Utc>,
    /// Time of the start by PostgreSQL's clock, in milliseconds.
    pub created_at: DateTime<Utc>,
    /// When the session became active. `None` until then.
    pub started_at: Option<DateTime<Utc>>,
    /// When the session ended, expired or failed. `None` until then.
    pub ended_at: Option<DateTime<Utc>>,
    /// The session expires if the user has not joined by this time.
    pub join_by: DateTime<Utc>,
}

/// Conditions on the sessions of a list. The default lists all sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionFilter {
    /// Sessions with one of these statuses. If empty, sessions with any status.
    pub status: Vec<SessionStatus>,
    /// Sessions of this user. `None` means all users and guests.
    pub user_id: Option<UserId>,
    /// Sessions from any version of this template. `None` means all templates.
    pub session_template_id: Option<SessionTemplateId>,
    /// Sessions that were created at this time or later, in milliseconds. `None` means no bound.
    /// Sessions that were started by a process whose clock differs from PostgreSQL's by more than
    /// two days may be missing.
    pub created_after: Option<DateTime<Utc>>,
    /// Sessions that were created before this time, in milliseconds. `None` means no bound.
    /// Sessions that were started by a process whose clock differs from PostgreSQL's by more than
    /// two days may be missing.
    pub created_before: Option<DateTime<Utc>>,
}

/// Lists up to `limit` sessions of an organization, newest first. `limit` is at most one more than
/// [`PageLimit::MAX`]. A row that cannot be decoded does not hide the others.
///
/// No index supports a filter on a template or on final statuses. Such a query may scan all
/// sessions of the organization until PostgreSQL cancels it after 5 s.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn list(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    filter: &SessionFilter,
    start: PageStart<SessionId>,
    limit: i64,
) -> Result<Vec<ListedRow<Session>>, StoreError> {
    let mut query = sessions::table
        .filter(sessions::organization_id.eq(organization))
        .order(sessions::id.desc())
        .select(Session::as_select())
        .into_boxed();
    match start {
        PageStart::Offset(0) => {}
        PageStart::Offset(offset) => query = query.offset(offset),
        PageStart::After(id) => query = query.filter(sessions::id.lt(id)),
    }
    if *filter == SessionFilter::default() {
        return load_listed(connection, PlannedOnce { list: query, max: MAX_LISTED, limit }).await;
    }
    query = query.limit(limit);
    if !filter.status.is_empty() {
        query = query.filter(sessions::status.eq_any(&filter.status));
        if filter.status.iter().all(|status| SessionStatus::OPEN.contains(status)) {
            // A literal: with a bind parameter the planner cannot use the index
            // `sessions_live`.
            query = query.filter(sql::<Bool>(OPEN));
        }
    }
    if let Some(user) = &filter.user_id {
        query = query.filter(sessions::user_id.eq(user));
    }
    if let Some(template) = filter.session_template_id {
        query = query.filter(sessions::session_template_id.eq(template));
    }
    // The condition on the id lets PostgreSQL use the primary key.
    if let Some(at) = filter.created_after.map(|at| at.max(EARLIEST)) {
        let first = SessionId::first_from(at - MAX_CLOCK_DIFFERENCE);
        query = query.filter(sessions::created_at.ge(at)).filter(sessions::id.ge(first));
    }
    if let Some(at) = filter.created_before.map(|at| at.max(EARLIEST)) {
        let end = SessionId::first_from(at.checked_add_signed(MAX_CLOCK_DIFFERENCE).unwrap_or(at));
        query = query.filter(sessions::created_at.lt(at)).filter(sessions::id.lt(end));
    }
    load_listed(connection, query).await
}
