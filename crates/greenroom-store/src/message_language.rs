//! The language of a connection's messages, by which [`StoreError`] is classified.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::StoreError;

/// Messages that [`StoreError`] cannot classify: a full disk or a time-out becomes
/// [`StoreError::Query`].
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
#[non_exhaustive]
pub struct TranslatedMessages {
    /// The connection's `lc_messages`, such as `de_DE.UTF-8`.
    #[diesel(sql_type = Text)]
    pub locale: String,
    /// The connection's role, quoted for SQL if necessary. It may not set `lc_messages`.
    #[diesel(sql_type = Text)]
    pub role: String,
}

/// Returns the language of the connection's messages unless it is English.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn translated_messages(
    connection: &mut AsyncPgConnection,
) -> Result<Option<TranslatedMessages>, StoreError> {
    let messages: TranslatedMessages = sql_query(
        "select current_setting('lc_messages') as locale, quote_ident(current_user) as role",
    )
    .get_result(connection)
    .await?;
    Ok(Some(messages).filter(|messages| !is_english(&messages.locale)))
}

/// Returns whether messages in this locale are English. Windows names the language, as in
/// `English_United States.1252`.
fn is_english(locale: &str) -> bool {
    let language = locale.split(['_', '-', '.', '@']).next().unwrap_or_default();
    ["C", "POSIX", "en", "English"].contains(&language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locales_of_english_messages_are_recognized() {
        for locale in [
            "C",
            "C.UTF-8",
            "POSIX",
            "en_US.UTF-8",
            "en_GB",
            "en-US",
            "en_IE@euro",
            "English_United States.1252",
        ] {
            assert!(is_english(locale), "{locale}");
        }
        for locale in ["", "de_DE.UTF-8", "ca_ES", "eno_XX", "German_Germany.1252", "Cherokee"] {
            assert!(!is_english(locale), "{locale}");
        }
    }
}
