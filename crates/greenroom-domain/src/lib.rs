//! The vocabulary and the rules of Greenroom: pure values and functions, without I/O, clock or
//! randomness.
//!
//! The types are validated when they are created, so code that has a [`RoomName`] or a
//! [`ModalityProfile`] does not check it again. A parser that refuses a value returns an
//! [`Invalid`]. API callers read its text.

#![deny(missing_docs)]

pub mod attributes;
pub mod caller;
pub mod error_chain;
pub mod id;
pub mod idempotency;
pub mod identity;
pub mod json;
pub mod lenient;
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

pub use self::attributes::ParticipantAttributes;
pub use self::caller::{Caller, UserMismatch};
pub use self::error_chain::ErrorChain;
pub use self::id::{Bucket, OrganizationId, SessionId, SessionTemplateId};
pub use self::idempotency::IdempotencyKey;
pub use self::identity::{ParticipantIdentity, ParticipantName, UserId};
pub use self::invalid::{Invalid, InvalidValue};
pub use self::json::JsonObject;
pub use self::lenient::{Lenient, Stored};
pub use self::modality::{Modality, ModalityProfile, PublishGrant, TrackSource};
pub use self::panel::EnabledPanels;
pub use self::quantity::{
    CallsInFlight, CallsPerMinute, PageLimit, PageOffset, PoolSize, ReconcileInterval,
    RetentionDays, SessionCount, StartsPerMinute, WaitSeconds,
};
pub use self::room_name::{RoomName, SuffixSequence};
pub use self::session::{AgentStatus, EndReason, SessionStatus, WaitCondition};
pub use self::template::{AgentName, OnAgentHangup, RoomCreation, TemplateName};
