//! The statement of starts, which inserts sessions from the current versions of their templates.

mod rows;

use std::time::Duration;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::row::Row;
use diesel::sql_types::{self, Integer, Uuid};
use diesel_async::{AsyncConnectionCore, AsyncPgConnection};
use futures_util::TryStreamExt;
use greenroom_domain::lifecycle::JOB_ASSIGNMENT_TIMEOUT;
use greenroom_domain::{OrganizationId, SessionId};

use self::rows::Rows;
use crate::StoreError;
use crate::idempotency::resumable;
use crate::listed_row::decode_columns;
use crate::new_session::{NewSession, StartDefaults, TOKEN_ISSUED_AT, push_token_expiry};
use crate::open_sessions::push_open_sessions;
use crate::organization::{SessionLock, push_max_sessions};
use crate::session_setup::{SessionSetupColumns, StartedRow, StartedRowSql, TEMPLATE_JOIN};
use crate::sql::push_interval;
use crate::template::IS_USABLE;

impl NewSession {
    /// Inserts one session, or resumes one, as [`insert_all`](Self::insert_all) does.
    ///
    /// # Errors
    /// Returns the errors of [`insert_all`](Self::insert_all).
    pub async fn insert(
        &self,
        connection: &mut AsyncPgConnection,
        lock: Option<&SessionLock>,
    ) -> Result<Option<StartedRow>, StoreError> {
        let started = Self::insert_all(connection, &[self], lock, None).await?.pop();
        started.map(|(_, started)| started).transpose()
    }

    /// Inserts sessions in one statement. If a key is [implicit](crate::StartKey::Implicit) and its
    /// session is resumable, extends the `token_expiry` of that session instead. Returns the sessions
    /// that were inserted or resumed, in any order, each with the id of the new session. A resumed
    /// session that cannot be decoded is an error of this session alone.
    ///
    /// `lock` comes from [`lock_sessions`](crate::organization::lock_sessions) in the same
    /// transaction. With it, inserts only sessions of its organization. Without it, inserts only
    /// sessions of organizations that have no limit and whose open sessions are not counted. All
    /// sessions must have the same defaults. `lock_timeout` limits each wait for a lock, in practice for
    /// a transaction that holds one of the keys. `None` means no limit. A statement with `lock` ignores
    /// it.
    ///
    /// A session is not inserted if
    /// - the organization has no such template, or the template is archived,
    /// - the template has a setting that this version does not know,
    /// - the template names another agent,
    /// - another session holds the key, or an earlier one of `sessions` has it,
    /// - the organization has reached its limit, or must be locked and was not.
    ///
    /// # Errors
    /// Returns [`Constraint::RoomName`](crate::Constraint::RoomName) if another session has the
    /// room name, [`StoreError::Timeout`] after `lock_timeout`, and another [`StoreError`] if the
    /// query fails. Nothing is written then.
    pub async fn insert_all(
        connection: &mut AsyncPgConnection,
        sessions: &[&Self],
        lock: Option<&SessionLock>,
        lock_timeout: Option<Duration>,
    ) -> Result<Vec<(SessionId, Result<StartedRow, StoreError>)>, StoreError> {
        let Some(first) = sessions.first() else { return Ok(Vec::new()) };
        let locked = lock.map(SessionLock::organization);
        let rows = Rows::new(sessions.iter().copied().filter(|session| {
            locked.is_none_or(|organization| session.organization_id == organization)
        }));
        let insert = InsertSessions {
            resumes: rows.have_implicit_key(),
            rows,
            defaults: first.defaults,
            lock_timeout: lock_timeout.map_or(0, |time| time.as_millis()).to_string(),
            limit: lock.map_or(Limit::Unlocked, |lock| Limit::Locked {
                organization: lock.organization(),
                counted: lock.counted(),
            }),
            columns: SessionSetupColumns::new(),
        };
        match (insert.limit.is_locked(), insert.resumes) {
            (false, false) => load_started(connection, Text::<false, false>(insert)).await,
            (false, true) => load_started(connection, Text::<false, true>(insert)).await,
            (true, false) => load_started(connection, Text::<true, false>(insert)).await,
            (true, true) => load_started(connection, Text::<true, true>(insert)).await,
        }
    }
}

