//! How much an organization may use.

use greenroom_domain::OrganizationId;
use greenroom_store::{SessionLimit, StoreError, connect, organization};

/// Sets how many sessions of an organization may live at once, in the database of this URL.
///
/// # Errors
/// When the database cannot be reached, or the limit is negative.
pub async fn set_session_limit(
    database_url: &str,
    organization: OrganizationId,
    limit: SessionLimit,
) -> Result<(), StoreError> {
    let mut connection = connect(database_url).await?;
    organization::set_limit(&mut connection, organization, limit).await
}
