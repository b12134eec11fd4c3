//! Templates in a TOML file: `[[template]]` tables of the API's fields, where what is absent is the
//! default.

mod reading;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use greenroom_core::TemplateSettings;
use greenroom_core::domain::TemplateName;
use serde::Serialize;
use serde_json::Value;
use toml::de::DeValue;
use toml::ser::ValueSerializer;

use self::reading::{Reading, json};
use super::settings::SettingsBody;

/// What a file says, and where.
#[derive(Debug)]
pub struct TemplateFile {
    shown: String,
    templates: Vec<(usize, TemplateSettings)>,
}

/// Everything that is wrong with a file: a line each, which begins with its place.
#[derive(Debug)]
pub struct FileFaults(Vec<String>);

impl fmt::Display for FileFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl TemplateFile {
    /// Reads the file.
    ///
    /// # Errors
    /// Every fault of it.
    pub fn read(file: &Path) -> Result<Self, FileFaults> {
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::InvalidData => "must be UTF-8".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            FileFaults(vec![format!("{shown} {why}")])
        })?;
        Self::parse(shown, &text)
    }

    fn parse(shown: String, text: &str) -> Result<Self, FileFaults> {
        match Reading::of(text) {
            Ok(templates) => Ok(Self { shown, templates }),
            Err(faults) => Err(FileFaults::of(&shown, faults)),
        }
    }

    /// The templates, in their order.
    pub fn settings(&self) -> impl ExactSizeIterator<Item = &TemplateSettings> {
        self.templates.iter().map(|(_, settings)| settings)
    }

    /// A fault of the last template of this name.
    pub fn fault_of(&self, name: &TemplateName, fault: String) -> FileFaults {
        let named = self.templates.iter().rev().find(|(_, settings)| settings.name == *name);
        FileFaults::of(&self.shown, vec![(named.map_or(1, |(line, _)| *line), fault)])
    }

    /// A fault of the file as a whole.
    pub fn fault(&self, fault: &str) -> FileFaults {
        FileFaults(vec![format!("{}: {fault}", self.shown)])
    }
}

impl FileFaults {
    fn of(shown: &str, faults: Vec<(usize, String)>) -> Self {
        let line = |(line, fault)| format!("{shown}:{line}: {fault}");
        Self(faults.into_iter().map(line).collect())
    }
}

/// The file that says these templates.
pub fn write(templates: Vec<TemplateSettings>) -> String {
    let mut text = "# What is absent is the default.\n".to_owned();
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

/// A value of JSON as one of TOML; what TOML cannot say, such as null, as a text that holds JSON.
fn toml(value: &Value) -> String {
    let mut text = String::new();
    let written = value.serialize(ValueSerializer::new(&mut text)).is_ok();
    let read_back = DeValue::parse(&text).ok().and_then(|read| json(&read).ok());
    if written && read_back.as_ref() == Some(value) {
        return text;
    }
    toml::Value::String(value.to_string()).to_string()
}
