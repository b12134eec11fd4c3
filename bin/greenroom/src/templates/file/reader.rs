//! Reads a template file and reports each error with its line number.

use greenroom_core::TemplateSettings;
use serde_json::{Map, Number, Value};
use strsim::jaro_winkler;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::extract::from_value;
use crate::problem::FieldError;
use crate::templates::settings;
use crate::templates::settings::{FIELDS, NewTemplateBody};

/// The only top-level key of a template file.
const TEMPLATE: &str = "template";

/// Minimum Jaro-Winkler similarity, of 1.0, at which a known name is suggested for an unknown one.
const MIN_SIMILARITY: f64 = 0.85;

const NOT_JSON: &str = "must be a table, or a string that contains a JSON object";

/// A file that is being read, with the errors found so far.
pub struct FileReader<'a> {
    text: &'a str,
    faults: Vec<AtLine<String>>,
}

/// A value with its line number, counted from 1.
type AtLine<T> = (usize, T);

type Table<'a> = Spanned<DeTable<'a>>;

impl<'a> FileReader<'a> {
    /// Returns the templates of a file, or all its errors in the order of their lines.
    pub fn read(text: &'a str) -> Result<Vec<AtLine<TemplateSettings>>, Vec<AtLine<String>>> {
        let mut reader = Self { text, faults: Vec::new() };
        let templates = reader.templates();
        let mut faults = reader.faults;
        faults.sort_by_key(|(line, _)| *line);
        templates.filter(|_| faults.is_empty()).ok_or(faults)
    }

    fn templates(&mut self) -> Option<Vec<AtLine<TemplateSettings>>> {
        let document = match DeTable::parse(self.text) {
            Ok(document) => document,
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                self.fault(offset, format!("invalid TOML: {}", error.message()));
                return None;
            }
        };
        let mut templates = Vec::new();
        for (key, value) in document.into_inner() {
            if key.get_ref() != TEMPLATE {
                self.unknown(&key, "a key of a template file", &[TEMPLATE]);
                continue;
            }
            let DeValue::Array(tables) = value.into_inner() else {
                let fault =
                    "template must be an array of tables: begin each template with [[template]]";
                self.fault(key.span().start, fault.to_owned());
                continue;
            };
            templates.extend(tables.into_iter().map(|table| self.template(table)));
        }
        templates.into_iter().collect()
    }

    fn template(&mut self, value: Spanned<DeValue<'a>>) -> Option<AtLine<TemplateSettings>> {
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            self.fault(span.start, "template must be a table".to_owned());
            return None;
        };
        let table = Spanned::new(span, table);
        let body = self.body(&table)?;
        let read = from_value(body).map_err(|error| vec![error]);
        let settings = match read.and_then(|body: NewTemplateBody| settings::parse_settings(body)) {
            Ok(settings) => settings,
            Err(errors) => {
                for error in &errors {
                    self.field(&table, error);
                }
                return None;
            }
        };
        for (field, invalid) in settings.violations() {
            self.field(&table, &FieldError::of(field, &invalid));
        }
        Some((self.line(table.span().start), settings))
    }

    /// Converts the table to the body of an API request.
    fn body(&mut self, table: &Table<'a>) -> Option<Value> {
        let mut body = Map::new();
        let faults = self.faults.len();
        for (key, value) in table.get_ref() {
            if !FIELDS.contains(&key.get_ref().as_ref()) {
                self.unknown(key, "a setting of a template", &FIELDS);
                continue;
            }
            let read = match value.get_ref() {
                // The string form is for JSON that TOML cannot express, such as null.
                DeValue::String(text) if key.get_ref() == "agent_metadata" => {
                    serde_json::from_str(text).map_err(|_| (value.span().start, NOT_JSON))
                }
                _ => json(value),
            };
            match read {
                Ok(value) => drop(body.insert(key.get_ref().to_string(), value)),
                Err((offset, fault)) => self.fault(offset, format!("{} {fault}", key.get_ref())),
            }
        }
        // Stop after an unknown key: a misspelled `name` must not also be reported as missing.
        (self.faults.len() == faults).then_some(Value::Object(body))
    }

    fn fault(&mut self, offset: usize, fault: String) {
        self.faults.push((self.line(offset), fault));
    }

    /// Reports a wrong field at the line of the list element or of the key. If the key is absent,
    /// the error is reported at the line of the table.
    fn field(&mut self, table: &Table<'_>, FieldError { field, detail }: &FieldError) {
        let (name, rest) = field.split_once(['[', '.']).unwrap_or((field, ""));
        let found = table.get_ref().iter().find(|(key, _)| key.get_ref() == name);
        let element = found.zip(rest.strip_suffix(']')).and_then(|((_, value), element)| {
            value.get_ref().as_array()?.get(element.parse::<usize>().ok()?)
        });
        let span = match (found, element) {
            (_, Some(element)) => element.span(),
            (Some((key, _)), None) => key.span(),
            (None, _) => table.span(),
        };
        self.fault(span.start, format!("{field} {detail}"));
    }

    fn unknown(&mut self, key: &Spanned<DeString<'_>>, what: &str, known: &[&str]) {
        let name = key.get_ref();
        let scored = known.iter().map(|known| (jaro_winkler(known, name), known));
        let similar = scored.filter(|(score, _)| *score > MIN_SIMILARITY);
        let best = similar.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let hint = best.map(|(_, known)| format!("; did you mean {known}?")).unwrap_or_default();
        self.fault(key.span().start, format!("{name} is not {what}{hint}"));
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }
}

/// Converts a TOML value to JSON. The error is the byte offset of the value and the reason.
pub fn json(value: &Spanned<DeValue<'_>>) -> Result<Value, (usize, &'static str)> {
    let wrong = |fault| (value.span().start, fault);
    Ok(match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Integer(number) => {
            let signed = i64::from_str_radix(number.as_str(), number.radix()).map(Number::from);
            let number = signed.or_else(|_| {
                u64::from_str_radix(number.as_str(), number.radix()).map(Number::from)
            });
            Value::Number(number.map_err(|_| wrong("must be an integer of at most 64 bits"))?)
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse().ok().and_then(Number::from_f64);
            Value::Number(number.ok_or_else(|| wrong("must be a finite number"))?)
        }
        DeValue::Datetime(_) => return Err(wrong("must be in quotes, because JSON has no dates")),
        DeValue::Array(values) => Value::Array(values.iter().map(json).collect::<Result<_, _>>()?),
        DeValue::Table(table) => {
            let member = |(key, value): (&Spanned<DeString<'_>>, _)| {
                Ok((key.get_ref().to_string(), json(value)?))
            };
            Value::Object(table.iter().map(member).collect::<Result<_, _>>()?)
        }
    })
}
