//! `greenroom templates apply` and `greenroom templates export`.

use std::path::PathBuf;

use diesel::sql_query;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_testkit::paths;
use greenroom_testkit::pg::Database;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{App, uuid};
use crate::command_line::{greenroom, outcome, write_file};

/// A database with one organization, and a folder for template files.
struct Fixture {
    database: Database,
    organization: String,
    home: PathBuf,
}

impl Fixture {
    async fn new() -> Self {
        let database = Database::fresh().await.unwrap();
        let home = paths::create_temp_dir("templates", None).unwrap();
        Self { database, organization: uuid().to_string(), home }
    }

    /// Applies this text as a template file. Returns the output and the exit code.
    async fn apply(&self, text: &str, options: &[&str]) -> (String, Option<i32>) {
        write_file(&self.home, "templates.toml", text);
        let arguments = ["templates", "apply", "--org", &self.organization, "templates.toml"];
        let mut command = greenroom(&[&arguments[..], options].concat());
        command.env("DATABASE_URL", self.database.url()).current_dir(&self.home);
        outcome(&mut command).await
    }

    #[track_caller]
    fn succeeded((output, code): (String, Option<i32>)) -> String {
        assert_eq!(code, Some(0), "{output}");
        output
    }

    async fn export(&self) -> String {
        let mut command = greenroom(&["templates", "export", "--org", &self.organization]);
        Self::succeeded(outcome(command.env("DATABASE_URL", self.database.url())).await)
    }

