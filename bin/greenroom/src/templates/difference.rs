//! Describes the changes that a template file makes, for the operator.

use std::collections::BTreeSet;
use std::fmt::Write;

use clap::builder::styling::{AnsiColor, Style};
use greenroom_core::{TemplateChange, TemplateSettings};
use serde_json::{Map, Value};

use super::settings::SettingsBody;

const CREATED: Style = AnsiColor::Green.on_default();
const CHANGED: Style = AnsiColor::Yellow.on_default();
const ARCHIVED: Style = AnsiColor::Red.on_default();

/// A field with its values before and after the change. `None` means that the field is not set.
type FieldChange = (String, Option<Value>, Option<Value>);

/// Returns one line for each changed template and each of its changed fields, and the numbers of
/// changes.
pub fn describe(changes: &[TemplateChange], dry_run: bool) -> String {
    let described: Vec<_> = changes.iter().map(|change| (change, field_changes(change))).collect();
    let fields = described.iter().flat_map(|(_, fields)| fields);
    let width = fields.map(|(field, ..)| field.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for (change, fields) in described {
        let (sign, style) = match change {
            TemplateChange::Create(_) => ('+', CREATED),
            TemplateChange::Change { .. } => ('~', CHANGED),
            TemplateChange::Archive(_) => ('-', ARCHIVED),
            TemplateChange::Keep(_) => continue,
        };
        let _ = writeln!(text, "{style}{sign} {}{style:#}", change.name().as_str());
        for (field, before, after) in fields {
            let (before, after) = (value_text(before), value_text(after));
            let _ = writeln!(text, "    {field:<width$}  {before} → {after}");
        }
    }
    let blank = if text.is_empty() { "" } else { "\n" };
    format!("{text}{blank}{}\n", counts(changes, dry_run))
}

fn counts(changes: &[TemplateChange], dry_run: bool) -> String {
    let count =
        |which: fn(&TemplateChange) -> bool| changes.iter().filter(|change| which(change)).count();
    let unchanged = count(|change| matches!(change, TemplateChange::Keep(_)));
    if unchanged == changes.len() {
        return format!("nothing to do: {unchanged} unchanged");
    }
    let counts = [
        (count(|change| matches!(change, TemplateChange::Create(_))), "to create", "created"),
        (count(|change| matches!(change, TemplateChange::Change { .. })), "to change", "changed"),
        (count(|change| matches!(change, TemplateChange::Archive(_))), "to archive", "archived"),
        (unchanged, "unchanged", "unchanged"),
    ];
    let counts = counts.into_iter().filter(|(count, ..)| *count > 0);
    let counts = counts.map(|(count, planned, done)| {
        let what = if dry_run { planned } else { done };
        format!("{count} {what}")
    });
    let counts = counts.collect::<Vec<_>>().join(", ");
    if dry_run { format!("{counts}; nothing was written") } else { counts }
}

fn field_changes(change: &TemplateChange) -> Vec<FieldChange> {
    let TemplateChange::Change { current, settings } = change else { return Vec::new() };
    let fields = |settings: &TemplateSettings| SettingsBody::from(settings.clone()).fields();
    let mut changes = Vec::new();
    for ((field, before), (_, after)) in fields(&current.settings).into_iter().zip(fields(settings))
    {
        let set = |value: Value| Some(value).filter(|value| !value.is_null());
        compare(field.to_owned(), set(before), set(after), &mut changes);
    }
    changes
}

/// Adds the difference between two values. Objects are compared member by member.
fn compare(
    field: String,
    before: Option<Value>,
    after: Option<Value>,
    changes: &mut Vec<FieldChange>,
) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(mut before)), Some(Value::Object(mut after))) => {
            let members = |object: &Map<_, _>| object.keys().cloned().collect::<BTreeSet<_>>();
            for member in members(&before).union(&members(&after)) {
                let field = format!("{field}.{}", member_name(member));
                compare(field, before.remove(member), after.remove(member), changes);
            }
        }
        (before, after) => changes.push((field, before, after)),
    }
}

/// A member's name. It is quoted if it contains characters such as dots or spaces, which would make
/// the path ambiguous.
fn member_name(member: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !member.is_empty() && member.bytes().all(bare) {
        return member.to_owned();
    }
    Value::String(member.to_owned()).to_string()
}

fn value_text(value: Option<Value>) -> String {
    value.map_or_else(|| "not set".to_owned(), |value| value.to_string())
}
