//! The settings of a template on the wire: parsed from requests, and converted for responses.

use std::collections::BTreeMap;
use std::str::FromStr;

use greenroom_core::TemplateSettings;
use greenroom_core::domain::template::{
    AgentDeadline, JoinWindow, MaxDuration, ReconnectWindow, TokenTtl,
};
use greenroom_core::domain::{
    AgentName, EnabledPanels, Invalid, JsonObject, Lenient, TemplateName,
};
use paperclip::actix::Apiv2Schema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::extract::{FieldErrors, from_value};
use crate::problem::{FieldError, Problem};

/// The names of all settings, in the order in which `templates apply` prints them and `templates
/// export` writes them.
pub const FIELDS: [&str; 13] = [
    "name",
    "modality_profile",
    "enabled_panels",
    "agent_name",
    "agent_metadata",
    "agent_required",
    "agent_deadline_seconds",
    "on_agent_hangup",
    "room_creation",
    "join_window_seconds",
    "reconnect_window_seconds",
    "max_duration_seconds",
    "token_ttl_seconds",
];

/// A new template. Unknown fields are rejected, so that a misspelled setting is not ignored.
#[derive(Deserialize, Apiv2Schema)]
#[serde(deny_unknown_fields)]
#[openapi(rename = "NewSessionTemplate")]
pub struct NewTemplateBody {
    /// 1 to 100 characters, unique in the organization, ignoring case.
    name: Option<String>,
    /// What the user may publish: one to four of `audio`, `camera`, `screen` and `text`, joined by
    /// `+`. Null means everything.
    modality_profile: Option<String>,
    /// The panels that a client shows: at most 32 names of 1 to 64 characters, 1 KiB in total. Null
    /// leaves the choice to the client.
    enabled_panels: Option<Vec<String>>,
    /// The name under which the agent's workers register: 1 to 64 characters. Null means no agent.
    agent_name: Option<String>,
    /// Passed to the agent: at most 4 KiB as JSON. Must be empty if `room_creation` is `on_join`.
    agent_metadata: Option<BTreeMap<String, Value>>,
    /// Whether the session fails without its agent. Default: true if `agent_name` is set.
    agent_required: Option<bool>,
    /// Time that the agent has to join: 5 to 300 seconds. Null means the server's default.
    agent_deadline_seconds: Option<i64>,
    /// Whether the session goes on (`keep`, the default) or ends (`end`) if the agent hangs up
    /// while the user is in the room.
    on_agent_hangup: Option<String>,
    /// When the room is created: `on_start` (default) before the start responds, or `on_join` when
    /// the user joins.
    room_creation: Option<String>,
    /// Time that the user has to join: 30 to 86400 seconds, default 600.
    join_window_seconds: Option<i64>,
    /// Time that the user has to return after leaving the room: 5 to 3600 seconds, default 60.
    reconnect_window_seconds: Option<i64>,
    /// Maximum time from the user's first joining to the end: 60 to 86400 seconds, default 7200.
    max_duration_seconds: Option<i64>,
    /// Validity of a join token: 60 to 86400 seconds. Null means the server's default.
    token_ttl_seconds: Option<i64>,
}

/// The settings of a template.
#[derive(Serialize, Apiv2Schema)]
pub struct SettingsBody {
    name: String,
    modality_profile: Option<String>,
    enabled_panels: Option<Vec<String>>,
    agent_name: Option<String>,
    agent_metadata: BTreeMap<String, Value>,
    agent_required: bool,
    agent_deadline_seconds: Option<i32>,
    on_agent_hangup: &'static str,
    room_creation: &'static str,
    join_window_seconds: i32,
    reconnect_window_seconds: i32,
    max_duration_seconds: i32,
    token_ttl_seconds: Option<i32>,
}

/// Applies a patch to the current settings. The result is the body of an equivalent new template.
pub fn patched(
    current: &TemplateSettings,
    patch: &Map<String, Value>,
) -> Result<NewTemplateBody, Problem> {
    let mut body = serde_json::to_value(SettingsBody::from(current.clone()))
        .map_err(|error| Problem::internal(&error))?;
    // Removing the agent also restores the default of `agent_required`.
    if patch.get("agent_name").is_some_and(Value::is_null) {
        body["agent_required"] = Value::Null;
    }
    json_patch::merge(&mut body, &Value::Object(patch.clone()));
    Ok(from_value(body)?)
}

