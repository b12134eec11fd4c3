//! What applying a file changes, as a person reads it.

use std::collections::BTreeSet;
use std::fmt::Write;

use clap::builder::styling::{AnsiColor, Style};
use greenroom_core::{TemplateChange, TemplateSettings};
use serde_json::{Map, Value};

use super::settings::SettingsBody;

const CREATED: Style = AnsiColor::Green.on_default();
const CHANGED: Style = AnsiColor::Yellow.on_default();
const ARCHIVED: Style = AnsiColor::Red.on_default();

/// A field, and what it is before and after; none is not set.
type Line = (String, Option<Value>, Option<Value>);

/// A line for each template that changes and for each of its fields, and how many there are.
pub fn told(changes: &[TemplateChange], dry_run: bool) -> String {
    let told: Vec<_> = changes.iter().map(|change| (change, lines(change))).collect();
    let fields = told.iter().flat_map(|(_, lines)| lines);
    let width = fields.map(|(field, ..)| field.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for (change, lines) in told {
        let (sign, style) = match change {
            TemplateChange::Create(_) => ('+', CREATED),
            TemplateChange::Change { .. } => ('~', CHANGED),
            TemplateChange::Archive(_) => ('-', ARCHIVED),
            TemplateChange::Keep(_) => continue,
        };
        let _ = writeln!(text, "{style}{sign} {}{style:#}", change.name().as_str());
        for (field, before, after) in lines {
            let _ = writeln!(text, "    {field:<width$}  {} → {}", shown(before), shown(after));
        }
    }
    let blank = if text.is_empty() { "" } else { "\n" };
    format!("{text}{blank}{}\n", counted(changes, dry_run))
}

fn counted(changes: &[TemplateChange], dry_run: bool) -> String {
    let count =
        |which: fn(&TemplateChange) -> bool| changes.iter().filter(|change| which(change)).count();
    let unchanged = count(|change| matches!(change, TemplateChange::Keep(_)));
    if unchanged == changes.len() {
        return format!("nothing to do: {unchanged} unchanged");
    }
    let counts = [
        (count(|change| matches!(change, TemplateChange::Create(_))), "created"),
        (count(|change| matches!(change, TemplateChange::Change { .. })), "changed"),
        (count(|change| matches!(change, TemplateChange::Archive(_))), "archived"),
        (unchanged, "unchanged"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    let counts = counts.join(", ");
    if dry_run { format!("it would be {counts}; nothing is written") } else { counts }
}

fn lines(change: &TemplateChange) -> Vec<Line> {
    let TemplateChange::Change { current, settings } = change else { return Vec::new() };
    let fields = |settings: &TemplateSettings| SettingsBody::from(settings.clone()).fields();
    let mut lines = Vec::new();
    for ((field, before), (_, after)) in fields(&current.settings).into_iter().zip(fields(settings))
    {
        let set = |value: Value| Some(value).filter(|value| !value.is_null());
        compare(field.to_owned(), set(before), set(after), &mut lines);
    }
    lines
}

/// Of an object the members alone that differ.
fn compare(field: String, before: Option<Value>, after: Option<Value>, lines: &mut Vec<Line>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(mut before)), Some(Value::Object(mut after))) => {
            let members = |object: &Map<_, _>| object.keys().cloned().collect::<BTreeSet<_>>();
            for member in members(&before).union(&members(&after)) {
                let field = format!("{field}.{}", written(member));
                compare(field, before.remove(member), after.remove(member), lines);
            }
        }
        (before, after) => lines.push((field, before, after)),
    }
}

/// A member's name; in quotes, where it would not be seen where it ends.
fn written(member: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !member.is_empty() && member.bytes().all(bare) {
        return member.to_owned();
    }
    Value::String(member.to_owned()).to_string()
}

fn shown(value: Option<Value>) -> String {
    value.map_or_else(|| "not set".to_owned(), |value| value.to_string())
}
