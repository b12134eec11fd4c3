//! The configuration against `.env.example`, and every variable from its wrong side.

use super::reader::Reader;
use super::variable::{Need, VARIABLES};
use super::*;

const EXAMPLE: &str = include_str!("../../../../.env.example");

fn read(texts: &[(&str, &str)]) -> Result<Settings, Faults> {
    let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Settings::of(Reader::of(texts.collect()))
}

fn told(texts: &[(&str, &str)]) -> String {
    read(texts).map_or_else(|faults| faults.to_string(), |_| "usable".to_owned())
}

/// The example's assignments: name, text, and whether the line is commented out.
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

/// What the example sets, with some of it changed.
fn usable(changed: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let set = example().into_iter().filter(|(.., commented)| !commented);
    let mut texts: Vec<_> = set.map(|(name, text, _)| (name, text)).collect();
    texts.retain(|(name, _)| !changed.iter().any(|(changed, _)| changed == name));
    texts.extend(changed);
    texts
}

#[test]
fn the_example_names_every_variable_with_its_default() {
    let named: Vec<_> = example().into_iter().map(|(name, ..)| name).collect();
    let known: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    assert_eq!(named, known);
    for (variable, (name, text, commented)) in VARIABLES.iter().zip(example()) {
        match variable.need {
            Need::Required => assert!(!commented, "{name} is required, and has to be set"),
            Need::Default(default) => assert_eq!((text, commented), (default, true), "{name}"),
            Need::OneOf => assert_eq!(commented, name != "AUTH_JWT_SECRET", "{name}"),
        }
    }
}

#[test]
fn the_example_is_a_usable_configuration() {
    assert_eq!(told(&usable(&[])), "usable");
}

#[test]
fn every_fault_is_told_at_once_and_no_value_is_repeated() {
    // What takes any text cannot be wrong.
    const ANYTHING: [&str; 6] = [
        "LIVEKIT_API_KEY",
        "LIVEKIT_API_KEY_PREVIOUS",
        "AUTH_JWT_ISSUER",
        "AUTH_JWT_AUDIENCE",
        "AUTH_ORG_CLAIM",
        "AUTH_USER_CLAIM",
    ];
    let wrong: Vec<_> = VARIABLES.iter().map(|variable| (variable.name, "???s3cret")).collect();
    let told = told(&wrong);
    for variable in VARIABLES.iter().filter(|variable| !ANYTHING.contains(&variable.name)) {
        let fault = told.lines().any(|line| line.trim_start().starts_with(variable.name));
        assert!(fault, "{} is not told in:\n{told}", variable.name);
    }
    assert!(told.contains("AUTH_ORG_CLAIM and AUTH_USER_CLAIM must be two claims"), "{told}");
    assert!(told.contains("exactly one of AUTH_JWT_SECRET"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
}

#[test]
fn what_is_missing_is_told_at_once() {
    let told = told(&[]);
    for variable in VARIABLES {
        let is_told = told.contains(&format!("{} is required", variable.name));
        assert_eq!(is_told, matches!(variable.need, Need::Required), "{}", variable.name);
    }
    assert!(told.contains("exactly one of"), "{told}");
}

#[test]
fn both_sides_of_every_range() {
    for (name, right, wrong) in [
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
        for text in right {
            assert_eq!(told(&usable(&[(name, text)])), "usable", "{name}={text}");
        }
        for text in wrong {
            assert!(told(&usable(&[(name, text)])).contains(name), "{name}={text}");
        }
    }
}

#[test]
fn callers_are_verified_in_exactly_one_way() {
    const SECRET: (&str, &str) = ("AUTH_JWT_SECRET", "thirty-two bytes of a secret, and more");
    const PREVIOUS: (&str, &str) =
        ("AUTH_JWT_SECRET_PREVIOUS", "thirty-two bytes of the one before it");
    const JWKS: (&str, &str) = ("AUTH_JWKS_URL", "https://id.example/jwks.json");
    const NO_SECRET: (&str, &str) = ("AUTH_JWT_SECRET", "");
    // reqwest makes its client on the cryptography that main installs.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for right in [&[SECRET][..], &[SECRET, PREVIOUS], &[NO_SECRET, JWKS]] {
        assert_eq!(told(&usable(right)), "usable");
    }
    assert!(told(&usable(&[SECRET, JWKS])).contains("exactly one of"));
    assert!(told(&usable(&[NO_SECRET])).contains("exactly one of"));
    assert!(told(&usable(&[NO_SECRET, JWKS, PREVIOUS])).contains("only used beside"));
    for url in ["http://id.example/jwks", "ftp://id.example", "id.example", "http://10.0.0.1/jwks"]
    {
        let told = told(&usable(&[NO_SECRET, ("AUTH_JWKS_URL", url)]));
        assert!(told.contains("AUTH_JWKS_URL must be"), "{url}: {told}");
    }
    for url in ["http://localhost:9/jwks", "http://127.0.0.1/jwks", "http://[::1]:8080/jwks"] {
        assert_eq!(told(&usable(&[NO_SECRET, ("AUTH_JWKS_URL", url)])), "usable", "{url}");
    }
    let missing = ("AUTH_JWT_PUBLIC_KEY_FILE", "nowhere.pem");
    assert!(told(&usable(&[NO_SECRET, missing])).contains("cannot be read"));
}

#[test]
fn what_changes_nothing_yet_is_known() {
    let settings = read(&usable(&[("GREENROOM_CONSOLE", "true")])).ok().unwrap();
    assert_eq!(settings.without_effect, ["GREENROOM_CONSOLE"]);
}
