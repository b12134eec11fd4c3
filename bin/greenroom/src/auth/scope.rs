//! Scopes: what a token lets its bearer do, when it says so.

macro_rules! scopes {
    ($($(#[$doc:meta])* $scope:ident = $text:literal;)+) => {
        /// What a route does, as a token's `scope` claim names it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Scope { $($(#[$doc])* $scope,)+ }

        impl Scope {
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$scope => $text,)+ }
            }

            /// The scope of this name; other names mean something to somebody else.
            fn named(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$scope),)+ _ => None }
            }
        }

        $(
            /// The scope as a type, for what extracts the caller.
            pub enum $scope {}

            impl ScopeOf for $scope {
                const SCOPE: Scope = Scope::$scope;
            }
        )+
    };
}

/// A type that stands for a scope.
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

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scopes {
    /// It has no `scope` claim.
    All,
    /// It has one, maybe an empty one.
    Only(Vec<Scope>),
}

impl Scopes {
    /// Those of a `scope` claim (RFC 8693, §4.2): names with spaces between them.
    #[must_use]
    pub fn of(claim: Option<&str>) -> Self {
        match claim {
            None => Self::All,
            Some(claim) => Self::Only(claim.split(' ').filter_map(Scope::named).collect()),
        }
    }

    #[must_use]
    pub fn allow(&self, scope: Scope) -> bool {
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
    fn a_claim_allows_what_it_names() {
        let scopes = Scopes::of(Some("openid sessions:start  templates:read"));
        assert!(scopes.allow(Scope::SessionsStart) && scopes.allow(Scope::TemplatesRead));
        assert!(!scopes.allow(Scope::SessionsRead) && !scopes.allow(Scope::TemplatesWrite));
    }

    #[test]
    fn an_empty_claim_allows_nothing_and_none_everything() {
        assert!(!Scopes::of(Some("")).allow(Scope::SessionsRead));
        assert!(!Scopes::of(Some("sessions")).allow(Scope::SessionsRead));
        assert!(!Scopes::of(Some("SESSIONS:READ")).allow(Scope::SessionsRead));
        assert!(Scopes::of(None).allow(Scope::SessionsRead));
    }
}
