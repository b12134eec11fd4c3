//! JSON objects of limited size: a session's `metadata`, a template's `agent_metadata`.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Invalid;

/// Maximum size of an object as compact JSON, in bytes.
const MAX_BYTES: usize = 4096;

/// A JSON object of at most 4 KiB that PostgreSQL's `jsonb` can hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Jsonb)
)]
#[serde(transparent)]
pub struct JsonObject(Map<String, Value>);

impl JsonObject {
    /// Returns the members. Whole numbers that fit in 64 bits are integers, never floats.
    #[must_use]
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// Returns whether the object has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Wraps a stored object without a check; it was checked before it was stored.
    #[cfg(feature = "diesel")]
    pub(crate) fn stored(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

impl fmt::Display for JsonObject {
    /// Writes JSON with sorted keys, so equal objects have equal text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(&self.0).map_err(|_| fmt::Error)?)
    }
}

impl TryFrom<Map<String, Value>> for JsonObject {
    type Error = Invalid;

    fn try_from(map: Map<String, Value>) -> Result<Self, Invalid> {
        if map.iter().any(|(key, value)| key.contains('\0') || contains_nul(value)) {
            return Err(Invalid::new("must not contain the character U+0000"));
        }
        let mut object = Self(map);
        object.0.values_mut().for_each(convert_whole_floats);
        if object.json_bytes() > MAX_BYTES {
            return Err(Invalid::new("must be at most 4 KiB of JSON"));
        }
        Ok(object)
    }
}

impl JsonObject {
    fn json_bytes(&self) -> usize {
        serde_json::to_vec(&self.0).map_or(usize::MAX, |json| json.len())
    }
}

/// Converts floats without a fraction to integers. `jsonb` stores 1e18 as an integer and returns
/// all of its digits. Converting before the size check makes the checked and compared text the same
/// as the text that PostgreSQL returns.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the number has no fraction and is within the range of the target type"
)]
fn convert_whole_floats(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            if float.fract() != 0.0 {
                return;
            }
            // As floats, the bounds are exactly 2^64 and -2^63.
            if (0.0..u64::MAX as f64).contains(&float) {
                *value = (float as u64).into();
            } else if (i64::MIN as f64..0.0).contains(&float) {
                *value = (float as i64).into();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(convert_whole_floats),
        Value::Object(map) => map.values_mut().for_each(convert_whole_floats),
        _ => {}
    }
}

/// Reports whether a key or a text contains U+0000, which `jsonb` cannot store. The recursion is
/// limited by the JSON parser, which accepts at most 128 levels.
fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(contains_nul),
        Value::Object(map) => {
            map.iter().any(|(key, value)| key.contains('\0') || contains_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Result<JsonObject, Invalid> {
        let Value::Object(map) = value else { panic!("{value} is not an object") };
        JsonObject::try_from(map)
    }

    #[test]
    fn size_is_limited_to_4_kib() {
        let overhead = json!({"k": ""}).to_string().len();
        assert!(object(json!({"k": "x".repeat(MAX_BYTES - overhead)})).is_ok());
        assert!(object(json!({"k": "x".repeat(MAX_BYTES - overhead + 1)})).is_err());
    }

    #[test]
    fn size_counts_numbers_as_postgres_returns_them() {
        let written = |value: Value| Value::Object(object(value).unwrap().into_map()).to_string();
        assert_eq!(
            written(json!({"a": [1e18, {"b": -2.0}]})),
            r#"{"a":[1000000000000000000,{"b":-2}]}"#
        );
        assert_eq!(written(json!({"a": [0.5, -0.0, 1e300]})), r#"{"a":[0.5,0,1e+300]}"#);
        assert!(object(json!({"a": vec![1e18; 200]})).is_ok());
        assert!(object(json!({"a": vec![1e18; 640]})).is_err(), "12 KiB as PostgreSQL returns it");
    }

    #[test]
    fn nul_is_refused_in_nested_keys_and_values() {
        for value in [
            json!({"a\0": 1}),
            json!({"a": "\0"}),
            json!({"a": [{"b": ["\0"]}]}),
            json!({"a": {"\0": 1}}),
        ] {
            assert!(object(value).is_err());
        }
    }
}
