//! The command line: what it prints, and how it exits.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use greenroom_testkit::pg::Database;
use tokio::process::Command;

fn greenroom(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_configuration_with_faults_exits_2_and_tells_them_all() {
    let output = greenroom(&["serve"]).env("GREENROOM_LISTEN", "nowhere").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    for fault in
        ["GREENROOM_LISTEN must be", "DATABASE_URL is required", "AUTH_JWT_SECRET is required"]
    {
        assert!(told.contains(fault), "{told}");
    }
}

#[tokio::test]
async fn a_value_that_is_not_utf_8_is_named_and_not_shown() {
    let wrong = OsStr::from_bytes(b"postgres://u:s3cret\xff@h/db");
    let output = greenroom(&["migrate"]).env("DATABASE_URL", wrong).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("DATABASE_URL must be UTF-8") && !told.contains("s3cret"), "{told}");
    // A variable that is not ours may be anything.
    let output = greenroom(&["migrate"]).env("FOO", wrong).output().await.unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("DATABASE_URL is required"));
}

#[tokio::test]
async fn a_database_url_that_can_never_work_is_refused() {
    for url in [
        "mysql://h/db",
        "postgres://u:s3cret@h:port/db",
        "postgres://u:s3cret@h/db?sslmode=require",
    ] {
        let output = greenroom(&["migrate"]).env("DATABASE_URL", url).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{url}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("DATABASE_URL must") && !told.contains("s3cret"), "{told}");
    }
}

#[tokio::test]
async fn wrong_usage_exits_2() {
    assert_eq!(greenroom(&["dance"]).output().await.unwrap().status.code(), Some(2));
    assert_eq!(greenroom(&["migrate"]).output().await.unwrap().status.code(), Some(2));
}

#[tokio::test]
async fn eight_processes_migrate_at_once() {
    let database = Database::empty().await.unwrap();
    let migrations =
        (0..8).map(|_| greenroom(&["migrate"]).env("DATABASE_URL", database.url()).output());
    let outputs = futures_util::future::join_all(migrations.collect::<Vec<_>>()).await;
    let mut applied = 0;
    for output in outputs {
        let output = output.unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        applied += told.matches("applied").count();
    }
    assert_eq!(applied, 4, "each migration was applied once");
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
    let reverted = migrate(&["migrate", "--revert", "1"]).await;
    assert!(
        reverted.starts_with("reverted") && reverted.contains("create_session_events"),
        "{reverted}"
    );
    assert!(migrate(&["migrate"]).await.contains("create_session_events"));
    assert!(migrate(&["migrate"]).await.contains("nothing to do"));
}

#[tokio::test]
async fn a_database_that_is_not_there_exits_1_without_its_password() {
    let url = "postgres://greenroom:s3cret@127.0.0.1:9/greenroom";
    let output = greenroom(&["migrate"]).env("DATABASE_URL", url).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("refused") && !told.contains("s3cret"), "{told}");
}
