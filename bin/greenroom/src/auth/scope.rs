//! Scopes: the operations that a token's `scope` claim permits.

use greenroom_core::Caller;

macro_rules! scopes {
    ($($(#[$doc:meta])* $scope:ident = $text:literal;)+) => {
        /// An operation that a token's `scope` claim can permit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Scope { $($(#[$doc])* $scope,)+ }

        impl Scope {
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$scope => $text,)+ }
            }

            /// Returns the scope with this name. `None` means a name that Greenroom does not
            /// define, such as `openid`.
            fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$scope),)+ _ => None }
            }
        }

        $(
            /// The scope as a type parameter of the extractor `Allowed`.
            pub enum $scope {}

            impl ScopeOf for $scope {
                const SCOPE: Scope = Scope::$scope;
            }
        )+
    };
}

/// A type that represents a scope.
pub trait ScopeOf: 'static {
    const SCOPE: Scope;
}

scopes! {
    SessionsStart = "sessions:start";
    SessionsRead = "sessions:read";
    SessionsEnd = "sessions:end";
    TemplatesRead = "templates:read";
    TemplatesWrite = "templates:write";
    LimitsRead = "limits:read";
}

impl Scope {
    /// Returns whether the domain's rules permit the caller any operation of this scope, whatever
    /// its token permits.
    #[must_use]
    pub fn is_open_to(self, caller: &Caller) -> bool {
        match self {
            Self::SessionsStart | Self::SessionsRead | Self::SessionsEnd => true,
            Self::TemplatesRead | Self::TemplatesWrite => caller.may_manage_templates(),
            Self::LimitsRead => caller.may_read_limits(),
        }
    }
}

/// The scopes that a token permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scopes {
    /// The token has no `scope` claim, so it permits every scope.
    All,
    /// The known scopes of the `scope` claim. The list may be empty.
    Only(Vec<Scope>),
}

impl Scopes {
    /// Parses a `scope` claim (RFC 8693, §4.2): names separated by spaces. Unknown names are
    /// ignored.
    #[must_use]
    pub fn from_claim(claim: Option<&str>) -> Self {
        match claim {
            None => Self::All,
            Some(claim) => Self::Only(claim.split(' ').filter_map(Scope::from_name).collect()),
        }
    }

    /// Returns whether the token permits the scope.
    #[must_use]
    pub fn permit(&self, scope: Scope) -> bool {
        match self {
            Self::All => true,
            Self::Only(scopes) => scopes.contains(&scope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_permits_only_its_scopes() {
        let scopes = Scopes::from_claim(Some("openid sessions:start  templates:read"));
        assert!(scopes.permit(Scope::SessionsStart) && scopes.permit(Scope::TemplatesRead));
        assert!(!scopes.permit(Scope::SessionsRead) && !scopes.permit(Scope::TemplatesWrite));
    }

    #[test]
    fn empty_claim_permits_nothing_and_absent_claim_everything() {
        assert!(!Scopes::from_claim(Some("")).permit(Scope::SessionsRead));
        assert!(!Scopes::from_claim(Some("sessions")).permit(Scope::SessionsRead));
        assert!(!Scopes::from_claim(Some("SESSIONS:READ")).permit(Scope::SessionsRead));
        assert!(Scopes::from_claim(None).permit(Scope::SessionsRead));
    }
}
