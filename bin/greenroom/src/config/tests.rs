//! Tests: `.env.example` lists every variable, and invalid values are reported.

use super::reader::Reader;
use super::variable::{Need, VARIABLES};
use super::*;

const EXAMPLE: &str = include_str!("../../../../.env.example");

fn read(texts: &[(&str, &str)]) -> Result<Settings, Faults> {
    let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Settings::from_reader(Reader::from_texts(texts.collect()))
}

/// Returns the faults, or `valid`.
fn outcome(texts: &[(&str, &str)]) -> String {
    read(texts).map_or_else(|faults| faults.to_string(), |_| "valid".to_owned())
}

/// Returns the assignments in `.env.example`: name, text, and whether the line is commented out.
fn example() -> Vec<(&'static str, &'static str, bool)> {
    EXAMPLE
        .lines()
        .filter_map(|line| {
            let assignment = line.strip_prefix('#').unwrap_or(line);
            let (name, text) = assignment.split_once('=')?;
            let named = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            named.then_some((name, text, line.starts_with('#')))
        })
        .collect()
}

/// Returns the variables that `.env.example` sets, with some changes.
fn example_with(changed: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let set = example().into_iter().filter(|(.., commented)| !commented);
    let mut texts: Vec<_> = set.map(|(name, text, _)| (name, text)).collect();
    texts.retain(|(name, _)| !changed.iter().any(|(changed, _)| changed == name));
    texts.extend(changed);
    texts
}

#[test]
fn example_lists_every_variable_with_its_default() {
    let named: Vec<_> = example().into_iter().map(|(name, ..)| name).collect();
    let known: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    assert_eq!(named, known);
    for (variable, (name, text, commented)) in VARIABLES.iter().zip(example()) {
        match variable.need {
            Need::Required => assert!(!commented, "{name} is required, so the example must set it"),
            Need::Default(default) => assert_eq!((text, commented), (default, true), "{name}"),
            Need::OneOf => assert_eq!(commented, name != "AUTH_JWT_SECRET", "{name}"),
        }
    }
}

#[test]
fn example_is_a_valid_configuration() {
    assert_eq!(outcome(&example_with(&[])), "valid");
}

#[test]
fn all_faults_are_reported_at_once_without_values() {
    // These variables accept any text.
    const ANY_TEXT: [&str; 6] = [
        "LIVEKIT_API_KEY",
        "LIVEKIT_API_KEY_PREVIOUS",
        "AUTH_JWT_ISSUER",
        "AUTH_JWT_AUDIENCE",
        "AUTH_ORG_CLAIM",
        "AUTH_USER_CLAIM",
    ];
    let wrong: Vec<_> = VARIABLES.iter().map(|variable| (variable.name, "???s3cret")).collect();
    let outcome = outcome(&wrong);
    for variable in VARIABLES.iter().filter(|variable| !ANY_TEXT.contains(&variable.name)) {
        let is_reported = outcome.lines().any(|line| line.trim_start().starts_with(variable.name));
        assert!(is_reported, "{} is not reported in:\n{outcome}", variable.name);
    }
    let same_claim = "AUTH_ORG_CLAIM and AUTH_USER_CLAIM must name different claims";
    assert!(outcome.contains(same_claim), "{outcome}");
    assert!(outcome.contains("exactly one of AUTH_JWT_SECRET"), "{outcome}");
    assert!(!outcome.contains("s3cret"), "{outcome}");
}

#[test]
fn all_missing_variables_are_reported_at_once() {
    let outcome = outcome(&[]);
    for variable in VARIABLES {
        let is_reported = outcome.contains(&format!("{} is required", variable.name));
        assert_eq!(is_reported, matches!(variable.need, Need::Required), "{}", variable.name);
    }
    assert!(outcome.contains("exactly one of"), "{outcome}");
}

