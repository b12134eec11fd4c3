//! Templates from a file and into one: `greenroom templates`.

use std::path::PathBuf;

use diesel::sql_query;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_testkit::pg::Database;
use greenroom_testkit::place;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{App, uuid};
use crate::command::{greenroom, outcome, write};

/// A database and a place for files.
struct Desk {
    database: Database,
    organization: String,
    home: PathBuf,
}

impl Desk {
    async fn fresh() -> Self {
        let database = Database::fresh().await.unwrap();
        let home = place::temporary("templates", None).unwrap();
        Self { database, organization: uuid().to_string(), home }
    }

    /// Applies this text; what was told, and the exit code.
    async fn apply(&self, text: &str, options: &[&str]) -> (String, Option<i32>) {
        write(&self.home, "templates.toml", text);
        let arguments = ["templates", "apply", "--org", &self.organization, "templates.toml"];
        let mut command = greenroom(&[&arguments[..], options].concat());
        command.env("DATABASE_URL", self.database.url()).current_dir(&self.home);
        outcome(&mut command).await
    }

    #[track_caller]
    fn told((told, code): (String, Option<i32>)) -> String {
        assert_eq!(code, Some(0), "{told}");
        told
    }

    async fn export(&self) -> String {
        let mut command = greenroom(&["templates", "export", "--org", &self.organization]);
        Self::told(outcome(command.env("DATABASE_URL", self.database.url())).await)
    }

    async fn run(&self, statement: &str) {
        let mut db = AsyncPgConnection::establish(self.database.url()).await.unwrap();
        sql_query(statement).execute(&mut db).await.unwrap();
    }
}

impl Drop for Desk {
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
async fn a_file_is_applied_and_the_same_again_changes_nothing() {
    let desk = Desk::fresh().await;
    let told = Desk::told(desk.apply(TWO, &[]).await);
    assert_eq!(told, "+ Support\n+ Sales\n\n2 created\n");
    let told = Desk::told(desk.apply(TWO, &[]).await);
    assert_eq!(told, "nothing to do: 2 unchanged\n");
    let changed = TWO.replace("600", "700");
    assert!(
        Desk::told(desk.apply(&changed, &["--prune"]).await).contains("1 changed, 1 unchanged")
    );
}

#[tokio::test]
async fn what_would_change_is_told_and_not_written() {
    let desk = Desk::fresh().await;
    Desk::told(desk.apply(TWO, &[]).await);
    let before = desk.export().await;
    let changed = r#"
        [[template]]
        name = "New"
        [[template]]
        name = "SUPPORT"
        agent_metadata = { greeting = "Hi", "top level" = { deep = 1, "deeper.\u001B" = [2] } }
        agent_name = "closer"
    "#;
    let told = Desk::told(desk.apply(changed, &["--dry-run", "--prune"]).await);
    let expected = r#"+ New
~ SUPPORT
    name                                       "Support" → "SUPPORT"
    enabled_panels                             ["chat"] → not set
    agent_name                                 "greeter" → "closer"
    agent_metadata.greeting                    "Hello" → "Hi"
    agent_metadata."top level"."deeper.\u001b" not set → [2]
- Sales

it would be 1 created, 1 changed, 1 archived; nothing is written
"#;
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed(&told), squeezed(expected), "{told}");
    assert_eq!(desk.export().await, before);

    let aligned: Vec<_> = told.lines().filter(|line| line.starts_with("    ")).collect();
    let column = aligned[0].find("\"Support\"");
    assert!(column.is_some() && column == aligned[2].find("\"greeter\""), "{told}");
}

#[tokio::test]
async fn colours_are_for_terminals() {
    let desk = Desk::fresh().await;
    assert!(!Desk::told(desk.apply(TWO, &["--dry-run"]).await).contains('\u{1b}'));
    let arguments = ["templates", "apply", "--org", &desk.organization, "templates.toml"];
    let mut forced = greenroom(&arguments);
    forced.envs([("DATABASE_URL", desk.database.url()), ("CLICOLOR_FORCE", "1")]);
    let (told, _) = outcome(forced.current_dir(&desk.home)).await;
    assert!(told.contains("\u{1b}[32m+ Support"), "{told:?}");
}

#[tokio::test]
async fn what_the_file_does_not_name_is_archived_when_asked() {
    let desk = Desk::fresh().await;
    Desk::told(desk.apply(TWO, &[]).await);
    let one = "[[template]]\nname = \"Sales\"\nmax_duration_seconds = 600\n";
    assert_eq!(Desk::told(desk.apply(one, &[]).await), "nothing to do: 1 unchanged\n");
    let told = Desk::told(desk.apply(one, &["--prune"]).await);
    assert_eq!(told, "- Support\n\n1 archived, 1 unchanged\n");
    let left = desk.export().await;
    assert!(left.contains("Sales") && !left.contains("Support"), "{left}");
    // The name is free, and the same file makes a new template of it.
    assert_eq!(Desk::told(desk.apply(TWO, &[]).await), "+ Support\n\n1 created, 1 unchanged\n");

    let (told, code) = desk.apply("# cut off\n", &["--prune"]).await;
    assert!(code == Some(2) && told.contains("--prune would archive them all"), "{told}");
    assert!(desk.export().await.contains("Sales"));
}

