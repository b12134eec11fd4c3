//! Reading variables one by one, from the environment over a file, and remembering every fault.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use config::{FileFormat, Map};

use super::variable::{Need, VARIABLES, Variable};

/// Everything that is wrong with a configuration; no value is ever repeated in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not usable:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// What was set, and what has been wrong with it so far.
pub struct Reader {
    texts: HashMap<String, String>,
    faults: Vec<String>,
}

impl Reader {
    /// Reads the environment, over this file when there is one.
    pub fn of_environment(file: Option<&Path>) -> Self {
        let mut faults = Vec::new();
        let in_file = file.map(|file| table(file, &mut faults)).unwrap_or_default();
        let in_environment = environment(&mut faults);
        let mut sources = config::Config::builder();
        for mut texts in [in_file, in_environment] {
            resolve_files(&mut texts, &mut faults);
            sources = sources.add_source(config::Environment::default().source(Some(texts)));
        }
        let texts = sources.build().map_or_else(
            |error| {
                faults.push(error.to_string());
                HashMap::new()
            },
            // Strings only: the crate's own conversions stop at the first fault.
            |sources| {
                let text = |name: &str| sources.get_string(&name.to_lowercase()).ok();
                let named = VARIABLES.iter().map(|variable| variable.name);
                named.filter_map(|name| Some((name.to_owned(), text(name)?))).collect()
            },
        );
        Self { texts, faults }
    }

    #[cfg(test)]
    pub fn of(texts: HashMap<String, String>) -> Self {
        Self { texts, faults: Vec::new() }
    }

    /// What somebody set; an empty text is nothing.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// The value of a variable that is required or has a default.
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
            None => Err("is required".to_owned()),
        };
        parsed.map_err(|fault| self.fault(&format!("{name} {fault}"))).ok()
    }

    /// The value of a variable that need not be set: none, and a fault, when it is wrong.
    pub fn get_given<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.given(name).is_some().then(|| self.get(name, parse)).flatten()
    }

    pub fn fault(&mut self, fault: &str) {
        self.faults.push(fault.to_owned());
    }

    /// What was made of the variables, unless anything was wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(Faults(self.faults)),
        }
    }
}

/// The name of the variable whose file holds this one's secret.
fn file_name(variable: &Variable) -> Option<String> {
    variable.secret.then(|| format!("{}_FILE", variable.name))
}

fn names() -> impl Iterator<Item = String> {
    VARIABLES
        .iter()
        .flat_map(|variable| [Some(variable.name.to_owned()), file_name(variable)])
        .flatten()
}

/// Our variables alone: another's text may be anything, and is nobody's business.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
fn environment(faults: &mut Vec<String>) -> Map<String, String> {
    let mut texts = Map::new();
    for name in names() {
        match std::env::var_os(&name).map(OsString::into_string) {
            Some(Ok(text)) if !text.is_empty() => drop(texts.insert(name, text)),
            Some(Err(_)) => faults.push(format!("{name} must be UTF-8")),
            Some(Ok(_)) | None => {}
        }
    }
    texts
}

/// The variables of a TOML file, where one that nobody knows is a fault: it may be misspelt.
fn table(file: &Path, faults: &mut Vec<String>) -> Map<String, String> {
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
        // The parser's own message quotes the line, and there may be a secret in it.
        faults.push(format!("the file {shown} is not TOML"));
        return Map::new();
    };
    let mut texts = Map::new();
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (key, value) in values {
        let name = key.to_uppercase();
        if key != key.to_lowercase() || !names().any(|known| known == name) {
            faults.push(format!("{key} in {shown} is not known; keys are in lower case"));
        } else if let Ok(text) = value.into_string() {
            texts.insert(name, text);
        } else {
            faults.push(format!("{key} in {shown} must be one value"));
        }
    }
    texts
}

/// Puts what `NAME_FILE` names in the place of `NAME`.
fn resolve_files(texts: &mut Map<String, String>, faults: &mut Vec<String>) {
    for variable in VARIABLES {
        let Some(name) = file_name(variable) else { continue };
        let Some(file) = texts.remove(&name) else { continue };
        if texts.contains_key(variable.name) {
            faults.push(format!("{} and {name} must not both be set", variable.name));
            continue;
        }
        match std::fs::read_to_string(file) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                texts.insert(variable.name.to_owned(), text.to_owned());
            }
            Err(error) => faults.push(format!("{name} cannot be read: {error}")),
        }
    }
}
