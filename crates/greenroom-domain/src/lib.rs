//! The words and the rules of Greenroom: pure values and functions, without I/O, clock or randomness.
//!
//! A value of one of these types is a checked value: nothing that holds a [`RoomName`] or a
//! [`ModalityProfile`] checks it again. What is refused says so in an [`Invalid`], whose text is
//! written for the person who sent it.

pub mod attributes;
pub mod caller;
pub mod id;
pub mod idempotency;
pub mod identity;
pub mod json;
pub mod lifecycle;
pub mod modality;
pub mod panel;
pub mod room_name;
pub mod session;
#[cfg(feature = "diesel")]
mod sql;
pub mod template;
mod text_enum;

mod invalid;

pub use attributes::ParticipantAttributes;
pub use caller::{Caller, UserMismatch};
pub use id::{OrganizationId, SessionId, SessionTemplateId};
pub use idempotency::IdempotencyKey;
pub use identity::{ParticipantIdentity, ParticipantName, UserId};
pub use invalid::Invalid;
pub use json::JsonObject;
pub use modality::{Modality, ModalityProfile, PublishGrant, TrackSource};
pub use panel::EnabledPanels;
pub use room_name::{RoomName, SuffixSequence};
pub use session::{AgentStatus, EndReason, SessionStatus, WaitCondition};
pub use template::{AgentName, OnAgentHangup, RoomCreation, Seconds, TemplateName};
