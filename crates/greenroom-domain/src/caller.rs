//! On whose behalf something is done, and what that lets them see.

use crate::{OrganizationId, UserId};

/// A caller who is known: a backend of an organization, or one of the organization's end users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub organization_id: OrganizationId,
    /// The end user the caller is; none for a backend, which acts for them all.
    pub end_user: Option<UserId>,
}

/// Somebody else was named by an end user, who acts for nobody but themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserMismatch;

impl Caller {
    #[must_use]
    pub fn backend(organization_id: OrganizationId) -> Self {
        Self { organization_id, end_user: None }
    }

    #[must_use]
    pub fn end_user(organization_id: OrganizationId, user: UserId) -> Self {
        Self { organization_id, end_user: Some(user) }
    }

    /// Whether the sessions of this user, of the caller's own organization, are theirs to see.
    #[must_use]
    pub fn may_see(&self, user: Option<&UserId>) -> bool {
        self.end_user.is_none() || self.end_user.as_ref() == user
    }

    /// For whom the caller acts when it names this user: a backend for whom it names, an end user
    /// for itself.
    ///
    /// # Errors
    /// When an end user names somebody else.
    pub fn acts_for(&self, named: Option<UserId>) -> Result<Option<UserId>, UserMismatch> {
        match (&self.end_user, named) {
            (Some(own), Some(named)) if *own != named => Err(UserMismatch),
            (Some(own), _) => Ok(Some(own.clone())),
            (None, named) => Ok(named),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::try_from(name.to_owned()).unwrap()
    }

    fn ann() -> Caller {
        Caller::end_user(OrganizationId(Uuid::nil()), user("ann"))
    }

    #[test]
    fn a_backend_sees_and_acts_for_everybody() {
        let backend = Caller::backend(OrganizationId(Uuid::nil()));
        assert!(backend.may_see(None) && backend.may_see(Some(&user("ann"))));
        assert_eq!(backend.acts_for(None), Ok(None));
        assert_eq!(backend.acts_for(Some(user("ben"))), Ok(Some(user("ben"))));
    }

    #[test]
    fn an_end_user_sees_and_acts_for_itself_alone() {
        assert!(ann().may_see(Some(&user("ann"))));
        assert!(!ann().may_see(Some(&user("Ann"))) && !ann().may_see(None), "nor a guest's");
        assert_eq!(ann().acts_for(None), Ok(Some(user("ann"))));
        assert_eq!(ann().acts_for(Some(user("ann"))), Ok(Some(user("ann"))));
        assert_eq!(ann().acts_for(Some(user("ben"))), Err(UserMismatch));
    }
}