#[tokio::test]
async fn a_wrong_file_is_told_by_its_lines_and_changes_nothing() {
    let desk = Desk::fresh().await;
    Desk::told(desk.apply(TWO, &[]).await);
    let before = desk.export().await;
    let wrong = "[[template]]\nname = \"New\"\n\n[[template]]\nname = \"Other\"\nagent_nmae = \"x\"\n\n\
                 [[template]]\nname = \"Third\"\nmax_duration_seconds = 1\n";
    let (told, code) = desk.apply(wrong, &[]).await;
    assert_eq!(
        told,
        "templates.toml:6: agent_nmae is not a setting of a template; did you mean agent_name?\n\
         templates.toml:10: max_duration_seconds must be a whole number of seconds from 60 to 86400\n"
    );
    assert_eq!(code, Some(2));
    for options in [&[][..], &["--dry-run"]] {
        // As PostgreSQL compares them: without regard to the case of any letter.
        let twice = "[[template]]\nname = \"Äb\"\n\n[[template]]\nname = \"äB\"\n";
        let (told, code) = desk.apply(twice, options).await;
        let expected =
            "templates.toml:4: name must be unique without regard to case, and is taken\n";
        assert_eq!((told.as_str(), code), (expected, Some(2)));
    }
    assert_eq!(desk.export().await, before);

    let arguments = ["templates", "apply", "--org", &desk.organization, "nowhere.toml"];
    let mut absent = greenroom(&arguments);
    absent.env("DATABASE_URL", desk.database.url()).current_dir(&desk.home);
    let (told, code) = outcome(&mut absent).await;
    assert!(code == Some(2) && told.starts_with("nowhere.toml cannot be read"), "{told}");
}

#[tokio::test]
async fn a_file_is_applied_whole_or_not_at_all() {
    let desk = Desk::fresh().await;
    desk.run("alter table session_templates add check (name <> 'Sales')").await;
    let (told, code) = desk.apply(TWO, &[]).await;
    assert!(code == Some(1) && told.contains("the templates are unchanged"), "{told}");
    assert!(!desk.export().await.contains("Support"));
}

/// Everything a template may say, and what TOML says otherwise than JSON or not at all.
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
async fn what_is_exported_is_applied_without_a_change() {
    let app = App::start().await;
    for template in odd_templates() {
        app.template(template).await;
    }
    let old = app.template(json!({"name": "Archived"})).await;
    let archived = format!("/api/v1/session-templates/{old}");
    assert_eq!(app.request(Method::DELETE, &archived).send().await.unwrap().status(), 204);
    let before = app.get("/api/v1/session-templates").await.body;

    let home = place::temporary("templates", None).unwrap();
    let organization = app.organization.to_string();
    let run = async |arguments: &[&str]| {
        let mut command = greenroom(&[&["templates"], arguments].concat());
        command.env("DATABASE_URL", app.database_url()).current_dir(&home);
        Desk::told(outcome(&mut command).await)
    };
    let told = run(&["export", "--org", &organization, "all.toml"]).await;
    assert_eq!(told, "written to all.toml: 4\n");
    let told = run(&["apply", "--org", &organization, "--prune", "all.toml"]).await;
    assert_eq!(told, "nothing to do: 4 unchanged\n");
    assert_eq!(app.get("/api/v1/session-templates").await.body, before);

    // And in another organization the same templates come of it.
    let other = uuid().to_string();
    let told = run(&["apply", "--org", &other, "all.toml"]).await;
    assert!(told.ends_with("\n4 created\n"), "{told}");
    let exported = run(&["export", "--org", &other]).await;
    assert_eq!(exported, std::fs::read_to_string(home.join("all.toml")).unwrap());
    std::fs::remove_dir_all(home).unwrap();
}

#[tokio::test]
async fn the_example_of_the_documentation_is_applied_and_told_as_there() {
    let guide = include_str!("../../../../docs/operations.md");
    let section = guide.split("\n## ").find(|section| section.starts_with("Templates in a file"));
    let blocks: Vec<_> = section.unwrap().split("```").skip(1).step_by(2).collect();
    let example = blocks[0].strip_prefix("toml\n").unwrap();
    let (support, _) = example.split_once("[[template]]\nname = \"Interview\"").unwrap();
    let before = support
        .replace("How can I help?", "Hello")
        .replace("\"Support\"\n", "\"Support\"\nmax_duration_seconds = 3600\n");
    let desk = Desk::fresh().await;
    assert!(Desk::told(desk.apply(&before, &[]).await).contains("1 created"));
    let told = Desk::told(desk.apply(example, &["--dry-run"]).await);
    assert_eq!(told.trim(), blocks[2].trim());
    assert!(Desk::told(desk.apply(example, &[]).await).contains("1 created, 1 changed"));
}