    async fn run(&self, statement: &str) {
        let mut db = AsyncPgConnection::establish(self.database.url()).await.unwrap();
        sql_query(statement).execute(&mut db).await.unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

const TWO: &str = r#"
[[template]]
name = "Support"
agent_name = "greeter"
agent_metadata = { greeting = "Hello", "top level" = { deep = 1 } }
enabled_panels = ["chat"]

[[template]]
name = "Sales"
max_duration_seconds = 600
"#;

#[tokio::test]
async fn applying_same_file_again_changes_nothing() {
    let fixture = Fixture::new().await;
    let output = Fixture::succeeded(fixture.apply(TWO, &[]).await);
    assert_eq!(output, "+ Support\n+ Sales\n\n2 created\n");
    let output = Fixture::succeeded(fixture.apply(TWO, &[]).await);
    assert_eq!(output, "nothing to do: 2 unchanged\n");
    let changed = TWO.replace("600", "700");
    assert!(
        Fixture::succeeded(fixture.apply(&changed, &["--prune"]).await)
            .contains("1 changed, 1 unchanged")
    );
}

#[tokio::test]
async fn dry_run_prints_changes_and_writes_nothing() {
    let fixture = Fixture::new().await;
    Fixture::succeeded(fixture.apply(TWO, &[]).await);
    let before = fixture.export().await;
    let changed = r#"
        [[template]]
        name = "New"
        [[template]]
        name = "SUPPORT"
        agent_metadata = { greeting = "Hi", "top level" = { deep = 1, "deeper.\u001B" = [2] } }
        agent_name = "closer"
    "#;
    let output = Fixture::succeeded(fixture.apply(changed, &["--dry-run", "--prune"]).await);
    let expected = r#"+ New
~ SUPPORT
    name                                       "Support" → "SUPPORT"
    enabled_panels                             ["chat"] → not set
    agent_name                                 "greeter" → "closer"
    agent_metadata.greeting                    "Hello" → "Hi"
    agent_metadata."top level"."deeper.\u001b" not set → [2]
- Sales

1 to create, 1 to change, 1 to archive; nothing was written
"#;
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(&output), words(expected), "{output}");
    assert_eq!(fixture.export().await, before);

    let aligned: Vec<_> = output.lines().filter(|line| line.starts_with("    ")).collect();
    let column = aligned[0].find("\"Support\"");
    assert!(column.is_some() && column == aligned[2].find("\"greeter\""), "{output}");
}

#[tokio::test]
async fn output_is_colored_only_on_terminals() {
    let fixture = Fixture::new().await;
    assert!(!Fixture::succeeded(fixture.apply(TWO, &["--dry-run"]).await).contains('\u{1b}'));
    let arguments = ["templates", "apply", "--org", &fixture.organization, "templates.toml"];
    let mut forced = greenroom(&arguments);
    forced.envs([("DATABASE_URL", fixture.database.url()), ("CLICOLOR_FORCE", "1")]);
    let (output, _) = outcome(forced.current_dir(&fixture.home)).await;
    assert!(output.contains("\u{1b}[32m+ Support"), "{output:?}");
}

#[tokio::test]
async fn prune_archives_templates_that_file_lacks() {
    let fixture = Fixture::new().await;
    Fixture::succeeded(fixture.apply(TWO, &[]).await);
    let one = "[[template]]\nname = \"Sales\"\nmax_duration_seconds = 600\n";
    assert_eq!(Fixture::succeeded(fixture.apply(one, &[]).await), "nothing to do: 1 unchanged\n");
    let output = Fixture::succeeded(fixture.apply(one, &["--prune"]).await);
    assert_eq!(output, "- Support\n\n1 archived, 1 unchanged\n");
    let exported = fixture.export().await;
    assert!(exported.contains("Sales") && !exported.contains("Support"), "{exported}");
    // The name is free again, so the first file creates a new template.
    assert_eq!(
        Fixture::succeeded(fixture.apply(TWO, &[]).await),
        "+ Support\n\n1 created, 1 unchanged\n"
    );

    let (output, code) = fixture.apply("# truncated\n", &["--prune"]).await;
    assert!(code == Some(2) && output.contains("--prune would archive all"), "{output}");
    assert!(fixture.export().await.contains("Sales"));
}

#[tokio::test]
async fn invalid_file_is_reported_by_line_and_changes_nothing() {
    let fixture = Fixture::new().await;
    Fixture::succeeded(fixture.apply(TWO, &[]).await);
    let before = fixture.export().await;
    let wrong = "[[template]]\nname = \"New\"\n\n[[template]]\nname = \"Other\"\nagent_nmae = \"x\"\n\n\
                 [[template]]\nname = \"Third\"\nmax_duration_seconds = 1\n";
    let (output, code) = fixture.apply(wrong, &[]).await;
    assert_eq!(
        output,
        "templates.toml:6: agent_nmae is not a setting of a template; did you mean agent_name?\n\
         templates.toml:10: max_duration_seconds must be a whole number of seconds from 60 to 86400\n"
    );
    assert_eq!(code, Some(2));
    for options in [&[][..], &["--dry-run"]] {
        // PostgreSQL compares the names, and ignores the case of non-ASCII letters as well.
        let twice = "[[template]]\nname = \"Äb\"\n\n[[template]]\nname = \"äB\"\n";
        let (output, code) = fixture.apply(twice, options).await;
        let expected = "templates.toml:4: name \"äB\" is already taken; \
                        use names that are unique, ignoring case\n";
        assert_eq!((output.as_str(), code), (expected, Some(2)));
    }
    assert_eq!(fixture.export().await, before);

    let arguments = ["templates", "apply", "--org", &fixture.organization, "nowhere.toml"];
    let mut absent = greenroom(&arguments);
    absent.env("DATABASE_URL", fixture.database.url()).current_dir(&fixture.home);
    let (output, code) = outcome(&mut absent).await;
    assert!(code == Some(2) && output.starts_with("nowhere.toml cannot be read"), "{output}");
}

#[tokio::test]
async fn failed_apply_changes_nothing() {
    let fixture = Fixture::new().await;
    fixture.run("alter table session_templates add check (name <> 'Sales')").await;
    let (output, code) = fixture.apply(TWO, &[]).await;
    assert!(code == Some(1) && output.contains("the templates are unchanged"), "{output}");
    assert!(!fixture.export().await.contains("Support"));
}

/// Templates with every setting, and with values that TOML cannot express or writes differently
/// from JSON.
fn odd_templates() -> [Value; 4] {
    [
        json!({
            "name": "Everything \"quoted\" \\ 'too' é 🎤", "modality_profile": "audio+camera+screen+text",
            "enabled_panels": ["a", "b.c_d-e"], "agent_name": "an agent", "agent_required": false,
            "agent_metadata": {
                "": {}, "a b.c": [], "numbers": [0, -1, 1.5, 1e300, 9_223_372_036_854_775_807_i64],
                "text": "two\nlines\t'''\"\"\"\u{1}\u{7f}", "list": [{"a": [[true]]}, "mixed", 1],
            },
            "agent_deadline_seconds": 5, "on_agent_hangup": "end", "join_window_seconds": 30,
            "reconnect_window_seconds": 5, "max_duration_seconds": 60, "token_ttl_seconds": 60,
        }),
        json!({"name": "Null", "agent_metadata": {"deep": [1, {"a": null}], "text": "it's"}}),
        json!({"name": "Large", "agent_metadata": {"number": 18_446_744_073_709_551_615_u64}}),
        json!({"name": "On join", "agent_name": "b", "room_creation": "on_join", "enabled_panels": []}),
    ]
}

#[tokio::test]
async fn exported_file_applies_without_changes() {
    let app = App::start().await;
    for template in odd_templates() {
        app.create_template(template).await;
    }
    let old = app.create_template(json!({"name": "Archived"})).await;
    let archived = format!("/api/v1/session-templates/{old}");
    assert_eq!(app.request(Method::DELETE, &archived).send().await.unwrap().status(), 204);
    let before = app.get("/api/v1/session-templates").await.body;

    let home = paths::create_temp_dir("templates", None).unwrap();
    let organization = app.organization.to_string();
    let run = async |arguments: &[&str]| {
        let mut command = greenroom(&[&["templates"], arguments].concat());
        command.env("DATABASE_URL", app.database_url()).current_dir(&home);
        Fixture::succeeded(outcome(&mut command).await)
    };
    let output = run(&["export", "--org", &organization, "all.toml"]).await;
    assert_eq!(output, "templates written to all.toml: 4\n");
    let output = run(&["apply", "--org", &organization, "--prune", "all.toml"]).await;
    assert_eq!(output, "nothing to do: 4 unchanged\n");
    assert_eq!(app.get("/api/v1/session-templates").await.body, before);

    // The file creates the same templates in another organization.
    let other = uuid().to_string();
    let output = run(&["apply", "--org", &other, "all.toml"]).await;
    assert!(output.ends_with("\n4 created\n"), "{output}");
    let exported = run(&["export", "--org", &other]).await;
    assert_eq!(exported, std::fs::read_to_string(home.join("all.toml")).unwrap());
    std::fs::remove_dir_all(home).unwrap();
}

#[tokio::test]
async fn documented_example_prints_documented_output() {
    let guide = include_str!("../../../../docs/operations.md");
    let section = guide.split("\n## ").find(|section| section.starts_with("Templates in a file"));
    let blocks: Vec<_> = section.unwrap().split("```").skip(1).step_by(2).collect();
    let example = blocks[0].strip_prefix("toml\n").unwrap();
    let (support, _) = example.split_once("[[template]]\nname = \"Interview\"").unwrap();
    let before = support
        .replace("How can I help?", "Hello")
        .replace("\"Support\"\n", "\"Support\"\nmax_duration_seconds = 3600\n");
    let fixture = Fixture::new().await;
    assert!(Fixture::succeeded(fixture.apply(&before, &[]).await).contains("1 created"));
    let output = Fixture::succeeded(fixture.apply(example, &["--dry-run"]).await);
    assert_eq!(output.trim(), blocks[2].trim());
    assert!(Fixture::succeeded(fixture.apply(example, &[]).await).contains("1 created, 1 changed"));
}