/// Loads the sessions of a statement, each decoded by itself.
async fn load_started<Q>(
    connection: &mut AsyncPgConnection,
    query: Q,
) -> Result<Vec<(SessionId, Result<StartedRow, StoreError>)>, StoreError>
where
    Q: Query + QueryFragment<Pg> + QueryId + Send,
{
    let mut rows = AsyncConnectionCore::load(connection, query).await?;
    let mut started = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let id = decode_columns::<SessionId, Uuid>(&row, 0..1)?;
        let columns = 1..row.field_count();
        started.push((id, decode_columns::<StartedRow, StartedRowSql>(&row, columns)));
    }
    Ok(started)
}

/// [`InsertSessions`] with one static query id per text. Each alternative has its own text: if a bind
/// parameter selected it, a custom plan could omit a part and look cheaper than the generic plan, so
/// PostgreSQL would plan every execution.
struct Text<'a, const LOCKED: bool, const RESUMES: bool>(InsertSessions<'a>);

/// Handwritten, because diesel's query builder cannot express an `insert … select` that also
/// returns columns of the selected table, and diesel prepares a `sql_query` anew for each
/// execution.
struct InsertSessions<'a> {
    /// Whether any session has an implicit key, so that the statement may resume one.
    resumes: bool,
    rows: Rows<'a>,
    defaults: StartDefaults,
    /// PostgreSQL's setting, in milliseconds. Zero means no limit.
    lock_timeout: String,
    limit: Limit,
    columns: SessionSetupColumns,
}

/// How the statement respects limits of open sessions.
enum Limit {
    /// Inserts nothing for organizations with a limit.
    Unlocked,
    /// All sessions belong to this organization, which the transaction has locked.
    Locked {
        organization: OrganizationId,
        /// Open sessions, if the lock had to count them.
        counted: Option<i64>,
    },
}

impl Limit {
    fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }
}

impl<const LOCKED: bool, const RESUMES: bool> QueryId for Text<'_, LOCKED, RESUMES> {
    type QueryId = Text<'static, LOCKED, RESUMES>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const LOCKED: bool, const RESUMES: bool> Query for Text<'_, LOCKED, RESUMES> {
    type SqlType = (Uuid, StartedRowSql);
}

impl<const LOCKED: bool, const RESUMES: bool> QueryFragment<Pg> for Text<'_, LOCKED, RESUMES> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.push(out)
    }
}

