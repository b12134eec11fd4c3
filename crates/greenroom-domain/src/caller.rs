//! The caller of a use case, and what the caller may do. Each rule of authorization is a method here.

use crate::{OrganizationId, UserId};

/// An authenticated caller: a backend of an organization, or an end user of the organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The organization to whose sessions and templates the caller is limited.
    pub organization_id: OrganizationId,
    /// The end user. `None` means a backend, which acts for all users of the organization.
    pub end_user: Option<UserId>,
}

/// The error if an end user names another user. End users act only for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserMismatch;

impl Caller {
    /// Creates a backend, which acts for all users of the organization.
    #[must_use]
    pub fn backend(organization_id: OrganizationId) -> Self {
        Self { organization_id, end_user: None }
    }

    /// Creates an end user of the organization, who acts only for `user`.
    #[must_use]
    pub fn end_user(organization_id: OrganizationId, user: UserId) -> Self {
        Self { organization_id, end_user: Some(user) }
    }

    /// Returns whether the caller may see sessions of `user` in the caller's organization, end them
    /// and get tokens for them. `None` means sessions without a user, which only backends may see.
    #[must_use]
    pub fn may_see(&self, user: Option<&UserId>) -> bool {
        self.sees_only().is_none_or(|own| user == Some(own))
    }

    /// Returns [`Self::may_see`] as a condition on `user_id` in SQL: the only user whose sessions the
    /// caller may see. `None` means that the caller may see all sessions of the organization.
    #[must_use]
    pub fn sees_only(&self) -> Option<&UserId> {
        self.end_user.as_ref()
    }

    /// Returns whether the caller may read and change the templates of the caller's organization.
    /// Only backends may: a template determines the agent and the permissions of its users.
    #[must_use]
    pub fn may_manage_templates(&self) -> bool {
        self.is_backend()
    }

    /// Returns whether the caller may read the limits of the caller's organization and their use.
    /// Only backends may: the use of the limits counts the sessions of other users.
    #[must_use]
    pub fn may_read_limits(&self) -> bool {
        self.is_backend()
    }

    /// Returns whether the caller may set the metadata of a session. Only backends may, because
    /// agents trust metadata.
    #[must_use]
    pub fn may_send_metadata(&self) -> bool {
        self.is_backend()
    }

    /// Returns whether the caller may read the metadata of a session and the details of its
    /// events. Only backends may: both contain data that is not for the user.
    #[must_use]
    pub fn may_read_metadata(&self) -> bool {
        self.is_backend()
    }

    fn is_backend(&self) -> bool {
        self.end_user.is_none()
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
    fn only_backend_manages_templates_reads_limits_and_handles_metadata() {
        let permissions = |caller: &Caller| {
            [
                caller.may_manage_templates(),
                caller.may_read_limits(),
                caller.may_send_metadata(),
                caller.may_read_metadata(),
            ]
        };
        assert_eq!(permissions(&Caller::backend(OrganizationId(Uuid::nil()))), [true; 4]);
        assert_eq!(permissions(&ann()), [false; 4]);
    }

    #[test]
    fn backend_sees_and_acts_for_all_users() {
        let backend = Caller::backend(OrganizationId(Uuid::nil()));
        assert!(backend.may_see(None) && backend.may_see(Some(&user("ann"))));
        assert_eq!(backend.acts_for(None), Ok(None));
        assert_eq!(backend.acts_for(Some(user("ben"))), Ok(Some(user("ben"))));
    }

    #[test]
    fn condition_in_sql_agrees_with_may_see() {
        let backend = Caller::backend(OrganizationId(Uuid::nil()));
        for caller in [backend, ann()] {
            for owner in [None, Some(user("ann")), Some(user("ben"))] {
                // A comparison with null is not true in SQL.
                let is_selected =
                    caller.sees_only().is_none_or(|only| owner.as_ref() == Some(only));
                assert_eq!(caller.may_see(owner.as_ref()), is_selected, "{caller:?} {owner:?}");
            }
        }
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