/// Parses the settings of a body.
///
/// # Errors
/// Returns every wrong field.
pub fn parse_settings(body: NewTemplateBody) -> Result<TemplateSettings, Vec<FieldError>> {
    let mut errors = FieldErrors::default();
    let name =
        body.name.ok_or_else(|| Invalid::new("is required")).and_then(TemplateName::try_from);
    let settings = errors.take("name", name).map(TemplateSettings::new);
    // Check the other fields even if the name is wrong, with a placeholder for the name.
    let complete = settings.is_some();
    let placeholder =
        || TemplateName::try_from("unnamed".to_owned()).ok().map(TemplateSettings::new);
    let Some(mut settings) = settings.or_else(placeholder) else { return errors.into_result(None) };

    let profile = body.modality_profile.as_deref().map(known).transpose();
    errors.set("modality_profile", profile, &mut settings.modality_profile);
    let panels = body.enabled_panels.map(EnabledPanels::try_from).transpose();
    errors.set("enabled_panels", panels, &mut settings.enabled_panels);
    let agent = body.agent_name.map(AgentName::try_from).transpose();
    errors.set("agent_name", agent, &mut settings.agent_name);
    settings.agent_required = body.agent_required.unwrap_or(settings.agent_name.is_some());
    errors.set_some(
        "agent_metadata",
        body.agent_metadata.map(|metadata| JsonObject::try_from(Map::from_iter(metadata))),
        &mut settings.agent_metadata,
    );
    let deadline = body.agent_deadline_seconds.map(AgentDeadline::try_from).transpose();
    errors.set("agent_deadline_seconds", deadline, &mut settings.agent_deadline_seconds);
    errors.set_some(
        "on_agent_hangup",
        body.on_agent_hangup.as_deref().map(known),
        &mut settings.on_agent_hangup,
    );
    errors.set_some(
        "room_creation",
        body.room_creation.as_deref().map(known),
        &mut settings.room_creation,
    );
    errors.set_some(
        "join_window_seconds",
        body.join_window_seconds.map(JoinWindow::try_from),
        &mut settings.join_window_seconds,
    );
    errors.set_some(
        "reconnect_window_seconds",
        body.reconnect_window_seconds.map(ReconnectWindow::try_from),
        &mut settings.reconnect_window_seconds,
    );
    errors.set_some(
        "max_duration_seconds",
        body.max_duration_seconds.map(MaxDuration::try_from),
        &mut settings.max_duration_seconds,
    );
    let ttl = body.token_ttl_seconds.map(TokenTtl::try_from).transpose();
    errors.set("token_ttl_seconds", ttl, &mut settings.token_ttl_seconds);
    errors.into_result(complete.then_some(settings))
}

fn known<T: FromStr>(text: &str) -> Result<Lenient<T>, T::Err> {
    text.parse().map(Lenient::Known)
}

impl SettingsBody {
    /// Returns the default of every setting except the name, which is the name in `settings`.
    /// `agent_required` is true if `settings` names an agent, because that is its default then.
    pub fn default_of(settings: &TemplateSettings) -> Self {
        let mut defaults = TemplateSettings::new(settings.name.clone());
        defaults.agent_required = settings.agent_name.is_some();
        defaults.into()
    }

    /// The fields with their names, in the order of [`FIELDS`].
    pub fn fields(&self) -> Vec<(&'static str, Value)> {
        let mut fields = json!(self);
        FIELDS.into_iter().map(|field| (field, fields[field].take())).collect()
    }
}

impl From<TemplateSettings> for SettingsBody {
    fn from(settings: TemplateSettings) -> Self {
        Self {
            name: settings.name.as_str().to_owned(),
            modality_profile: settings.modality_profile.map(|profile| profile.to_string()),
            enabled_panels: settings.enabled_panels.map(|panels| panels.as_slice().to_vec()),
            agent_name: settings.agent_name.map(|agent| agent.as_str().to_owned()),
            agent_metadata: settings.agent_metadata.into_map().into_iter().collect(),
            agent_required: settings.agent_required,
            agent_deadline_seconds: settings.agent_deadline_seconds.map(AgentDeadline::get),
            on_agent_hangup: settings.on_agent_hangup.as_str(),
            room_creation: settings.room_creation.as_str(),
            join_window_seconds: settings.join_window_seconds.get(),
            reconnect_window_seconds: settings.reconnect_window_seconds.get(),
            max_duration_seconds: settings.max_duration_seconds.get(),
            token_ttl_seconds: settings.token_ttl_seconds.map(TokenTtl::get),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lists_every_setting() {
        let name = TemplateName::try_from("T".to_owned()).unwrap();
        let shown = json!(SettingsBody::from(TemplateSettings::new(name)));
        let shown: Vec<_> = shown.as_object().unwrap().keys().collect();
        let mut known = FIELDS;
        known.sort_unstable();
        assert_eq!(shown, known.iter().collect::<Vec<_>>());
    }
}