impl InsertSessions<'_> {
    fn push<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("with ");
        self.rows.push(&mut out)?;
        if self.resumes {
            self.push_resumed(&mut out)?;
        }
        out.push_sql(", startable as (");
        self.push_startable(&mut out)?;
        if self.resumes {
            out.push_sql(" where new.session_id not in (select new_id from resumed)");
        }
        out.push_sql("), ");
        self.push_within_limit(&mut out)?;
        out.push_sql(", ");
        self.push_insert(&mut out)?;
        out.push_sql(" select template.session_id, ");
        self.columns.push(out.reborrow())?;
        out.push_sql(", sessions.token_expiry, ");
        out.push_sql(TOKEN_ISSUED_AT);
        out.push_sql(
            ", false from sessions join template on template.session_id = sessions.id
               and template.organization_id = sessions.organization_id",
        );
        if self.resumes {
            out.push_sql(" union all select sessions.new_id, ");
            self.columns.push(out.reborrow())?;
            out.push_sql(", ");
            push_token_expiry(&self.defaults.token_ttl, "template", out.reborrow())?;
            out.push_sql(", ");
            out.push_sql(TOKEN_ISSUED_AT);
            out.push_sql(
                ", sessions.room_created_at is not null from resumed as sessions cross join lateral (
                   select * from session_templates template where ",
            );
            out.push_sql(TEMPLATE_JOIN);
            out.push_sql(" offset 0) as template");
        }
        Ok(())
    }

    /// Pushes the CTE `resumed`: the resumable sessions that hold the implicit keys of new ones, with
    /// `token_expiry` extended. Leaves `revision` unchanged, as `ReissueToken` does: a client that starts
    /// constantly must not cause the keeper's commits to be refused. Writes the sessions in the order of
    /// the primary key, as all statements that write several do.
    fn push_resumed<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let resumable = resumable();
        out.push_sql(
            ", held as (select new.session_id as new_id, holder.* from new cross join lateral (
                 select sessions.organization_id, sessions.id, sessions.ctid, (
                   select token_ttl_seconds from session_templates template where ",
        );
        out.push_sql(TEMPLATE_JOIN);
        out.push_sql(
            ") from sessions
               where sessions.organization_id = new.organization_id
                 and sessions.idempotency_key = new.idempotency_key and ",
        );
        out.push_sql(&resumable);
        out.push_sql(
            " offset 0) as holder where new.is_key_implicit order by holder.organization_id, holder.id),
             resumed as (update sessions set token_expiry = greatest(token_expiry, ",
        );
        push_token_expiry(&self.defaults.token_ttl, "held", out.reborrow())?;
        // A concurrent update moves the row to another `ctid`. The session is then not resumed.
        out.push_sql(") from held where sessions.ctid = held.ctid and ");
        out.push_sql(&resumable);
        out.push_sql(" returning sessions.*, held.new_id)");
        Ok(())
    }

    /// Pushes a query for the rows, each with the current version of its template.
    fn push_startable<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "select new.*, template.version, template.modality_profile, template.enabled_panels,
               template.agent_name, template.agent_metadata, template.room_creation,
               template.join_window_seconds, template.reconnect_window_seconds,
               template.token_ttl_seconds, organizations.is_counted, ",
        );
        push_max_sessions(&self.defaults.max_active_sessions, out)?;
        out.push_sql(
            " as max_sessions from new
              cross join lateral (
                select * from organizations where id = new.organization_id offset 0) as organizations
              cross join lateral (
                select * from session_templates
                where organization_id = new.organization_id and id = new.session_template_id
                  and superseded_at is null and archived_at is null
                  and agent_name is not distinct from coalesce(new.requested_agent, agent_name) and ",
        );
        out.push_sql(IS_USABLE);
        out.push_sql(" offset 0) as template");
        Ok(())
    }

    /// Pushes the CTE `template`: the rows of `startable` that the limit admits. Also sets,
    /// until the transaction ends, whether the insert's trigger may skip counting the sessions.
    fn push_within_limit<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match &self.limit {
            Limit::Unlocked => {
                out.push_sql(
                    "template as (select * from startable
                       where max_sessions is null and not is_counted
                         and (select set_config('greenroom.session_is_uncounted', 'true', true)) = 'true'
                         and (select set_config('lock_timeout', ",
                );
                out.push_bind_param::<sql_types::Text, _>(&self.lock_timeout)?;
                out.push_sql(", true)) is not null)");
            }
            // A session whose key is held does not count towards the limit. The lock blocks other starts, so no other
            // session can take the key meanwhile.
            Limit::Locked { organization, counted } => {
                out.push_sql(
                    "placed as (select startable.*, row_number() over (order by number) as place
                       from startable where (
                         select true from sessions where sessions.organization_id = startable.organization_id
                           and sessions.idempotency_key = startable.idempotency_key) is null),
                     template as (select * from placed where (max_sessions is null or place <= max_sessions - ",
                );
                push_open_sessions(organization, counted, out)?;
                out.push_sql(
                    ") and set_config('greenroom.session_is_uncounted', (not is_counted)::text, true)
                       is not null)",
                );
            }
        }
        Ok(())
    }

    /// Pushes a CTE that inserts the sessions from the CTE `template`. The CTE has the table's name,
    /// so that the columns of [`Session`](crate::Session) resolve to the inserted row.
    ///
    /// The sessions are ordered by key, so that two statements with the same keys cannot deadlock.
    fn push_insert<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "sessions as (
               insert into sessions (
                 organization_id, id, session_template_id, session_template_version,
                 modality_profile, enabled_panels, room_creation, status, agent_status,
                 user_id, metadata, room_name, participant_identity, participant_name, participant_attributes,
                 idempotency_key, idempotency_fingerprint, join_by, next_check_at, created_at, token_expiry)
               select
                 organization_id, session_id, session_template_id, version,
                 modality_profile, enabled_panels, room_creation, 'pending',
                 case when agent_name is null then 'none' else 'waiting' end,
                 user_id, metadata, room_name, participant_identity, participant_name, participant_attributes,
                 idempotency_key, idempotency_fingerprint,
                 now() + make_interval(secs => join_window_seconds),
                 now() + case when room_creation = 'on_start' then ",
        );
        push_interval(JOB_ASSIGNMENT_TIMEOUT, out);
        out.push_sql(
            " else make_interval(secs => case when is_first_check_remembered then join_window_seconds
                 else least(join_window_seconds, ",
        );
        out.push_bind_param::<Integer, _>(&self.defaults.first_check_within)?;
        // The API shows milliseconds, so a time that it returned selects the same sessions.
        out.push_sql(") end) end, date_trunc('milliseconds', now()), ");
        push_token_expiry(&self.defaults.token_ttl, "template", out.reborrow())?;
        out.push_sql(
            " from template order by organization_id, idempotency_key, session_id
              on conflict (organization_id, idempotency_key) where idempotency_key is not null do nothing
              returning *)",
        );
        Ok(())
    }
}
