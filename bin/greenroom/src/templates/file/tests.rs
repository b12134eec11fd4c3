//! Tests of the errors in template files, and of the TOML that is written.

use super::*;

fn faults(text: &str) -> Vec<String> {
    match TemplateFile::parse("t.toml".to_owned(), text) {
        Ok(file) => panic!("no error in {text}: {file:?}"),
        Err(FileFaults(faults)) => faults,
    }
}

/// The errors of a template with this third line.
fn faults_of_line(line: &str) -> Vec<String> {
    faults(&format!("[[template]]\nname = \"T\"\n{line}\n"))
}

#[test]
fn each_fault_is_reported_with_its_line() {
    for (line, fault) in [
        ("agent_nmae = 1", "agent_nmae is not a setting of a template; did you mean agent_name?"),
        (
            "max_duration = 60",
            "max_duration is not a setting of a template; did you mean max_duration_seconds?",
        ),
        ("colour = \"red\"", "colour is not a setting of a template"),
        ("room_creation = \"late\"", "room_creation must be one of on_start on_join"),
        ("agent_name = 1", "agent_name must be a string"),
        ("enabled_panels = \"chat\"", "enabled_panels must be an array"),
        ("agent_required = \"yes\"", "agent_required must be true or false"),
        ("token_ttl_seconds = 1.5", "token_ttl_seconds must be a whole number"),
        ("agent_required = true", "agent_required must be false without an agent_name"),
        ("agent_metadata = 1", "agent_metadata must be an object"),
        (
            "agent_metadata = \"x\"",
            "agent_metadata must be a table, or a string that contains a JSON object",
        ),
        ("agent_metadata = { a = nan }", "agent_metadata must be a finite number"),
        (
            "agent_metadata = { a = 2026-01-01 }",
            "agent_metadata must be in quotes, because JSON has no dates",
        ),
        ("agent_name = \"a", "invalid TOML: invalid basic string, expected `\"`"),
        ("name = \"U\"", "invalid TOML: duplicate key"),
    ] {
        let faults = faults_of_line(line);
        assert_eq!(faults, [format!("t.toml:3: {fault}")], "{line}");
    }
}

#[test]
fn wrong_list_element_is_reported_at_its_own_line() {
    let faults = faults_of_line("enabled_panels = [\n  \"chat\",\n  \"not ok\",\n]");
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("t.toml:5: enabled_panels[1] must be"), "{faults:?}");
}

#[test]
fn missing_field_is_reported_at_the_line_of_its_table() {
    assert_eq!(faults("\n[[template]]\nagent_name = \"a\"\n"), ["t.toml:2: name is required"]);
}

#[test]
fn all_faults_are_reported_in_line_order() {
    let text = "b = 1\n[[template]]\nname = \"\"\njoin_window_seconds = 1\n[templates]\n";
    let faults = faults(text);
    let lines: Vec<_> = faults.iter().map(|fault| &fault[..9]).collect();
    assert_eq!(lines, ["t.toml:1:", "t.toml:3:", "t.toml:4:", "t.toml:5:"], "{faults:?}");
    assert!(faults[3].ends_with("did you mean template?"), "{faults:?}");
}

#[test]
fn single_brackets_are_refused() {
    let faults = faults("[template]\nname = \"T\"\n");
    assert!(
        faults.len() == 1 && faults[0].contains("begin each template with [[template]]"),
        "{faults:?}"
    );
}

#[test]
fn values_that_toml_cannot_express_are_written_as_json() {
    let json = |text| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(toml(&json(r#"{"a": {"b": 1}}"#)), "{ a = { b = 1 } }");
    assert_eq!(toml(&json(r#"{"a": null}"#)), r#"'{"a":null}'"#);
    let deep = json(&format!("{}{}", "[".repeat(100), "]".repeat(100)));
    assert!(toml(&deep).starts_with("\"[["), "deeper than the TOML parser allows");
}
