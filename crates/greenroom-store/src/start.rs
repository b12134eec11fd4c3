//! The statement of starts, which inserts sessions from the current versions of their templates.

mod rows;
mod sql;

use std::time::Duration;

use diesel::pg::Pg;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::row::Row;
use diesel::sql_types::Uuid;
use diesel_async::{AsyncConnectionCore, AsyncPgConnection};
use futures_util::TryStreamExt;
use greenroom_domain::SessionId;

use self::rows::Rows;
use self::sql::{InsertSessions, Limit, Text};
use crate::StoreError;
use crate::listed_row::decode_columns;
use crate::new_session::NewSession;
use crate::organization::SessionLock;
use crate::session_setup::{SessionSetupColumns, StartedRow, StartedRowSql};

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
        let started = Self::insert_all(connection, &[self], lock, Duration::ZERO).await?.pop();
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
    /// a transaction that holds one of the keys; zero means no limit.
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
        lock_timeout: Duration,
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
            lock_timeout: lock_timeout.as_millis().to_string(),
            limit: lock.map_or(Limit::Unlocked, |lock| Limit::Locked {
                organization: lock.organization(),
                counted: lock.counted(),
            }),
            columns: SessionSetupColumns::new(),
        };
        let kind = (insert.limit.is_locked(), insert.resumes, insert.rows.is_one());
        match kind {
            (false, false, false) => load(connection, Text::<false, false, false>(insert)).await,
            (false, false, true) => load(connection, Text::<false, false, true>(insert)).await,
            (false, true, false) => load(connection, Text::<false, true, false>(insert)).await,
            (false, true, true) => load(connection, Text::<false, true, true>(insert)).await,
            (true, false, false) => load(connection, Text::<true, false, false>(insert)).await,
            (true, false, true) => load(connection, Text::<true, false, true>(insert)).await,
            (true, true, false) => load(connection, Text::<true, true, false>(insert)).await,
            (true, true, true) => load(connection, Text::<true, true, true>(insert)).await,
        }
    }
}

/// Loads the sessions of a statement, each decoded by itself.
async fn load<Q>(
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
