//! What the revert of migrations would lose, and whether that is permitted.
//!
//! A `down.sql` that drops a table or a column names it in a comment: `-- loses: sessions`,
//! `-- loses: sessions.metadata`, or `-- loses: nothing, because …` if the data can be derived again.

use std::fmt;

use diesel::sql_query;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::StoreError;
use crate::connection::connect_without_timeout;
use crate::migrate::newest_applied;

const MARKER: &str = "-- loses:";

macro_rules! down_sql {
    ($($name:literal)+) => {
        /// Name and `down.sql` of each migration, oldest first. diesel does not publish the SQL of an
        /// embedded migration.
        const DOWN_SQL: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../migrations/", $name, "/down.sql")))),+];
    };
}

down_sql! {
    "2026-11-22-000001_create_organizations"
    "2026-11-22-000002_create_session_templates"
    "2026-11-22-000003_create_sessions"
    "2026-11-22-000004_create_session_events"
    "2026-11-27-000001_bound_revisions"
    "2026-11-27-000002_merge_session_checks"
    "2026-11-28-000001_count_open_sessions"
    "2026-11-28-000002_create_count_triggers"
    "2026-11-28-000003_create_keeper_buckets"
}

/// A migration to revert, and the data that is lost with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reversal {
    /// Version and name, such as `2026-11-22-000001_create_organizations`.
    pub migration: String,
    /// The tables and columns with data that the revert drops. Empty if it loses no data.
    pub losses: Vec<DataLoss>,
}

/// A table or a column with data that a revert drops.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataLoss {
    /// A table, such as `sessions`, or a column, such as `sessions.metadata`.
    pub name: String,
    /// The number of rows in the table, or of its rows with a value in the column. At least one.
    pub rows: i64,
}

impl fmt::Display for DataLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rows } = self;
        write!(f, "{rows} row{} of {name}", if *rows == 1 { "" } else { "s" })
    }
}

/// Which questions the operator has answered in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevertConsent {
    /// Revert without a question.
    pub yes: bool,
    /// Revert even if that loses data.
    pub force: bool,
}

/// Whether a revert may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevertPermission {
    /// Revert now.
    Granted,
    /// Ask the operator first.
    Ask,
}

/// Why a revert is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevertRefusal {
    /// Data would be lost, and the operator has not permitted that.
    #[error("the revert would lose {}; pass --force to lose this data", list(.0))]
    Loss(Vec<DataLoss>),
    /// There is no terminal on which to ask.
    #[error(
        "the revert needs a confirmation, and standard input is not a terminal; pass --yes to confirm it"
    )]
    NoTerminal,
}

