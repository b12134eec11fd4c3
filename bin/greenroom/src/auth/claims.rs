//! Claims of callers' tokens, checked more strictly than the JWT specification requires.

use std::fmt;

use greenroom_core::Caller;
use greenroom_core::domain::{OrganizationId, UserId};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::scope::Scopes;

/// The names of the claims, and the values that they must have.
#[derive(Debug, Clone)]
pub struct ClaimRules {
    /// The required value of `iss`. `None` means that `iss` is not checked.
    pub issuer: Option<String>,
    /// The required value of `aud`. `None` means that `aud` is not checked.
    pub audience: Option<String>,
    /// The name of the claim that contains the organization's UUID.
    pub org_claim: String,
    /// The name of the claim that contains an end user's id. A token without this claim belongs to
    /// a backend.
    pub user_claim: String,
}

impl Default for ClaimRules {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            org_claim: "org_id".to_owned(),
            user_claim: "user_id".to_owned(),
        }
    }
}

/// The caller that a token names, and the scopes that it permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub caller: Caller,
    pub scopes: Scopes,
}

/// The claims of a token. Each name occurs once.
pub struct Claims(Map<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    /// Refuses duplicate names, as RFC 7519, §4 permits.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;

        impl<'de> Visitor<'de> for Unique {
            type Value = Claims;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with unique claim names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = access.next_entry()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("duplicate claim"));
                    }
                }
                Ok(Claims(claims))
            }
        }

        deserializer.deserialize_map(Unique)
    }
}

impl ClaimRules {
    /// Returns the identity that the claims describe. The caller of this function has verified the
    /// token's signature and times.
    ///
    /// # Errors
    /// Returns the check that failed, for the log. The text contains no part of the token.
    pub fn identify(&self, claims: &Claims) -> Result<Identity, &'static str> {
        let Claims(claims) = claims;
        // jsonwebtoken also accepts fractions and rounds them. Require whole numbers.
        if !claims.get("exp").is_some_and(Value::is_u64) {
            return Err("exp is not a whole number");
        }
        if claims.get("nbf").is_some_and(|nbf| !nbf.is_u64()) {
            return Err("nbf is not a whole number");
        }
        // Require a single string. A list is refused even if it contains the configured value.
        let matches = |name: &str, expected: &Option<String>| match expected {
            Some(expected) => claims.get(name).and_then(Value::as_str) == Some(expected),
            None => true,
        };
        if !matches("iss", &self.issuer) {
            return Err("iss is not the configured issuer");
        }
        if !matches("aud", &self.audience) {
            return Err("aud is not the configured audience");
        }
        let organization = claims.get(&self.org_claim).and_then(Value::as_str);
        let organization = organization.and_then(|text| text.parse::<OrganizationId>().ok());
        let organization = organization.ok_or("the organization claim is not a UUID")?;
        // Reject a malformed claim: ignoring it would promote an end user to a backend.
        let end_user = match claims.get(&self.user_claim) {
            None => None,
            Some(Value::String(user)) => {
                let user = UserId::try_from(user.clone());
                Some(user.map_err(|_| "the user claim is not a valid user id")?)
            }
            Some(_) => return Err("the user claim is not a string"),
        };
        let scopes = match claims.get("scope") {
            None => Scopes::from_claim(None),
            Some(Value::String(scope)) => Scopes::from_claim(Some(scope)),
            Some(_) => return Err("the scope claim is not a string"),
        };
        Ok(Identity { caller: Caller { organization_id: organization, end_user }, scopes })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ORGANIZATION: &str = "0193b8a0-0000-7000-8000-000000000001";

    fn identify(rules: &ClaimRules, changed: &Value) -> Result<Identity, &'static str> {
        let mut claims = json!({"exp": 4_000_000_000_u64, "org_id": ORGANIZATION});
        for (name, value) in changed.as_object().unwrap() {
            claims[name] = value.clone();
        }
        rules.identify(&serde_json::from_value(claims).unwrap())
    }

    #[test]
    fn user_claim_makes_the_caller_an_end_user() {
        let rules = ClaimRules::default();
        let organization = ORGANIZATION.parse().unwrap();
        let backend = identify(&rules, &json!({})).unwrap();
        assert_eq!(backend.caller, Caller::backend(organization));
        let ann = UserId::try_from("ann".to_owned()).unwrap();
        let user = identify(&rules, &json!({"user_id": "ann", "scope": ""})).unwrap();
        assert_eq!(user.caller, Caller::end_user(organization, ann));
        assert_eq!((backend.scopes, user.scopes), (Scopes::All, Scopes::Only(vec![])));
    }

    #[test]
    fn claim_of_wrong_type_is_refused() {
        let rules = ClaimRules::default();
        for wrong in [
            json!({"exp": 4_000_000_000.0}),
            json!({"exp": "4000000000"}),
            json!({"exp": null}),
            json!({"exp": -1}),
            json!({"nbf": 1.5}),
            json!({"nbf": null}),
            json!({"org_id": 7}),
            json!({"org_id": [ORGANIZATION]}),
            json!({"org_id": ""}),
            json!({"user_id": ""}),
            json!({"user_id": null}),
            json!({"user_id": 7}),
            json!({"user_id": ["ann"]}),
            json!({"user_id": "a".repeat(129)}),
            json!({"user_id": "a\u{0}"}),
            json!({"scope": null}),
            json!({"scope": ["sessions:start"]}),
        ] {
            assert!(identify(&rules, &wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn issuer_and_audience_are_checked_if_configured() {
        let rules = ClaimRules {
            issuer: Some("https://id.example".to_owned()),
            audience: Some("greenroom".to_owned()),
            ..ClaimRules::default()
        };
        let right = json!({"iss": "https://id.example", "aud": "greenroom"});
        assert!(identify(&rules, &right).is_ok());
        for (name, wrong) in [
            ("iss", json!(null)),
            ("iss", json!("https://id.example/")),
            ("iss", json!(["https://id.example"])),
            ("aud", json!(null)),
            ("aud", json!("Greenroom")),
            ("aud", json!(["greenroom"])),
            ("aud", json!(["greenroom", "other"])),
        ] {
            let mut claims = right.clone();
            claims[name] = wrong;
            assert!(identify(&rules, &claims).is_err(), "{claims}");
        }
        assert!(identify(&rules, &json!({})).is_err(), "both are missing");
        let any = identify(&ClaimRules::default(), &json!({"iss": 7, "aud": ["a", "b"]}));
        assert!(any.is_ok(), "not configured, so not checked");
    }

    #[test]
    fn claim_names_are_configurable() {
        let rules = ClaimRules {
            org_claim: "https://example.com/tenant".to_owned(),
            user_claim: "sub".to_owned(),
            ..ClaimRules::default()
        };
        let claims = json!({"https://example.com/tenant": ORGANIZATION, "sub": "ann"});
        assert!(identify(&rules, &claims).unwrap().caller.end_user.is_some());
    }

    #[test]
    fn duplicate_claim_is_refused() {
        let claims = format!(r#"{{"exp": 4000000000, "org_id": "{ORGANIZATION}", "org_id": "x"}}"#);
        assert!(serde_json::from_str::<Claims>(&claims).is_err());
        assert!(serde_json::from_str::<Claims>(r#"{"a": 1, "b": 2, "a": 1}"#).is_err());
        assert!(serde_json::from_str::<Claims>("[]").is_err());
    }
}
