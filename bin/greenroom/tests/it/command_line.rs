//! The command line: output and exit codes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use diesel::sql_types::{Bool, Integer, Nullable};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use greenroom_testkit::{paths, ports};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::app::{AUTH_SECRET, App, answer, environment, uuid};

/// Returns a command that runs the program with an empty environment.
pub fn greenroom(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn invalid_configuration_exits_2_with_all_faults() {
    let output = greenroom(&["serve"]).env("GREENROOM_LISTEN", "nowhere").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let printed = String::from_utf8(output.stderr).unwrap();
    for fault in
        ["GREENROOM_LISTEN must be", "DATABASE_URL is required", "exactly one of AUTH_JWT_SECRET"]
    {
        assert!(printed.contains(fault), "{printed}");
    }
}

#[tokio::test]
async fn value_that_is_not_utf_8_is_refused_and_not_printed() {
    let not_utf_8 = OsStr::from_bytes(b"postgres://u:s3cret\xff@h/db");
    let output = greenroom(&["migrate"]).env("DATABASE_URL", not_utf_8).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(
        printed.contains("DATABASE_URL must be UTF-8") && !printed.contains("s3cret"),
        "{printed}"
    );
    // Variables of other programs are ignored.
    let output = greenroom(&["migrate"]).env("FOO", not_utf_8).output().await.unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("DATABASE_URL is required"));
}

#[tokio::test]
async fn unusable_database_url_exits_2_and_password_is_not_printed() {
    for url in [
        "mysql://h/db",
        "postgres://u:s3cret@h:port/db",
        "postgres://u:s3cret@h/db?sslmode=require",
    ] {
        let output = greenroom(&["migrate"]).env("DATABASE_URL", url).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{url}");
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(printed.contains("DATABASE_URL must") && !printed.contains("s3cret"), "{printed}");
    }
}

#[tokio::test]
async fn wrong_usage_exits_2() {
    assert_eq!(greenroom(&["dance"]).output().await.unwrap().status.code(), Some(2));
    assert_eq!(greenroom(&["migrate"]).output().await.unwrap().status.code(), Some(2));
}

#[tokio::test]
async fn eight_concurrent_processes_apply_each_migration_once() {
    let database = Database::empty().await.unwrap();
    let migrations =
        (0..8).map(|_| greenroom(&["migrate"]).env("DATABASE_URL", database.url()).output());
    let outputs = futures_util::future::join_all(migrations.collect::<Vec<_>>()).await;
    let mut applied = 0;
    for output in outputs {
        let output = output.unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
        applied += printed.matches("applied").count();
    }
    let migrations = paths::migration_names().unwrap().len();
    assert_eq!(applied, migrations, "each migration is applied once");
}

#[tokio::test]
async fn migrations_are_reverted_and_applied_again() {
    let database = Database::fresh().await.unwrap();
    let migrate = async |arguments: &[&str]| {
        let output =
            greenroom(arguments).env("DATABASE_URL", database.url()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let newest = paths::migration_names().unwrap().pop().unwrap();
    let reverted = migrate(&["migrate", "--revert", "1", "--yes"]).await;
    assert!(reverted.starts_with("reverted") && reverted.contains(newest.as_str()), "{reverted}");
    assert!(migrate(&["migrate"]).await.contains(newest.as_str()));
    assert!(migrate(&["migrate"]).await.contains("nothing to do"));
}

#[tokio::test]
async fn revert_needs_confirmation_and_force_if_it_loses_data() {
    let database = Database::fresh().await.unwrap();
    let names = paths::migration_names().unwrap();
    let (newest, all) = (names.last().unwrap().as_str(), names.len().to_string());
    let migrate = async |arguments: &[&str]| {
        let mut command = greenroom(&[&["migrate"], arguments].concat());
        outcome(command.env("DATABASE_URL", database.url())).await
    };
    let (printed, code) = migrate(&["--revert", "1"]).await;
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains(newest) && printed.contains("pass --yes"), "{printed}");
    assert!(!printed.contains("reverted  "), "{printed}");

    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let insert = "insert into organizations (id) values (gen_random_uuid()), (gen_random_uuid())";
    sql_query(insert).execute(&mut db).await.unwrap();
    let (printed, code) = migrate(&["--revert", all.as_str(), "--yes"]).await;
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("loses 2 rows of organizations"), "{printed}");
    assert!(printed.contains("pass --force"), "{printed}");
    let (printed, code) = migrate(&[]).await;
    assert!(code == Some(0) && printed.contains("nothing to do"), "{printed}");

    let (printed, code) = migrate(&["--revert", all.as_str(), "--force"]).await;
    assert!(code == Some(2) && printed.contains("pass --yes"), "{printed}");
    let (printed, code) = migrate(&["--revert", all.as_str(), "--yes", "--force"]).await;
    assert!(code == Some(0) && printed.matches("reverted  ").count() == names.len(), "{printed}");
    let (printed, code) = migrate(&["--revert", "1"]).await;
    assert!(code == Some(0) && printed.contains("no migration is applied"), "{printed}");
    let (printed, code) = migrate(&["--yes"]).await;
    assert!(code == Some(2) && printed.contains("--revert"), "{printed}");
}

