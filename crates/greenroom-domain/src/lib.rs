//! The vocabulary and the rules of Greenroom: pure values and functions, without I/O, clock or
//! randomness.
//!
//! The types are validated when they are created, so code that has a [`RoomName`] or a
//! [`ModalityProfile`] does not check it again. A parser that refuses a value returns an
//! [`Invalid`]. API callers read its text.

pub mod attributes;
pub mod caller;
pub mod error_chain;
pub mod id;
pub mod idempotency;
pub mod identity;
pub mod json;
pub mod lifecycle;
pub mod modality;
pub mod panel;
pub mod quantity;
pub mod room_name;
pub mod secret;
pub mod session;
#[cfg(feature = "diesel")]
mod sql;
pub mod template;
mod text_enum;

mod invalid;

pub use attributes::ParticipantAttributes;
pub use caller::{Caller, UserMismatch};
pub use error_chain::ErrorChain;
pub use id::{OrganizationId, SessionId, SessionTemplateId};
pub use idempotency::IdempotencyKey;
pub use identity::{ParticipantIdentity, ParticipantName, UserId};
pub use invalid::{Invalid, InvalidValue};
pub use json::JsonObject;
pub use modality::{Modality, ModalityProfile, PublishGrant, TrackSource};
pub use panel::EnabledPanels;
pub use quantity::{
    CallsInFlight, CallsPerMinute, PageLimit, PageOffset, PoolSize, RetentionDays, Seconds,
    SessionCount, StartsPerMinute,
};
pub use room_name::{RoomName, SuffixSequence};
pub use session::{AgentStatus, EndReason, SessionStatus, WaitCondition};
pub use template::{AgentName, OnAgentHangup, RoomCreation, TemplateName};
