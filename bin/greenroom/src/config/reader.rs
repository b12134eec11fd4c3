//! Reads variables from the environment and a TOML file, and collects all faults.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use config::{FileFormat, Map};

use super::variable::{Need, VARIABLES, Variable};

/// All faults of a configuration. They never contain a value, because values may be secrets.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is invalid:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// The variables that are set, and the faults found so far.
pub struct Reader {
    /// The text of each variable, by name.
    texts: HashMap<String, String>,
    faults: Vec<String>,
}

impl Reader {
    /// Reads the environment and the TOML file. The environment overrides the file.
    pub fn from_environment(file: Option<&Path>) -> Self {
        let mut faults = Vec::new();
        let in_file = file.map(|file| read_toml(file, &mut faults)).unwrap_or_default();
        let in_environment = read_environment(&mut faults);
        let mut sources = config::Config::builder();
        for mut texts in [in_file, in_environment] {
            read_secret_files(&mut texts, &mut faults);
            sources = sources.add_source(config::Environment::default().source(Some(texts)));
        }
        let texts = sources.build().map_or_else(
            |error| {
                faults.push(error.to_string());
                HashMap::new()
            },
            // Only strings are read here: the conversions of the crate `config` stop at the first
            // fault.
            |sources| {
                let text = |name: &str| sources.get_string(&name.to_lowercase()).ok();
                let named = VARIABLES.iter().map(|variable| variable.name);
                named.filter_map(|name| Some((name.to_owned(), text(name)?))).collect()
            },
        );
        Self { texts, faults }
    }

    #[cfg(test)]
    pub fn from_texts(texts: HashMap<String, String>) -> Self {
        Self { texts, faults: Vec::new() }
    }

    /// Returns the text of a variable. `None` means that it is not set, or is empty.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Parses a variable that is required or has a default. `None` means that a fault was added.
    pub fn get<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let default = VARIABLES.iter().find(|variable| variable.name == name);
        let default = default.and_then(|variable| match variable.need {
            Need::Default(text) => Some(text),
            Need::Required | Need::OneOf => None,
        });
        let parsed = match self.given(name).or(default) {
            Some(text) => parse(text),
            None => Err("is required but not set".to_owned()),
        };
        parsed.map_err(|fault| self.add_fault(&format!("{name} {fault}"))).ok()
    }

    /// Parses a variable that may be absent. `None` means that it is not set, or that a fault was
    /// added.
    pub fn get_optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.given(name).is_some().then(|| self.get(name, parse)).flatten()
    }

    pub fn add_fault(&mut self, fault: &str) {
        self.faults.push(fault.to_owned());
    }

    /// Returns the value, or the faults if there are any.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(Faults(self.faults)),
        }
    }
}

/// Returns the name of the variable that names a file with this secret. `None` means that the
/// variable is not a secret.
fn file_variable(variable: &Variable) -> Option<String> {
    variable.secret.then(|| format!("{}_FILE", variable.name))
}

/// The names of all variables, including `NAME_FILE` for each secret.
fn known_names() -> impl Iterator<Item = String> {
    VARIABLES
        .iter()
        .flat_map(|variable| [Some(variable.name.to_owned()), file_variable(variable)])
        .flatten()
}

/// Reads Greenroom's variables from the environment and ignores all others.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the environment")]
fn read_environment(faults: &mut Vec<String>) -> Map<String, String> {
    let mut texts = Map::new();
    for name in known_names() {
        match std::env::var_os(&name).map(OsString::into_string) {
            Some(Ok(text)) if !text.is_empty() => drop(texts.insert(name, text)),
            Some(Err(_)) => faults.push(format!("{name} must be UTF-8")),
            Some(Ok(_)) | None => {}
        }
    }
    texts
}

/// Reads the variables of a TOML file. An unknown key is a fault, because it may be misspelt.
fn read_toml(file: &Path, faults: &mut Vec<String>) -> Map<String, String> {
    let shown = file.display();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            faults.push(format!("the file {shown} cannot be read: {error}"));
            return Map::new();
        }
    };
    let source = config::File::from_str(&text, FileFormat::Toml);
    let parsed = config::Config::builder().add_source(source).build();
    let Ok(values) =
        parsed.and_then(config::Config::try_deserialize::<HashMap<String, config::Value>>)
    else {
        // The parser's message quotes the line, which may contain a secret.
        faults.push(format!("the file {shown} is not valid TOML"));
        return Map::new();
    };
    let mut texts = Map::new();
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(|(left, _), (right, _)| left.cmp(right));
    for (key, value) in values {
        let name = key.to_uppercase();
        if key != key.to_lowercase() || !known_names().any(|known| known == name) {
            faults.push(format!(
                "{key} in {shown} is not a known key; use a variable's name in lower case"
            ));
        } else if let Ok(text) = value.into_string() {
            texts.insert(name, text);
        } else {
            faults.push(format!("{key} in {shown} must be a single value"));
        }
    }
    texts
}

/// Replaces each `NAME_FILE` by `NAME` with the content of the file, without a final line break.
fn read_secret_files(texts: &mut Map<String, String>, faults: &mut Vec<String>) {
    for variable in VARIABLES {
        let Some(name) = file_variable(variable) else { continue };
        let Some(file) = texts.remove(&name) else { continue };
        if texts.contains_key(variable.name) {
            faults.push(format!("{} and {name} are both set; set only one of them", variable.name));
            continue;
        }
        match std::fs::read_to_string(file) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                texts.insert(variable.name.to_owned(), text.to_owned());
            }
            Err(error) => {
                faults.push(format!("{name} names a file that cannot be read: {error}"));
            }
        }
    }
}