#[tokio::test]
async fn unreachable_database_exits_1_and_password_is_not_printed() {
    let url = "postgres://greenroom:s3cret@127.0.0.1:9/greenroom";
    let output = greenroom(&["migrate"]).env("DATABASE_URL", url).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(printed.contains("refused") && !printed.contains("s3cret"), "{printed}");
}

/// Runs a command. Returns its output on both streams, and its exit code.
pub async fn outcome(command: &mut Command) -> (String, Option<i32>) {
    let output = command.output().await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (String::from_utf8(printed).unwrap(), output.status.code())
}

#[tokio::test]
async fn every_command_has_help_and_help_lists_exit_codes() {
    for command in [
        &["--help"][..],
        &["serve", "--help"],
        &["migrate", "--help"],
        &["doctor", "--help"],
        &["token", "--help"],
        &["openapi", "--help"],
        &["healthcheck", "--help"],
        &["organization", "--help"],
        &["organization", "limit", "--help"],
        &["templates", "--help"],
        &["templates", "apply", "--help"],
        &["templates", "export", "--help"],
    ] {
        let (printed, code) = outcome(&mut greenroom(command)).await;
        assert!(code == Some(0) && printed.contains("Usage: greenroom"), "{command:?}: {printed}");
    }
    let (printed, _) = outcome(&mut greenroom(&["--help"])).await;
    assert!(
        printed.contains("Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."),
        "{printed}"
    );
}

#[tokio::test]
async fn doctor_checks_every_dependency_and_advises() {
    let database = Database::fresh().await.unwrap();
    let livekit = Server::shared().await.unwrap();
    let doctor = |changed: &[(&'static str, &'static str)]| {
        let mut command = greenroom(&["doctor"]);
        command.envs(environment(database.url(), livekit)).envs(changed.iter().copied());
        command
    };
    let (printed, code) = outcome(&mut doctor(&[])).await;
    assert_eq!(code, Some(0), "{printed}");
    for part in ["✓ database", "✓ migrations", "✓ livekit", "✓ callers"] {
        assert!(printed.contains(part), "{printed}");
    }
    let (printed, code) = outcome(&mut doctor(&[
        ("DATABASE_URL", "postgres://greenroom:s3cret@127.0.0.1:9/greenroom"),
        ("LIVEKIT_URL", "ws://127.0.0.1:9"),
        ("AUTH_JWT_SECRET", ""),
        ("AUTH_JWKS_URL", "http://127.0.0.1:9/jwks"),
        ("GREENROOM_METRICS_LISTEN", "127.0.0.1:9"),
    ]))
    .await;
    assert_eq!(code, Some(1), "{printed}");
    for part in [
        "✗ database",
        "Start PostgreSQL, or correct DATABASE_URL",
        "✗ migrations",
        "✗ livekit",
        "Start LiveKit, or correct LIVEKIT_API_URL",
        "✗ callers",
        "AUTH_JWKS_URL cannot be reached",
        "GREENROOM_METRICS_LISTEN is set but has no effect",
    ] {
        assert!(printed.contains(part), "{part} is not in:\n{printed}");
    }
    assert!(!printed.contains("s3cret") && !printed.contains(livekit.api_secret()), "{printed}");
    let wrong_key = ("LIVEKIT_API_SECRET", "a secret LiveKit has never heard of");
    let (printed, code) = outcome(&mut doctor(&[wrong_key])).await;
    assert!(
        code == Some(1) && printed.contains("refuses the call; check its API key"),
        "{printed}"
    );
    let (printed, code) = outcome(&mut doctor(&[("DATABASE_POOL_SIZE", "0")])).await;
    assert!(code == Some(2) && printed.contains("DATABASE_POOL_SIZE must be"), "{printed}");

    let empty = Database::empty().await.unwrap();
    let mut command = greenroom(&["doctor"]);
    let (printed, code) = outcome(command.envs(environment(empty.url(), livekit))).await;
    assert!(code == Some(1) && printed.contains("run `greenroom migrate`"), "{printed}");
}

