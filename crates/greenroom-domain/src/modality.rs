//! Modality profiles, and what each lets a user publish.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::Invalid;

/// One way in which user and agent meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Modality {
    Audio,
    Camera,
    Screen,
    Text,
}

impl Modality {
    /// All of them, in the order in which a profile is written.
    pub const ALL: [Self; 4] = [Self::Audio, Self::Camera, Self::Screen, Self::Text];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Camera => "camera",
            Self::Screen => "screen",
            Self::Text => "text",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A non-empty set of modalities, written `audio+camera+screen+text` in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
pub struct ModalityProfile(u8);

impl ModalityProfile {
    #[must_use]
    pub fn has(self, modality: Modality) -> bool {
        self.0 & modality.bit() != 0
    }

    /// The modalities of this profile, in their written order.
    pub fn modalities(self) -> impl Iterator<Item = Modality> {
        Modality::ALL.into_iter().filter(move |modality| self.has(*modality))
    }
}

impl FromStr for ModalityProfile {
    type Err = Invalid;

    /// Reads the modalities in any order, each at most once.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut bits = 0;
        for word in text.split('+') {
            let modality = Modality::ALL.into_iter().find(|modality| modality.as_str() == word);
            match modality {
                Some(modality) if bits & modality.bit() == 0 => bits |= modality.bit(),
                _ => {
                    return Err(Invalid::new(
                        "must be one to four of audio, camera, screen, text, joined by +, each once",
                    ));
                }
            }
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for ModalityProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, modality) in self.modalities().enumerate() {
            if position > 0 {
                f.write_str("+")?;
            }
            f.write_str(modality.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for ModalityProfile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A kind of track, in LiveKit's own words for `canPublishSources`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackSource {
    Microphone,
    Camera,
    ScreenShare,
    ScreenShareAudio,
}

impl TrackSource {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Microphone => "microphone",
            Self::Camera => "camera",
            Self::ScreenShare => "screen_share",
            Self::ScreenShareAudio => "screen_share_audio",
        }
    }
}

/// What a user may publish beside data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishGrant {
    /// Every kind of track: a template without a profile restricts nothing.
    Everything,
    /// These kinds only.
    Sources(Vec<TrackSource>),
    /// No track at all. LiveKit reads an empty list of sources as every source, so this is not
    /// `Sources(vec![])`.
    Nothing,
}

impl PublishGrant {
    /// The grant of a profile; none is no restriction.
    #[must_use]
    pub fn of(profile: Option<ModalityProfile>) -> Self {
        let Some(profile) = profile else { return Self::Everything };
        let sources: Vec<_> = profile.modalities().flat_map(sources).copied().collect();
        if sources.is_empty() { Self::Nothing } else { Self::Sources(sources) }
    }
}

fn sources(modality: Modality) -> &'static [TrackSource] {
    match modality {
        Modality::Audio => &[TrackSource::Microphone],
        Modality::Camera => &[TrackSource::Camera],
        Modality::Screen => &[TrackSource::ScreenShare, TrackSource::ScreenShareAudio],
        Modality::Text => &[],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn profile(text: &str) -> ModalityProfile {
        text.parse().unwrap()
    }

    #[test]
    fn a_profile_is_written_in_one_order() {
        assert_eq!(profile("text+screen+camera+audio").to_string(), "audio+camera+screen+text");
        assert_eq!(profile("text+audio").to_string(), "audio+text");
    }

    #[test]
    fn what_is_not_the_grammar_is_refused() {
        for text in [
            "",
            "+",
            "audio+",
            "+audio",
            "audio+audio",
            "Audio",
            "audio text",
            "audio,text",
            "video",
            "audio+text+audio",
        ] {
            assert!(text.parse::<ModalityProfile>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn grants_follow_the_profile() {
        use TrackSource::{Camera, Microphone, ScreenShare, ScreenShareAudio};
        assert_eq!(PublishGrant::of(None), PublishGrant::Everything);
        assert_eq!(PublishGrant::of(Some(profile("text"))), PublishGrant::Nothing);
        assert_eq!(
            PublishGrant::of(Some(profile("audio+text"))),
            PublishGrant::Sources(vec![Microphone])
        );
        assert_eq!(
            PublishGrant::of(Some(profile("audio+camera+screen"))),
            PublishGrant::Sources(vec![Microphone, Camera, ScreenShare, ScreenShareAudio])
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bits in 1_u8..16) {
            let profile = ModalityProfile(bits);
            prop_assert_eq!(profile.to_string().parse(), Ok(profile));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<ModalityProfile>();
        }
    }
}
