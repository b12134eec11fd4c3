//! Conversions between this crate's types and SQL: `text`, `uuid`, `integer`, `text[]`, `jsonb`.

use std::io::Write;
use std::str::FromStr;

use diesel::deserialize::FromSql;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{IsNull, Output, ToSql};
use diesel::sql_types::{Array, Integer, Jsonb, Text, Uuid};
use diesel::{deserialize, serialize};

use crate::lifecycle::TimelineEvent;
use crate::template::{AgentDeadline, JoinWindow, MaxDuration, ReconnectWindow, TokenTtl};
use crate::{
    AgentName, AgentStatus, EnabledPanels, EndReason, Invalid, JsonObject, Lenient,
    ModalityProfile, OnAgentHangup, OrganizationId, ParticipantAttributes, ParticipantIdentity,
    ParticipantName, ReconcileInterval, RoomCreation, RoomName, SessionCount, SessionId,
    SessionStatus, SessionTemplateId, Stored, TemplateName, UserId,
};

macro_rules! uuids {
    ($($name:ident)+) => { $(
        impl ToSql<Uuid, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                <uuid::Uuid as ToSql<Uuid, Pg>>::to_sql(&self.0, out)
            }
        }

        impl FromSql<Uuid, Pg> for $name {
            fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
                <uuid::Uuid as FromSql<Uuid, Pg>>::from_sql(bytes).map(Self)
            }
        }
    )+ };
}

uuids! { OrganizationId SessionId SessionTemplateId }

macro_rules! texts {
    ($($name:ident: $read:expr;)+) => { $(
        impl ToSql<Text, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all(self.as_str().as_bytes())?;
                Ok(IsNull::No)
            }
        }

        impl FromSql<Text, Pg> for $name {
            fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
                let text = <String as FromSql<Text, Pg>>::from_sql(bytes)?;
                Ok($read(text)?)
            }
        }
    )+ };
}

texts! {
    AgentName: AgentName::try_from;
    ParticipantIdentity: ParticipantIdentity::try_from;
    ParticipantName: ParticipantName::try_from;
    RoomName: RoomName::try_from;
    TemplateName: TemplateName::try_from;
    UserId: UserId::try_from;
    AgentStatus: |text: String| text.parse::<AgentStatus>();
    EndReason: |text: String| text.parse::<EndReason>();
    OnAgentHangup: |text: String| text.parse::<OnAgentHangup>();
    RoomCreation: |text: String| text.parse::<RoomCreation>();
    SessionStatus: |text: String| text.parse::<SessionStatus>();
    TimelineEvent: |text: String| text.parse::<TimelineEvent>();
}

impl<T: FromStr> FromSql<Text, Pg> for Lenient<T> {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(text(&bytes)?.parse().map_or(Self::Unknown, Self::Known))
    }
}

impl<T: ToSql<Text, Pg>> ToSql<Text, Pg> for Lenient<T> {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        match self {
            Self::Known(value) => value.to_sql(out),
            Self::Unknown => {
                Err("a value that this version does not know cannot be written".into())
            }
        }
    }
}

impl<T: TryFrom<String, Error = Invalid>> FromSql<Text, Pg> for Stored<T> {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        text(&bytes).map(Self::from)
    }
}

fn text<'a>(value: &'a PgValue<'_>) -> deserialize::Result<&'a str> {
    Ok(std::str::from_utf8(value.as_bytes())?)
}

impl ToSql<Text, Pg> for ModalityProfile {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        write!(out, "{self}")?;
        Ok(IsNull::No)
    }
}

impl FromSql<Text, Pg> for ModalityProfile {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(<String as FromSql<Text, Pg>>::from_sql(bytes)?.parse()?)
    }
}

macro_rules! seconds {
    ($($name:ident)+) => { $(
        impl ToSql<Integer, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all(&self.get().to_be_bytes())?;
                Ok(IsNull::No)
            }
        }

        impl FromSql<Integer, Pg> for $name {
            fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
                let seconds = <i32 as FromSql<Integer, Pg>>::from_sql(bytes)?;
                Ok(Self::try_from(i64::from(seconds))?)
            }
        }
    )+ };
}

seconds! { AgentDeadline JoinWindow MaxDuration ReconcileInterval ReconnectWindow TokenTtl }

impl ToSql<Integer, Pg> for SessionCount {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&self.get().to_be_bytes())?;
        Ok(IsNull::No)
    }
}

impl ToSql<Array<Text>, Pg> for EnabledPanels {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        <[String] as ToSql<Array<Text>, Pg>>::to_sql(self.as_slice(), &mut out.reborrow())
    }
}

impl FromSql<Array<Text>, Pg> for EnabledPanels {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        <Vec<String> as FromSql<Array<Text>, Pg>>::from_sql(bytes).map(Self::stored)
    }
}

macro_rules! json {
    ($($name:ident)+) => { $(
        impl ToSql<Jsonb, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                // The binary form of jsonb starts with a version byte.
                out.write_all(&[1])?;
                serde_json::to_writer(out, self)?;
                Ok(IsNull::No)
            }
        }

        impl FromSql<Jsonb, Pg> for $name {
            fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
                let stored = <serde_json::Value as FromSql<Jsonb, Pg>>::from_sql(bytes)?;
                Ok(Self::stored(serde_json::from_value(stored)?))
            }
        }
    )+ };
}

json! { JsonObject ParticipantAttributes }
