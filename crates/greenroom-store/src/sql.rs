//! SQL text that several statements share.

use chrono::TimeDelta;
use diesel::pg::Pg;
use diesel::query_builder::AstPass;

/// Whether a session is not over. The statuses must be literals: PostgreSQL does not use the partial
/// indexes of open sessions if the statuses are parameters.
pub(crate) const OPEN: &str = "status in ('pending', 'active')";

/// A constant interval of whole seconds. As a literal, it keeps the statement's plan generic.
pub(crate) fn interval(length: TimeDelta) -> String {
    format!("interval '{} seconds'", length.num_seconds())
}

/// Appends an [`interval`].
pub(crate) fn push_interval(length: TimeDelta, out: &mut AstPass<'_, '_, Pg>) {
    out.push_sql(&interval(length));
}

#[cfg(test)]
mod tests {
    use greenroom_domain::SessionStatus;

    use super::*;

    #[test]
    fn open_statuses_are_those_of_the_domain() {
        let statuses = SessionStatus::OPEN.map(|status| format!("'{status}'")).join(", ");
        assert_eq!(OPEN, format!("status in ({statuses})"));
    }
}