#[tokio::test]
async fn development_token_is_accepted_by_serve() {
    const SETTINGS: [(&str, &str); 4] = [
        ("AUTH_JWT_ISSUER", "https://id.example"),
        ("AUTH_JWT_AUDIENCE", "greenroom"),
        ("AUTH_ORG_CLAIM", "tenant"),
        ("AUTH_USER_CLAIM", "sub"),
    ];
    let app = App::with(&SETTINGS).await;
    let token = async |arguments: &[&str]| {
        let org = app.organization.to_string();
        let mut command = greenroom(&[&["token", "--org", &org], arguments].concat());
        command.envs(SETTINGS).env("AUTH_JWT_SECRET", AUTH_SECRET);
        let (printed, code) = outcome(&mut command).await;
        assert_eq!(code, Some(0), "{printed}");
        printed.trim().to_owned()
    };
    let get = async |path: &str, token: &str| {
        answer(app.client.get(format!("{}{path}", app.address)).bearer_auth(token)).await
    };
    let backend = token(&[]).await;
    assert_eq!(get("/api/v1/session-templates", &backend).await.status, 200);
    let user = token(&["--user", "ann", "--scope", "sessions:read", "--ttl", "5m"]).await;
    assert_eq!(get("/api/v1/sessions", &user).await.status, 200);
    get("/api/v1/session-templates", &user).await.assert_problem(403, "scope_missing");
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(&user).unwrap().claims;
    let lifetime = claims["exp"].as_u64().unwrap() - jsonwebtoken::get_current_timestamp();
    assert!((295..=300).contains(&lifetime), "{claims}");
    assert_eq!((&claims["sub"], &claims["tenant"]), (&json!("ann"), &json!(app.organization)));

    for (arguments, expected) in [
        (&["token"][..], "--org"),
        (&["token", "--org", "42"], "must be a UUID"),
        (&["token", "--org", &uuid().to_string(), "--user", ""], "must be 1 to 128 characters"),
        (&["token", "--org", &uuid().to_string(), "--ttl", "soon"], "invalid value"),
        (&["token", "--org", &uuid().to_string()], "AUTH_JWT_SECRET is required to sign a token"),
    ] {
        let (printed, code) = outcome(&mut greenroom(arguments)).await;
        assert!(code == Some(2) && printed.contains(expected), "{arguments:?}: {printed}");
    }
}

