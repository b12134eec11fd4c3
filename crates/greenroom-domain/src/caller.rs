//! The caller of a use case, and the sessions that the caller may see.

use crate::{OrganizationId, UserId};

/// An authenticated caller: a backend of an organization, or an end user of the organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub organization_id: OrganizationId,
    /// The end user. `None` means a backend, which acts for all users of the organization.
    pub end_user: Option<UserId>,
}

/// The error if an end user names another user. End users act only for themselves.
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

    /// Returns whether the caller may see sessions of `user` in the caller's organization. `None`
    /// means sessions without a user, which only backends may see.
    #[must_use]
    pub fn may_see(&self, user: Option<&UserId>) -> bool {
        self.end_user.is_none() || self.end_user.as_ref() == user
    }

    /// Returns the user that the caller acts for: the named user for a backend, the caller itself
    /// for an end user.
    ///
    /// # Errors
    /// Returns [`UserMismatch`] if an end user names another user.
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
    fn backend_sees_and_acts_for_all_users() {
        let backend = Caller::backend(OrganizationId(Uuid::nil()));
        assert!(backend.may_see(None) && backend.may_see(Some(&user("ann"))));
        assert_eq!(backend.acts_for(None), Ok(None));
        assert_eq!(backend.acts_for(Some(user("ben"))), Ok(Some(user("ben"))));
    }

    #[test]
    fn end_user_sees_and_acts_only_for_itself() {
        assert!(ann().may_see(Some(&user("ann"))));
        assert!(!ann().may_see(Some(&user("Ann"))) && !ann().may_see(None), "guests");
        assert_eq!(ann().acts_for(None), Ok(Some(user("ann"))));
        assert_eq!(ann().acts_for(Some(user("ann"))), Ok(Some(user("ann"))));
        assert_eq!(ann().acts_for(Some(user("ben"))), Err(UserMismatch));
    }
}
