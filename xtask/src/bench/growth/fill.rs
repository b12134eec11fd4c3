//! Fills a database with the sessions of a year.

use std::time::Instant;

use anyhow::Result;
use tokio::task::JoinSet;

use crate::api::ORGANIZATION;
use crate::bench::deployment::connect;
use crate::steps::seconds;

/// Number of connections that insert rows.
const WRITERS: u64 = 2;

/// Number of rows per statement.
const CHUNK: u64 = 250_000;

/// Executed one by one, because PostgreSQL refuses `alter system` within a transaction. The rows need
/// not survive a crash until the fill is complete.
const WITHOUT_DURABILITY: [&str; 3] = [
    "alter system set fsync = off",
    "alter system set full_page_writes = off",
    "select pg_reload_conf()",
];

/// Reverts [`WITHOUT_DURABILITY`].
const WITH_DURABILITY: [&str; 3] =
    ["alter system reset fsync", "alter system reset full_page_writes", "select pg_reload_conf()"];

const SIZES: &str = "
    select pg_table_size('sessions')::float8 / 1e9, pg_indexes_size('sessions')::float8 / 1e9";

/// Inserts ended calls with an agent, in the order of their time. Half of them belong to
/// [`ORGANIZATION`], and the others to a hundred organizations. Returns a description of the result.
pub async fn fill(url: &str, rows: u64) -> Result<String> {
    let (sql, begun) = (connect(url).await?, Instant::now());
    sql.batch_execute(&tenants()).await?;
    for statement in WITHOUT_DURABILITY {
        sql.batch_execute(statement).await?;
    }
    let inserted = insert_all(url, rows).await;
    for statement in WITH_DURABILITY {
        sql.batch_execute(statement).await?;
    }
    inserted?;
    for statement in ["vacuum analyze sessions", "checkpoint"] {
        sql.batch_execute(statement).await?;
    }
    let sizes = sql.query_one(SIZES, &[]).await?;
    let (table, indexes): (f64, f64) = (sizes.try_get(0)?, sizes.try_get(1)?);
    let took = seconds(begun.elapsed());
    Ok(format!("filled {rows} rows in {took}: table {table:.2} GB, indexes {indexes:.2} GB"))
}

async fn insert_all(url: &str, rows: u64) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let sql = connect(url).await?;
        writers.spawn(async move {
            // Without the triggers, which would look up a template and an organization per row.
            sql.batch_execute("set session_replication_role = replica").await?;
            for first in (1..=rows).step_by(usize::try_from(CHUNK)?) {
                if first / CHUNK % WRITERS == writer {
                    sql.batch_execute(&insert(first, rows.min(first + CHUNK - 1), rows)).await?;
                }
            }
            anyhow::Ok(())
        });
    }
    writers.join_all().await.into_iter().collect()
}

/// The organizations with one template each. Number 0 is [`ORGANIZATION`].
fn tenants() -> String {
    format!(
        "create function tenant(number bigint) returns uuid language sql immutable as
           $$ select case number when 0 then '{ORGANIZATION}' else md5('tenant ' || number)::uuid end $$;
         insert into organizations (id) select tenant(n) from generate_series(0, 100) n;
         insert into session_templates (organization_id, id, version, name, agent_metadata, agent_required,
           on_agent_hangup, room_creation, join_window_seconds, reconnect_window_seconds, max_duration_seconds,
           created_at, updated_at)
         select tenant(n), tenant(n), 1, 'Filled', '{{}}', true, 'keep', 'on_start', 600, 30, 3600, now(), now()
         from generate_series(0, 100) n"
    )
}

fn insert(first: u64, last: u64, rows: u64) -> String {
    format!(
        "insert into sessions (organization_id, id, session_template_id, session_template_version, user_id,
           modality_profile, enabled_panels, metadata, room_name, participant_identity, room_creation, status,
           agent_status, end_reason, token_expiry, created_at, started_at, ended_at, join_by, end_by,
           room_created_at, room_finished_at, room_gone_at, user_joined_at, user_left_at, agent_wanted_since,
           last_dispatch_at, agent_identity, revision)
         select tenant(number),
           (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(hash, 1, 3)
             || '8' || substr(hash, 4, 15))::uuid,
           tenant(number), 1, 'user-' || substr(hash, 1, 5), 'audio+text', '{{chat}}', '{{\"order\": 42}}',
           'session_' || to_char(at at time zone 'UTC', 'YYYYMMDD_HH24MISS') || '_' || substr(hash, 20, 6),
           'user-' || substr(hash, 1, 5), 'on_start', 'ended', 'ready', 'user_left', at + interval '1 hour',
           date_trunc('milliseconds', at), at + interval '4 s', at + interval '5 min', at + interval '10 min',
           at + interval '1 hour', at + interval '30 ms', at + interval '5 min', at + interval '5 min',
           at + interval '4 s', at + interval '290 s', at, at + interval '30 ms',
           'agent-AJ_' || substr(hash, 1, 12), 12
         from (
           select md5(n::text) as hash, case when n % 2 = 0 then 0 else 1 + n / 2 % 100 end as number,
             now() - interval '366 days' + interval '365 days' * (n::float8 / {rows}) as at
           from generate_series({first}::bigint, {last}::bigint) n) filled"
    )
}
