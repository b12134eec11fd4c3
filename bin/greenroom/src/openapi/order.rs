//! The order of the document's sections and paths.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

/// Paths in the order viewers show them, most important first.
pub const PATHS: [&str; 11] = [
    "/api/v1/sessions/start",
    "/api/v1/sessions",
    "/api/v1/sessions/{session_id}",
    "/api/v1/sessions/{session_id}/token",
    "/api/v1/sessions/{session_id}/end",
    "/api/v1/sessions/{session_id}/timeline",
    "/api/v1/session-templates",
    "/api/v1/session-templates/{session_template_id}",
    "/api/v1/limits",
    "/livez",
    "/readyz",
];

/// Top-level keys in their usual order.
pub const SECTIONS: [&str; 7] =
    ["openapi", "info", "servers", "security", "tags", "paths", "components"];

/// An object with some keys first. `serde_json` sorts keys, but viewers show tags and paths in the
/// order of the document.
pub struct Ordered<'a> {
    pub object: &'a Map<String, Value>,
    pub first: &'a [&'a str],
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let first = self.first.iter().filter_map(|key| self.object.get_key_value(*key));
        let rest = self.object.iter().filter(|(key, _)| !self.first.contains(&key.as_str()));
        let mut map = serializer.serialize_map(Some(self.object.len()))?;
        for (key, value) in first.chain(rest) {
            match value.as_object().filter(|_| key == "paths") {
                Some(object) => map.serialize_entry(key, &Ordered { object, first: &PATHS })?,
                None => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}
