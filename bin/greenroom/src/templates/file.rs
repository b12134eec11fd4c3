//! Template files: TOML with one `[[template]]` table per template, which has the fields of the
//! API.

mod reader;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::Path;
use std::{fmt, io};

use greenroom_core::TemplateSettings;
use greenroom_core::domain::TemplateName;
use serde::Serialize;
use serde_json::Value;
use toml::de::DeValue;
use toml::ser::ValueSerializer;

use self::reader::{FileReader, json};
use super::settings::SettingsBody;

/// The templates of a file with their line numbers.
#[derive(Debug)]
pub struct TemplateFile {
    path: String,
    templates: Vec<(usize, TemplateSettings)>,
}

/// All errors of a template file, such as `templates.toml:3: name is required`.
#[derive(Debug)]
pub struct FileFaults(Vec<String>);

impl fmt::Display for FileFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl TemplateFile {
    /// Reads a template file. An absent field has its default value.
    ///
    /// # Errors
    /// Returns all errors of the file.
    pub fn read(file: &Path) -> Result<Self, FileFaults> {
        let path = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::InvalidData => "must be UTF-8".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            FileFaults(vec![format!("{path} {why}")])
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: String, text: &str) -> Result<Self, FileFaults> {
        match FileReader::read(text) {
            Ok(templates) => Ok(Self { path, templates }),
            Err(faults) => Err(FileFaults::of(&path, faults)),
        }
    }

    /// The templates in the order of the file.
    pub fn settings(&self) -> impl ExactSizeIterator<Item = &TemplateSettings> {
        self.templates.iter().map(|(_, settings)| settings)
    }

    /// An error of the last template with this name.
    pub fn fault_of(&self, name: &TemplateName, fault: String) -> FileFaults {
        let named = self.templates.iter().rev().find(|(_, settings)| settings.name == *name);
        FileFaults::of(&self.path, vec![(named.map_or(1, |(line, _)| *line), fault)])
    }

    /// An error of the whole file.
    pub fn fault(&self, fault: &str) -> FileFaults {
        FileFaults(vec![format!("{}: {fault}", self.path)])
    }
}

impl FileFaults {
    fn of(path: &str, faults: Vec<(usize, String)>) -> Self {
        let line = |(line, fault)| format!("{path}:{line}: {fault}");
        Self(faults.into_iter().map(line).collect())
    }
}

/// Formats templates as a template file. A field that has its default value is omitted.
pub fn format(templates: Vec<TemplateSettings>) -> String {
    let mut text = "# An absent field has its default value.\n".to_owned();
    for settings in templates {
        let default = SettingsBody::default_of(&settings);
        text.push_str("\n[[template]]\n");
        let fields = SettingsBody::from(settings).fields();
        for ((field, value), (_, default)) in fields.iter().zip(default.fields()) {
            if *field == "name" || *value != default {
                let _ = writeln!(text, "{field} = {}", toml(value));
            }
        }
    }
    text
}

/// Formats a JSON value as TOML. A value that TOML cannot express, such as null, becomes a string
/// that contains JSON.
fn toml(value: &Value) -> String {
    let mut text = String::new();
    let written = value.serialize(ValueSerializer::new(&mut text)).is_ok();
    // Reading the text back also finds values that the TOML parser rejects, such as deep nesting.
    let read_back = DeValue::parse(&text).ok().and_then(|read| json(&read).ok());
    if written && read_back.as_ref() == Some(value) {
        return text;
    }
    toml::Value::String(value.to_string()).to_string()
}