fn list(losses: &[DataLoss]) -> String {
    losses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

impl RevertConsent {
    /// Decides whether a revert may begin. `can_ask` is whether the operator can be asked.
    ///
    /// # Errors
    /// Returns a [`RevertRefusal`] if the revert would lose data without `force`, or if the operator
    /// must confirm it and cannot be asked.
    pub fn check(
        self,
        plan: &[Reversal],
        can_ask: bool,
    ) -> Result<RevertPermission, RevertRefusal> {
        let losses: Vec<_> = plan.iter().flat_map(|reversal| reversal.losses.clone()).collect();
        match self {
            Self { force: false, .. } if !losses.is_empty() => Err(RevertRefusal::Loss(losses)),
            Self { yes: true, .. } => Ok(RevertPermission::Granted),
            Self { yes: false, .. } if can_ask => Ok(RevertPermission::Ask),
            Self { yes: false, .. } => Err(RevertRefusal::NoTerminal),
        }
    }
}

/// Returns what [`migrate::revert`](crate::migrate::revert) would revert, newest first, and counts
/// the rows that would be lost. Changes nothing.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be reached, a query fails, or this version does
/// not know an applied migration.
pub async fn plan(url: &str, count: usize) -> Result<Vec<Reversal>, StoreError> {
    let mut connection = connect_without_timeout(url).await?;
    let mut plan = Vec::new();
    for version in newest_applied(&mut connection, count).await? {
        let known = DOWN_SQL.iter().find(|(name, _)| version_of(name) == version);
        let unknown = || format!("no migration {version} is known; a newer version applied it");
        let (name, sql) = known.ok_or_else(|| StoreError::Query(unknown().into()))?;
        let mut losses = Vec::new();
        for lost in lost_names(sql) {
            let rows = count_rows(&mut connection, lost).await?;
            if rows > 0 {
                losses.push(DataLoss { name: lost.to_owned(), rows });
            }
        }
        plan.push(Reversal { migration: (*name).to_owned(), losses });
    }
    Ok(plan)
}

/// The version of a migration in diesel's form: the digits before the first underscore.
fn version_of(name: &str) -> String {
    name.split('_').next().unwrap_or_default().replace('-', "")
}

/// The tables and columns that the comments of a `down.sql` name.
fn lost_names(sql: &str) -> impl Iterator<Item = &str> {
    let names = sql.lines().filter_map(|line| line.strip_prefix(MARKER)).map(str::trim);
    names.filter(|name| !name.starts_with("nothing, because "))
}

async fn count_rows(connection: &mut AsyncPgConnection, lost: &str) -> Result<i64, StoreError> {
    #[derive(diesel::QueryableByName)]
    struct Rows {
        #[diesel(sql_type = BigInt)]
        rows: i64,
    }
    // The names are those of this program's migrations.
    let (table, counted) = match lost.split_once('.') {
        Some((table, column)) => (table, column),
        None => (lost, "*"),
    };
    let query = format!("select count({counted}) as rows from {table}");
    let rows: Rows = sql_query(query).get_result(connection).await?;
    Ok(rows.rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names after `drop table` and `drop column`.
    fn dropped(sql: &str) -> Vec<String> {
        let statements = sql.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>();
        let words: Vec<_> = statements
            .join(" ")
            .replace([';', ','], " ")
            .split_whitespace()
            .map(str::to_lowercase)
            .collect();
        let mut dropped = Vec::new();
        for (index, pair) in words.windows(2).enumerate() {
            if pair[0] == "drop" && ["table", "column"].contains(&pair[1].as_str()) {
                let names = words[index + 2..]
                    .iter()
                    .filter(|word| !["if", "exists"].contains(&word.as_str()));
                dropped.extend(names.take(1).cloned());
            }
        }
        dropped
    }

    #[test]
    fn down_sql_names_every_table_and_column_that_it_drops() {
        for (name, sql) in DOWN_SQL {
            let dropped = dropped(sql);
            let lost: Vec<_> = lost_names(sql).collect();
            let declares_no_loss =
                sql.lines().any(|line| line.starts_with("-- loses: nothing, because "));
            for dropped in &dropped {
                let is_named =
                    lost.iter().any(|lost| lost.rsplit('.').next() == Some(dropped.as_str()));
                assert!(is_named || declares_no_loss, "{name}: add `{MARKER} {dropped}`");
            }
            assert_eq!(
                dropped.is_empty(),
                lost.is_empty() && !declares_no_loss,
                "{name}: {lost:?}"
            );
        }
        assert_eq!(
            dropped("alter table a drop column if exists b, drop column c;\ndrop table d;"),
            ["b", "c", "d"]
        );
    }

    #[test]
    fn revert_needs_confirmation_and_permission_to_lose_data() {
        let reversal = |losses| Reversal { migration: "m".to_owned(), losses };
        let loss = DataLoss { name: "sessions".to_owned(), rows: 2 };
        let (empty, full) = ([reversal(Vec::new())], [reversal(vec![loss.clone()])]);
        let consent = |yes, force| RevertConsent { yes, force };
        for force in [false, true] {
            assert_eq!(consent(false, force).check(&empty, true), Ok(RevertPermission::Ask));
            assert_eq!(consent(false, force).check(&empty, false), Err(RevertRefusal::NoTerminal));
            assert_eq!(consent(true, force).check(&empty, false), Ok(RevertPermission::Granted));
        }
        for yes in [false, true] {
            let refusal = consent(yes, false).check(&full, true).unwrap_err();
            assert_eq!(refusal, RevertRefusal::Loss(vec![loss.clone()]));
            let sentence =
                "the revert would lose 2 rows of sessions; pass --force to lose this data";
            assert_eq!(refusal.to_string(), sentence);
        }
        assert_eq!(consent(false, true).check(&full, true), Ok(RevertPermission::Ask));
        assert_eq!(consent(true, true).check(&full, false), Ok(RevertPermission::Granted));
    }
}
