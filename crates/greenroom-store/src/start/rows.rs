//! The values of sessions to insert: one array per column, or one value if there is one session.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::{Array, Binary, Bool, Jsonb, Nullable, Text, Uuid};
use greenroom_domain::{
    AgentName, JsonObject, OrganizationId, ParticipantAttributes, ParticipantIdentity,
    ParticipantName, RoomName, SessionId, SessionTemplateId, UserId,
};

use crate::new_session::NewSession;

macro_rules! rows {
    ($($column:ident: $type:ty as $sql:ty,)+) => {
        /// The columns of the sessions.
        #[derive(Default)]
        pub(super) struct Rows<'a> {
            $($column: Vec<$type>,)+
        }

        impl Rows<'_> {
            /// Pushes the CTE `new`, with one row per session. Its column `number` is the position of
            /// the session.
            pub(super) fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                if self.is_one() { self.push_one(out) } else { self.push_all(out) }
            }

            /// Parameters without arrays cost PostgreSQL a tenth less for one session.
            fn push_one<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                out.push_sql("new as (select ");
                $(
                    if let Some(value) = self.$column.first() {
                        out.push_bind_param::<$sql, _>(value)?;
                    }
                    out.push_sql(concat!(" as ", stringify!($column), ", "));
                )+
                out.push_sql("1 as number)");
                Ok(())
            }

            fn push_all<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                let mut before = "new as (select * from unnest(";
                $(
                    out.push_sql(before);
                    out.push_bind_param::<Array<$sql>, _>(&self.$column)?;
                    before = ", ";
                )+
                // `number * 0 = 0` is always true, and lowers PostgreSQL's estimate from ten rows, its
                // default for an array parameter, to one. With ten, it would scan the indexes of small
                // tables instead of searching them for each row, and keep that plan after the tables
                // have grown.
                out.push_sql(") with ordinality as row (");
                $(
                    out.push_sql(stringify!($column));
                    out.push_sql(", ");
                )+
                out.push_sql("number) where number * 0 = 0)");
                Ok(())
            }
        }
    };
}

rows! {
    organization_id: OrganizationId as Uuid,
    session_id: SessionId as Uuid,
    session_template_id: SessionTemplateId as Uuid,
    requested_agent: Option<&'a AgentName> as Nullable<Text>,
    user_id: Option<&'a UserId> as Nullable<Text>,
    metadata: Option<&'a JsonObject> as Nullable<Jsonb>,
    room_name: &'a RoomName as Text,
    participant_identity: &'a ParticipantIdentity as Text,
    participant_name: Option<&'a ParticipantName> as Nullable<Text>,
    participant_attributes: Option<&'a ParticipantAttributes> as Nullable<Jsonb>,
    idempotency_key: Option<&'a [u8]> as Nullable<Binary>,
    idempotency_fingerprint: Option<&'a [u8]> as Nullable<Binary>,
    is_key_implicit: bool as Bool,
    is_first_check_remembered: bool as Bool,
}

impl<'a> Rows<'a> {
    pub(super) fn new(sessions: impl Iterator<Item = &'a NewSession>) -> Self {
        let mut rows = Self::default();
        sessions.for_each(|new| rows.add(new));
        rows
    }

    pub(super) fn is_one(&self) -> bool {
        self.session_id.len() == 1
    }

    pub(super) fn have_implicit_key(&self) -> bool {
        self.is_key_implicit.contains(&true)
    }

    fn add(&mut self, new: &'a NewSession) {
        let key = new.key.claim();
        self.organization_id.push(new.organization_id);
        self.session_id.push(new.id);
        self.session_template_id.push(new.session_template_id);
        self.requested_agent.push(new.agent_name.as_ref());
        self.user_id.push(new.user_id.as_ref());
        self.metadata.push(new.metadata.as_ref());
        self.room_name.push(&new.room_name);
        self.participant_identity.push(&new.participant_identity);
        self.participant_name.push(new.participant_name.as_ref());
        self.participant_attributes.push(new.participant_attributes.as_ref());
        self.idempotency_key.push(key.map(|key| key.hash.as_slice()));
        self.idempotency_fingerprint.push(key.map(|key| key.fingerprint.stored()));
        self.is_key_implicit.push(new.key.implicit().is_some());
        self.is_first_check_remembered.push(new.is_first_check_remembered);
    }
}
