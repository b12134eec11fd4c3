//! The count of an organization's open sessions, which triggers keep exact for every writer.
//!
//! A count begins in three steps: [`begin`] commits its row, so that later writers change it; the
//! caller waits for the [`session_writers`](crate::organization::session_writers), which may not
//! have seen the row; [`finish`] counts the sessions. Until then, a start counts them itself.

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::{BigInt, Nullable, Uuid};
use diesel::{delete, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_domain::OrganizationId;

use crate::StoreError;
use crate::schema::{open_session_changes, open_session_counts, organizations};
use crate::sql::OPEN;

/// A count that has begun.
#[derive(Debug, Clone, Copy)]
pub struct BegunCount {
    organization: OrganizationId,
    /// Distinguishes the count from a later one of the organization, which another set of writers
    /// may not have seen.
    generation: i64,
}

/// Begins the count of an organization's open sessions unless it has begun already. Returns `None`
/// if the organization has no row.
///
/// # Errors
/// Returns a [`StoreError`] if a query fails.
pub async fn begin(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
) -> Result<Option<BegunCount>, StoreError> {
    sql_query(
        "with begun as (
           update organizations set is_counted = true where id = $1 and not is_counted returning id)
         insert into open_session_counts (organization_id) select id from begun on conflict do nothing",
    )
    .bind::<Uuid, _>(organization)
    .execute(connection)
    .await?;
    let row = open_session_counts::table.find(organization);
    let generation = row.select(open_session_counts::generation).first(connection).await;
    Ok(generation.optional()?.map(|generation| BegunCount { organization, generation }))
}

/// Counts the open sessions, unless the count has ended since it [began](begin). Also corrects a
/// count that is wrong, for example because triggers were disabled.
///
/// # Errors
/// Returns a [`StoreError`] if a query fails.
pub async fn finish(
    connection: &mut AsyncPgConnection,
    begun: BegunCount,
) -> Result<(), StoreError> {
    // One snapshot, taken after the lock: the deleted changes are those of sessions that it counts.
    // Writers that find the row locked add changes.
    let count = format!(
        "with counted as (delete from open_session_changes where organization_id = $1)
         update open_session_counts
           set open = (select count(*) from sessions where {OPEN} and organization_id = $1)
           where organization_id = $1"
    );
    let finish = async |connection: &mut AsyncPgConnection| {
        let row = open_session_counts::table
            .find(begun.organization)
            .filter(open_session_counts::generation.eq(begun.generation));
        let locked = row.select(open_session_counts::generation).for_update();
        if locked.execute(connection).await? == 1 {
            sql_query(count).bind::<Uuid, _>(begun.organization).execute(connection).await?;
        }
        Ok(())
    };
    connection.transaction(finish).await
}

/// Deletes the count of an organization without a limit, so that its sessions pay nothing for it.
/// The caller holds the lock of the organization's row: a start that has read that the organization
/// is counted relies on the count.
pub(crate) async fn end(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
) -> QueryResult<()> {
    diesel::update(organizations::table.find(organization))
        .set(organizations::is_counted.eq(false))
        .execute(connection)
        .await?;
    delete(open_session_counts::table.find(organization)).execute(connection).await?;
    let changes = open_session_changes::organization_id.eq(organization);
    delete(open_session_changes::table.filter(changes)).execute(connection).await?;
    Ok(())
}

/// SQL expression: the number of open sessions by the row of `open_session_counts`. Null until the
/// count is finished.
const OPEN_SESSIONS: &str = "open + coalesce((
    select sum(change) from open_session_changes
    where open_session_changes.organization_id = open_session_counts.organization_id), 0)";

/// Returns the number of open sessions, or `None` if the organization has no finished count.
pub(crate) async fn read(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
) -> QueryResult<Option<i64>> {
    let row = open_session_counts::table.find(organization);
    let open = row.select(sql::<Nullable<BigInt>>(OPEN_SESSIONS)).first(connection).await;
    Ok(open.optional()?.flatten())
}

/// SQL condition: the count of the row of `organizations` is finished.
pub(crate) const HAS_COUNT: &str = "exists (select from open_session_counts
    where organization_id = organizations.id and open is not null)";

/// Pushes the number of open sessions of an organization: its count, otherwise `counted`, the number
/// that the transaction has counted itself.
#[expect(clippy::ref_option, reason = "the statement borrows its bind parameters")]
pub(crate) fn push_open_sessions<'b>(
    organization: &'b OrganizationId,
    counted: &'b Option<i64>,
    out: &mut AstPass<'_, 'b, Pg>,
) -> QueryResult<()> {
    out.push_sql("coalesce(");
    out.push_bind_param::<Nullable<BigInt>, _>(counted)?;
    out.push_sql(", (select ");
    out.push_sql(OPEN_SESSIONS);
    out.push_sql(" from open_session_counts where organization_id = ");
    out.push_bind_param::<Uuid, _>(organization)?;
    out.push_sql("))");
    Ok(())
}

/// Pushes a condition that is true unless the CTE `sessions` is empty, and adds the number of its rows,
/// which the statement has inserted, to the organization's count. The trigger's call per session would
/// cost more than the insert.
pub(crate) fn push_count_inserted<'b>(
    organization: &'b OrganizationId,
    out: &mut AstPass<'_, 'b, Pg>,
) -> QueryResult<()> {
    out.push_sql(
        "(select true from (
         select count(*)::integer as count from sessions having count(*) > 0) as inserted,
         change_open_session_count(",
    );
    out.push_bind_param::<Uuid, _>(organization)?;
    out.push_sql(", inserted.count))");
    Ok(())
}
