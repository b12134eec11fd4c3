//! The settings of a template, and the SQL condition that this version can use them.

use diesel::pg::Pg;
use diesel::prelude::*;
use greenroom_domain::template::{
    AgentDeadline, Contradiction, JoinWindow, MaxDuration, ReconnectWindow, TokenTtl,
    contradictions,
};
use greenroom_domain::{
    AgentName, EnabledPanels, Invalid, JsonObject, Lenient, ModalityProfile, OnAgentHangup,
    RoomCreation, TemplateName,
};

use crate::schema::session_templates;

/// The settings of a template that its author chooses. Settings that contain a value that this
/// version does not know can be read, but not written.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = session_templates, check_for_backend(Pg))]
#[diesel(treat_none_as_default_value = false)]
#[non_exhaustive]
pub struct TemplateSettings {
    /// 1 to 100 characters. Unique among the templates of the organization that are not archived,
    /// ignoring case.
    pub name: TemplateName,
    /// The tracks that the user may publish. `None` means all.
    pub modality_profile: Option<Lenient<ModalityProfile>>,
    /// `None` leaves the choice to the client. An empty list enables no panel.
    pub enabled_panels: Option<EnabledPanels>,
    /// `None` means that sessions have no agent.
    pub agent_name: Option<AgentName>,
    /// Passed to the agent when it is dispatched. Must be empty if `room_creation` is `on_join`.
    pub agent_metadata: JsonObject,
    /// Whether a session fails if its agent does not join in time.
    pub agent_required: bool,
    /// Time that an agent has to join after it was requested: 5 to 300 seconds. `None` means the
    /// server's default.
    pub agent_deadline_seconds: Option<AgentDeadline>,
    /// Whether the session stays open if the agent hangs up while the user is in the room.
    pub on_agent_hangup: Lenient<OnAgentHangup>,
    /// Whether the start or the join of the user opens the room.
    pub room_creation: Lenient<RoomCreation>,
    /// Time after the start within which the user must join: 30 to 86,400 seconds.
    pub join_window_seconds: JoinWindow,
    /// Time that the room waits for a user who left: 5 to 3,600 seconds.
    pub reconnect_window_seconds: ReconnectWindow,
    /// Maximum duration, counted from the user's first join: 60 to 86,400 seconds.
    pub max_duration_seconds: MaxDuration,
    /// Time within which the user can connect with a token: 60 to 86,400 seconds. `None` means the
    /// server's default.
    pub token_ttl_seconds: Option<TokenTtl>,
}

impl TemplateSettings {
    /// The default settings, with this name.
    #[must_use]
    pub fn new(name: TemplateName) -> Self {
        Self {
            name,
            modality_profile: None,
            enabled_panels: None,
            agent_name: None,
            agent_metadata: JsonObject::default(),
            agent_required: false,
            agent_deadline_seconds: None,
            on_agent_hangup: OnAgentHangup::Keep.into(),
            room_creation: RoomCreation::OnStart.into(),
            join_window_seconds: JoinWindow::constant::<600>(),
            reconnect_window_seconds: ReconnectWindow::constant::<60>(),
            max_duration_seconds: MaxDuration::constant::<7_200>(),
            token_ttl_seconds: None,
        }
    }

    /// Returns the settings that contradict each other or have a value that this version does not
    /// know, each with its field.
    #[must_use]
    pub fn violations(&self) -> Vec<Contradiction> {
        let mut found = contradictions(
            self.agent_name.as_ref(),
            self.agent_required,
            &self.agent_metadata,
            self.room_creation,
        );
        let profile = self.modality_profile.map(Lenient::checked).transpose();
        found.extend(unknown_value("modality_profile", profile));
        found.extend(unknown_value("on_agent_hangup", self.on_agent_hangup.checked()));
        found.extend(unknown_value("room_creation", self.room_creation.checked()));
        found
    }
}

fn unknown_value<T>(field: &'static str, value: Result<T, Invalid>) -> Option<Contradiction> {
    value.err().map(|invalid| (field, invalid))
}

/// SQL condition on a template: this version knows the values of its enumerations, and its times are
/// within the limits of this version. Literals, because a start checks them.
pub(crate) const IS_USABLE: &str = "room_creation in ('on_start', 'on_join')
    and on_agent_hangup in ('keep', 'end')
    and (modality_profile is null or modality_profile in (
      'audio', 'camera', 'audio+camera', 'screen', 'audio+screen', 'camera+screen',
      'audio+camera+screen', 'text', 'audio+text', 'camera+text', 'audio+camera+text',
      'screen+text', 'audio+screen+text', 'camera+screen+text', 'audio+camera+screen+text'))
    and (agent_name is null or char_length(agent_name) between 1 and 64
      and not starts_with(agent_name, 'greenroom.') and agent_name !~ '[[:cntrl:]]')
    and jsonb_typeof(agent_metadata) = 'object'
    and (agent_deadline_seconds is null or agent_deadline_seconds between 5 and 300)
    and join_window_seconds between 30 and 86400
    and reconnect_window_seconds between 5 and 3600
    and max_duration_seconds between 60 and 86400
    and (token_ttl_seconds is null or token_ttl_seconds between 60 and 86400)";

#[cfg(test)]
mod tests {
    use greenroom_domain::Modality;

    use super::*;

    #[test]
    fn known_values_are_those_of_the_domain() {
        let profile = |chosen: usize| {
            let modalities = Modality::ALL.into_iter().enumerate();
            let chosen = modalities.filter(|(place, _)| chosen >> place & 1 == 1);
            chosen.map(|(_, modality)| modality.as_str()).collect::<Vec<_>>().join("+")
        };
        let list = |values: Vec<String>| {
            values.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ")
        };
        let between = |column: &str, minimum: i32, maximum: i32| {
            format!("{column} between {minimum} and {maximum}")
        };
        let enumerations = format!(
            "room_creation in ({}) and on_agent_hangup in ({}) and (modality_profile is null \
             or modality_profile in ( {}))",
            list(RoomCreation::ALL.iter().map(ToString::to_string).collect()),
            list(OnAgentHangup::ALL.iter().map(ToString::to_string).collect()),
            list((1..1 << Modality::ALL.len()).map(profile).collect()),
        );
        let times = format!(
            "(agent_deadline_seconds is null or {}) and {} and {} and {} \
             and (token_ttl_seconds is null or {})",
            between("agent_deadline_seconds", AgentDeadline::MIN, AgentDeadline::MAX),
            between("join_window_seconds", JoinWindow::MIN, JoinWindow::MAX),
            between("reconnect_window_seconds", ReconnectWindow::MIN, ReconnectWindow::MAX),
            between("max_duration_seconds", MaxDuration::MIN, MaxDuration::MAX),
            between("token_ttl_seconds", TokenTtl::MIN, TokenTtl::MAX),
        );
        // The rules of `AgentName`, and that the metadata is an object.
        let agent = "(agent_name is null or char_length(agent_name) between 1 and 64 \
            and not starts_with(agent_name, 'greenroom.') and agent_name !~ '[[:cntrl:]]') \
            and jsonb_typeof(agent_metadata) = 'object'";
        let expected = format!("{enumerations} and {agent} and {times}");
        assert_eq!(IS_USABLE.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    }
}
