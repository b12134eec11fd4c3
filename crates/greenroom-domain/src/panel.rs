//! The panels that a client shows.

use serde::Serialize;

use crate::Invalid;

/// Up to 32 names of panels, at most 1 KiB in total. The template's author and the client agree on
/// the meaning of the names; Greenroom does not interpret them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Array<diesel::sql_types::Text>)
)]
#[serde(transparent)]
pub struct EnabledPanels(Vec<String>);

impl EnabledPanels {
    /// Returns the names in the given order. Names may repeat.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Wraps stored panels without a check; they were checked before they were stored.
    #[cfg(feature = "diesel")]
    pub(crate) fn stored(panels: Vec<String>) -> Self {
        Self(panels)
    }
}

impl From<EnabledPanels> for Vec<String> {
    fn from(panels: EnabledPanels) -> Self {
        panels.0
    }
}

impl TryFrom<Vec<String>> for EnabledPanels {
    type Error = Invalid;

    fn try_from(panels: Vec<String>) -> Result<Self, Invalid> {
        if panels.len() > 32 {
            return Err(Invalid::new("must name at most 32 panels"));
        }
        if let Some(position) = panels.iter().position(|panel| !is_panel_name(panel)) {
            return Err(Invalid::at(
                position,
                "must be 1 to 64 of the characters A-Z a-z 0-9 . _ -",
            ));
        }
        if panels.iter().map(String::len).sum::<usize>() > 1024 {
            return Err(Invalid::new("must be at most 1 KiB in total"));
        }
        Ok(Self(panels))
    }
}

fn is_panel_name(panel: &str) -> bool {
    (1..=64).contains(&panel.len())
        && panel
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panels(panels: &[&str]) -> Result<EnabledPanels, Invalid> {
        EnabledPanels::try_from(panels.iter().map(|panel| (*panel).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn count_and_sizes_are_limited() {
        let longest = "x".repeat(64);
        assert!(panels(&[]).is_ok());
        assert!(panels(&["p"; 32]).is_ok());
        assert!(panels(&["p"; 33]).is_err());
        assert!(panels(&[&longest]).is_ok());
        assert!(panels(&[&format!("{longest}x")]).is_err());
        assert!(panels(&[longest.as_str(); 16]).is_ok(), "1,024 bytes");
        assert!(panels(&[longest.as_str(); 17]).is_err(), "1,088 bytes");
    }

    #[test]
    fn error_contains_index_of_invalid_panel() {
        assert_eq!(panels(&["chat", "notes", "a b"]).unwrap_err().element, Some(2));
        assert_eq!(panels(&[""]).unwrap_err().element, Some(0));
    }
}
