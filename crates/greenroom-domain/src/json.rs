//! JSON objects of a bounded size: a session's `metadata`, a template's `agent_metadata`.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Invalid;

/// The largest object, in bytes of its compact form.
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
    #[must_use]
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes an object as it was stored: it was checked on its way in.
    #[cfg(feature = "diesel")]
    pub(crate) fn stored(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

impl TryFrom<Map<String, Value>> for JsonObject {
    type Error = Invalid;

    fn try_from(map: Map<String, Value>) -> Result<Self, Invalid> {
        if map.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)) {
            return Err(Invalid::new("must not contain the character U+0000"));
        }
        let object = Self(map);
        if object.bytes() > MAX_BYTES {
            return Err(Invalid::new("must be at most 4 KiB of JSON"));
        }
        Ok(object)
    }
}

impl JsonObject {
    fn bytes(&self) -> usize {
        serde_json::to_vec(&self.0).map_or(usize::MAX, |json| json.len())
    }
}

/// `jsonb` has no U+0000. The depth is bounded by the JSON parser's own limit of 128.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Result<JsonObject, Invalid> {
        let Value::Object(map) = value else { panic!("{value} is no object") };
        JsonObject::try_from(map)
    }

    #[test]
    fn four_kibibytes_are_the_limit() {
        let overhead = json!({"k": ""}).to_string().len();
        assert!(object(json!({"k": "x".repeat(MAX_BYTES - overhead)})).is_ok());
        assert!(object(json!({"k": "x".repeat(MAX_BYTES - overhead + 1)})).is_err());
    }

    #[test]
    fn a_nul_is_found_wherever_it_hides() {
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
