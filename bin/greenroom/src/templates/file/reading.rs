//! Reading a file of templates so that whatever is wrong is told by its line.

use greenroom_core::TemplateSettings;
use serde_json::{Map, Number, Value};
use strsim::jaro_winkler;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::extract::from_value;
use crate::problem::FieldError;
use crate::templates::settings::{self, FIELDS, NewTemplateBody};

/// The one key of the file itself.
const TEMPLATE: &str = "template";

/// How like a name another has to be, of one, to be what was meant.
const ALIKE: f64 = 0.85;

const NOT_JSON: &str = "must be a table, or a text that holds a JSON object";

/// A file that is being read, and what has been wrong with it so far.
pub struct Reading<'a> {
    text: &'a str,
    faults: Vec<At<String>>,
}

/// Something, and its line.
type At<T> = (usize, T);

type Table<'a> = Spanned<DeTable<'a>>;

impl<'a> Reading<'a> {
    /// The templates of a file and their lines, or its faults and theirs.
    pub fn of(text: &'a str) -> Result<Vec<At<TemplateSettings>>, Vec<At<String>>> {
        let mut reading = Self { text, faults: Vec::new() };
        let templates = reading.templates();
        let mut faults = reading.faults;
        faults.sort_by_key(|(line, _)| *line);
        templates.filter(|_| faults.is_empty()).ok_or(faults)
    }

    fn templates(&mut self) -> Option<Vec<At<TemplateSettings>>> {
        let document = match DeTable::parse(self.text) {
            Ok(document) => document,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                self.fault(at, format!("must be TOML: {}", error.message()));
                return None;
            }
        };
        let mut templates = Vec::new();
        for (key, value) in document.into_inner() {
            if key.get_ref() != TEMPLATE {
                self.unknown(&key, "what this file can say", &[TEMPLATE]);
                continue;
            }
            let DeValue::Array(tables) = value.into_inner() else {
                let right = "must be written [[template]], in two pairs of brackets, once for each";
                self.fault(key.span().start, format!("template {right}"));
                continue;
            };
            templates.extend(tables.into_iter().map(|table| self.template(table)));
        }
        templates.into_iter().collect()
    }

    fn template(&mut self, value: Spanned<DeValue<'a>>) -> Option<At<TemplateSettings>> {
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            self.fault(span.start, "a template must be a table".to_owned());
            return None;
        };
        let table = Spanned::new(span, table);
        let body = self.body(&table)?;
        let read = from_value(body).map_err(|wrong| vec![wrong]);
        let settings = match read.and_then(|body: NewTemplateBody| settings::read(body)) {
            Ok(settings) => settings,
            Err(wrong) => {
                for wrong in &wrong {
                    self.field(&table, wrong);
                }
                return None;
            }
        };
        for (field, invalid) in settings.contradictions() {
            self.field(&table, &FieldError::of(field, &invalid));
        }
        Some((self.line(table.span().start), settings))
    }

    /// The table as the body of a request, with what the API knows of it.
    fn body(&mut self, table: &Table<'a>) -> Option<Value> {
        let mut body = Map::new();
        let faults = self.faults.len();
        for (key, value) in table.get_ref() {
            if !FIELDS.contains(&key.get_ref().as_ref()) {
                self.unknown(key, "a setting of a template", &FIELDS);
                continue;
            }
            let read = match value.get_ref() {
                // What TOML cannot say of JSON.
                DeValue::String(text) if key.get_ref() == "agent_metadata" => {
                    serde_json::from_str(text).map_err(|_| (value.span().start, NOT_JSON))
                }
                _ => json(value),
            };
            match read {
                Ok(value) => drop(body.insert(key.get_ref().to_string(), value)),
                Err((at, fault)) => self.fault(at, format!("{} {fault}", key.get_ref())),
            }
        }
        // A name that is misspelt is not told to be absent, too.
        (self.faults.len() == faults).then_some(Value::Object(body))
    }

    fn fault(&mut self, at: usize, fault: String) {
        self.faults.push((self.line(at), fault));
    }

    /// A wrong field, at its place: of a list's element, or of the table when it is not there.
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
        let alike = known.iter().map(|known| (jaro_winkler(known, name), known));
        let meant = alike.filter(|(alike, _)| *alike > ALIKE);
        let meant = meant.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let meant = meant.map(|(_, known)| format!("; did you mean {known}?")).unwrap_or_default();
        self.fault(key.span().start, format!("{name} is not {what}{meant}"));
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }
}

/// A value of TOML as one of JSON, or where it is none and why.
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
            Value::Number(number.map_err(|_| wrong("must be a number of at most 64 bits"))?)
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse().ok().and_then(Number::from_f64);
            Value::Number(number.ok_or_else(|| wrong("must be a finite number"))?)
        }
        DeValue::Datetime(_) => return Err(wrong("must be in quotes, for JSON has no dates")),
        DeValue::Array(values) => Value::Array(values.iter().map(json).collect::<Result<_, _>>()?),
        DeValue::Table(table) => {
            let member = |(key, value): (&Spanned<DeString<'_>>, _)| {
                Ok((key.get_ref().to_string(), json(value)?))
            };
            Value::Object(table.iter().map(member).collect::<Result<_, _>>()?)
        }
    })
}
