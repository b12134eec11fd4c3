//! Replaces the database in a PostgreSQL URL.

/// Returns the URL of another database on the same server.
pub(super) fn with_database(url: &str, database: &str) -> String {
    let (address, parameters) = match url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let scheme_end = address.find("://").map_or(0, |at| at + 3);
    let server = match address[scheme_end..].find('/') {
        Some(slash) => &address[..scheme_end + slash],
        None => address,
    };
    format!("{server}/{database}{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_database_is_replaced() {
        let cases = [
            ("postgres://u:p@host:5433/one", "postgres://u:p@host:5433/two"),
            ("postgres://host", "postgres://host/two"),
            (
                "postgresql://host/one?sslmode=disable&options=a/b",
                "postgresql://host/two?sslmode=disable&options=a/b",
            ),
            ("postgres://host?connect_timeout=2", "postgres://host/two?connect_timeout=2"),
        ];
        for (url, expected) in cases {
            assert_eq!(with_database(url, "two"), expected);
        }
    }
}