#[tokio::test]
async fn healthcheck_checks_the_configured_address() {
    let app = App::start().await;
    let listen = app.address.trim_start_matches("http://");
    let (printed, code) =
        outcome(greenroom(&["healthcheck"]).env("GREENROOM_LISTEN", listen)).await;
    assert!(code == Some(0) && printed.contains("database    ok"), "{printed}");
    // A server that listens on all interfaces responds on loopback.
    let all_interfaces = listen.replace("127.0.0.1", "0.0.0.0");
    let (printed, code) =
        outcome(greenroom(&["healthcheck"]).env("GREENROOM_LISTEN", all_interfaces)).await;
    assert_eq!(code, Some(0), "{printed}");
    let unused = format!("127.0.0.1:{}", ports::free_tcp_port().unwrap());
    let (printed, code) =
        outcome(greenroom(&["healthcheck"]).env("GREENROOM_LISTEN", unused)).await;
    assert!(code == Some(1) && printed.contains("does not respond"), "{printed}");

    let empty = Database::empty().await.unwrap();
    let app = App::on(empty, Server::shared().await.unwrap(), &[]).await;
    let listen = app.address.trim_start_matches("http://");
    let (printed, code) =
        outcome(greenroom(&["healthcheck"]).env("GREENROOM_LISTEN", listen)).await;
    assert!(code == Some(1) && printed.contains("not applied"), "{printed}");
}

#[derive(QueryableByName, Debug, PartialEq)]
struct Limit {
    #[diesel(sql_type = Nullable<Integer>)]
    max_active_sessions: Option<i32>,
    #[diesel(sql_type = Bool)]
    unlimited: bool,
}

#[tokio::test]
async fn organization_limit_is_stored() {
    let database = Database::fresh().await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let organization = uuid().to_string();
    for (limit, max_active_sessions, unlimited) in [
        ("10", Some(10), false),
        ("unlimited", None, true),
        ("0", Some(0), false),
        ("default", None, false),
    ] {
        let mut command = greenroom(&["organization", "limit", &organization, limit]);
        let (printed, code) = outcome(command.env("DATABASE_URL", database.url())).await;
        assert!(code == Some(0) && printed.contains(&organization), "{printed}");
        let stored: Vec<Limit> =
            sql_query("select max_active_sessions, unlimited from organizations")
                .load(&mut db)
                .await
                .unwrap();
        assert_eq!(stored, [Limit { max_active_sessions, unlimited }], "{limit}");
    }
    for wrong in ["-1", "ten", "99999999999"] {
        let (printed, code) =
            outcome(&mut greenroom(&["organization", "limit", &organization, "--", wrong])).await;
        assert!(code == Some(2) && printed.contains("must be a whole number from 0"), "{printed}");
    }
}

