//! Modality profiles, and the tracks that each profile lets a user publish.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::Invalid;

/// A way in which user and agent communicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Modality {
    /// The user speaks into a microphone.
    Audio,
    /// The user shows a camera's picture.
    Camera,
    /// The user shares a screen and its sound.
    Screen,
    /// The user writes text. It is sent as data, which every profile allows.
    Text,
}

impl Modality {
    /// All modalities, in the order in which a profile is written.
    pub const ALL: [Self; 4] = [Self::Audio, Self::Camera, Self::Screen, Self::Text];

    /// Returns the word in a profile, such as `audio`.
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
    /// Returns whether the profile contains the modality.
    #[must_use]
    pub fn has(self, modality: Modality) -> bool {
        self.0 & modality.bit() != 0
    }

    /// Returns the modalities of this profile, in the order of [`Modality::ALL`].
    pub fn modalities(self) -> impl Iterator<Item = Modality> {
        Modality::ALL.into_iter().filter(move |modality| self.has(*modality))
    }
}

impl FromStr for ModalityProfile {
    type Err = Invalid;

    /// Parses modalities joined by `+`, in any order, each at most once.
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

/// A kind of track, named as in LiveKit's `canPublishSources`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackSource {
    /// The sound of a microphone.
    Microphone,
    /// The picture of a camera.
    Camera,
    /// The picture of a shared screen.
    ScreenShare,
    /// The sound of a shared screen.
    ScreenShareAudio,
}

impl TrackSource {
    /// Returns the name in `canPublishSources`, such as `screen_share`.
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

/// The tracks that a user may publish. Data is always allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishGrant {
    /// Every kind of track. A template without a profile grants this.
    Everything,
    /// Only these kinds.
    Sources(Vec<TrackSource>),
    /// No track. This is not `Sources(vec![])`, because LiveKit reads an empty list as every
    /// source.
    Nothing,
}

impl PublishGrant {
    /// Returns the grant for a profile. `None` means no restriction.
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
    fn profile_is_written_in_fixed_order() {
        assert_eq!(profile("text+screen+camera+audio").to_string(), "audio+camera+screen+text");
        assert_eq!(profile("text+audio").to_string(), "audio+text");
    }

    #[test]
    fn malformed_profiles_are_refused() {
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
        assert_eq!(PublishGrant::of(None), PublishGrant::Everything);
        assert_eq!(PublishGrant::of(Some(profile("text"))), PublishGrant::Nothing);
        assert_eq!(
            PublishGrant::of(Some(profile("audio+text"))),
            PublishGrant::Sources(vec![TrackSource::Microphone])
        );
        assert_eq!(
            PublishGrant::of(Some(profile("audio+camera+screen"))),
            PublishGrant::Sources(vec![
                TrackSource::Microphone,
                TrackSource::Camera,
                TrackSource::ScreenShare,
                TrackSource::ScreenShareAudio,
            ])
        );
    }

    proptest! {
        #[test]
        fn written_profile_parses_to_same_profile(bits in 1_u8..16) {
            let profile = ModalityProfile(bits);
            prop_assert_eq!(profile.to_string().parse(), Ok(profile));
        }

        #[test]
        fn parser_never_panics(text in "\\PC*") {
            let _ = text.parse::<ModalityProfile>();
        }
    }
}