#[test]
fn values_outside_their_range_are_refused() {
    for (name, valid, invalid) in [
        ("DATABASE_POOL_SIZE", ["2", "200"], ["1", "201"]),
        ("LIVEKIT_TOKEN_TTL_SECONDS", ["60", "86400"], ["59", "86401"]),
        ("GREENROOM_AGENT_DEADLINE_SECONDS", ["5", "300"], ["4", "301"]),
        ("GREENROOM_RECONCILE_SECONDS", ["1", "3600"], ["0", "3601"]),
        ("GREENROOM_CONSOLE", ["true", "false"], ["yes", "TRUE"]),
        ("GREENROOM_ON_LIVEKIT_DOWN", ["fail", "token_only"], ["retry", "Fail"]),
        ("GREENROOM_MAX_ACTIVE_SESSIONS", ["0", "10"], ["-1", "many"]),
        ("GREENROOM_STARTS_PER_MINUTE", ["1", "600"], ["0", "1.5"]),
        ("GREENROOM_RETENTION_DAYS", ["1", "30"], ["0", "-3"]),
        ("GREENROOM_LOG_FORMAT", ["text", "json"], ["xml", "JSON"]),
        (
            "GREENROOM_CORS_ORIGINS",
            ["https://a.example", "http://localhost:3000, https://b.example"],
            ["*", "https://a.example/"],
        ),
        ("AUTH_ORG_CLAIM", ["tenant", "https://a.example/org"], ["exp", "user_id"]),
    ] {
        for text in valid {
            assert_eq!(outcome(&example_with(&[(name, text)])), "valid", "{name}={text}");
        }
        for text in invalid {
            assert!(outcome(&example_with(&[(name, text)])).contains(name), "{name}={text}");
        }
    }
}

#[test]
fn exactly_one_verification_method_is_required() {
    const SECRET: (&str, &str) = ("AUTH_JWT_SECRET", "thirty-two bytes of a secret, and more");
    const PREVIOUS: (&str, &str) =
        ("AUTH_JWT_SECRET_PREVIOUS", "thirty-two bytes of the one before it");
    const JWKS: (&str, &str) = ("AUTH_JWKS_URL", "https://id.example/jwks.json");
    const NO_SECRET: (&str, &str) = ("AUTH_JWT_SECRET", "");
    // `main` installs the cryptography provider that reqwest needs; a test must do the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for valid in [&[SECRET][..], &[SECRET, PREVIOUS], &[NO_SECRET, JWKS]] {
        assert_eq!(outcome(&example_with(valid)), "valid");
    }
    assert!(outcome(&example_with(&[SECRET, JWKS])).contains("exactly one of"));
    assert!(outcome(&example_with(&[NO_SECRET])).contains("exactly one of"));
    assert!(
        outcome(&example_with(&[NO_SECRET, JWKS, PREVIOUS]))
            .contains("is set without AUTH_JWT_SECRET")
    );
    for url in ["http://id.example/jwks", "ftp://id.example", "id.example", "http://10.0.0.1/jwks"]
    {
        let outcome = outcome(&example_with(&[NO_SECRET, ("AUTH_JWKS_URL", url)]));
        assert!(outcome.contains("AUTH_JWKS_URL must be"), "{url}: {outcome}");
    }
    for url in ["http://localhost:9/jwks", "http://127.0.0.1/jwks", "http://[::1]:8080/jwks"] {
        assert_eq!(outcome(&example_with(&[NO_SECRET, ("AUTH_JWKS_URL", url)])), "valid", "{url}");
    }
    let missing = ("AUTH_JWT_PUBLIC_KEY_FILE", "nowhere.pem");
    assert!(outcome(&example_with(&[NO_SECRET, missing])).contains("cannot be read"));
}

#[test]
fn variables_without_effect_are_listed() {
    let settings = read(&example_with(&[("GREENROOM_CONSOLE", "true")])).ok().unwrap();
    assert_eq!(settings.without_effect, ["GREENROOM_CONSOLE"]);
}