/// Writes a file and returns its path.
pub fn write_file(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn environment_overrides_file_and_secrets_come_from_files() {
    let home = paths::create_temp_dir("config", None).unwrap();
    let database = Database::fresh().await.unwrap();
    let livekit = Server::shared().await.unwrap();
    let secret = write_file(&home, "secret", &format!("{}\n", livekit.api_secret()));
    let config = write_file(
        &home,
        "greenroom.toml",
        &format!(
            "database_url = \"postgres://ann@127.0.0.1:9/nothing\"\ndatabase_pool_size = 7\n\
             livekit_url = \"{}\"\nlivekit_api_key = \"{}\"\nlivekit_api_secret_file = \"{secret}\"\n\
             auth_jwt_secret = \"{}\"\ngreenroom_console = false\n",
            livekit.url(),
            livekit.api_key(),
            AUTH_SECRET,
        ),
    );
    let url = write_file(&home, "url", database.url());
    let (printed, code) =
        outcome(greenroom(&["doctor", "--config", &config]).env("DATABASE_URL_FILE", &url)).await;
    assert!(code == Some(0) && printed.contains("up to 7 connections"), "{printed}");
    let (printed, _) = outcome(
        greenroom(&["--config", &config, "doctor"])
            .envs([("DATABASE_URL_FILE", url.as_str()), ("DATABASE_POOL_SIZE", "3")]),
    )
    .await;
    assert!(
        printed.contains("up to 3 connections"),
        "the environment overrides the file: {printed}"
    );
    let (printed, code) = outcome(
        greenroom(&["doctor", "--config", &config])
            .envs([("DATABASE_URL_FILE", url.as_str()), ("DATABASE_URL", database.url())]),
    )
    .await;
    assert!(code == Some(2) && printed.contains("set only one of them"), "{printed}");
    let (printed, code) =
        outcome(greenroom(&["migrate"]).env("DATABASE_URL_FILE", "nowhere")).await;
    let expected = "DATABASE_URL_FILE names a file that cannot be read";
    assert!(code == Some(2) && printed.contains(expected), "{printed}");

    let invalid = write_file(
        &home,
        "wrong.toml",
        "greenroom_listen = \"nowhere\"\ngreenroom_lissten = \"x\"\nGREENROOM_LOG = \"info\"\nlivekit_url = [1]\n",
    );
    let (printed, code) = outcome(&mut greenroom(&["serve", "--config", &invalid])).await;
    assert_eq!(code, Some(2));
    for fault in [
        "GREENROOM_LISTEN must be",
        "greenroom_lissten in",
        "GREENROOM_LOG in",
        "livekit_url in",
        "must be a single value",
        "DATABASE_URL is required",
    ] {
        assert!(printed.contains(fault), "{fault} is not in:\n{printed}");
    }
    let broken = write_file(&home, "broken.toml", "auth_jwt_secret = \"s3cret");
    let (printed, code) = outcome(&mut greenroom(&["serve", "--config", &broken])).await;
    assert!(
        code == Some(2) && printed.contains("is not valid TOML") && !printed.contains("s3cret"),
        "{printed}"
    );
    let (printed, code) = outcome(&mut greenroom(&["serve", "--config", "nowhere.toml"])).await;
    assert!(code == Some(2) && printed.contains("cannot be read"), "{printed}");
    std::fs::remove_dir_all(home).unwrap();
}

#[tokio::test]
async fn variable_without_effect_is_logged() {
    let app = App::with(&[("GREENROOM_CONSOLE", "true")]).await;
    let log = app.process.output();
    let line = log.lines().find(|line| line.contains("ignored variable that has no effect"));
    assert!(line.is_some_and(|line| line.contains("GREENROOM_CONSOLE")), "{log}");
}

#[tokio::test]
async fn closed_pipe_changes_no_exit_code_and_causes_no_panic() {
    let livekit = Server::shared().await.unwrap();
    let database = Database::empty().await.unwrap();
    let environment = environment(database.url(), livekit);
    let organization = uuid().to_string();
    for arguments in [
        &["openapi"][..],
        &["migrate"],
        &["migrate"],
        &["doctor"],
        &["token", "--org", &organization],
        &["organization", "limit", &organization, "5"],
        &["templates", "export", "--org", &organization],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = greenroom(arguments);
        let (errors, code) = outcome_with_stdout(command.envs(&environment), writer).await;
        assert_eq!((errors.as_str(), code), ("", Some(0)), "{arguments:?}");
    }
}

#[tokio::test]
async fn closed_standard_error_does_not_change_the_exit_code() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = greenroom(&["migrate"]).stderr(writer).status().await.unwrap();
    assert_eq!(status.code(), Some(2));
}

#[tokio::test]
async fn full_disk_fails_a_command_that_prints_its_result() {
    let full = std::fs::File::options().write(true).open("/dev/full");
    // Only Linux has this device.
    let Ok(full) = full else { return };
    let (errors, code) = outcome_with_stdout(&mut greenroom(&["openapi"]), full).await;
    assert!(
        errors.starts_with("greenroom: the command has run, but failed to print its result: "),
        "{errors}"
    );
    assert_eq!(code, Some(1));
}

/// Runs a command with this standard output. Returns its standard error and its exit code.
async fn outcome_with_stdout(
    command: &mut Command,
    stdout: impl Into<Stdio>,
) -> (String, Option<i32>) {
    // `Command::output` would replace the standard output.
    let child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().await.unwrap();
    (String::from_utf8(output.stderr).unwrap(), output.status.code())
}
