//! A database that the next version has migrated and written: this version shows the values that it knows.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::{PageLimit, SessionId, SessionStatus};
use greenroom_core::{
    Caller, Error, Greenroom, MemoryRooms, PageRequest, SessionFilter, StartRequest, TemplateFilter,
};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use tokio::sync::Notify;

use crate::{on_join_template, organization, service, template};

const TIMEOUT: Duration = Duration::from_secs(20);

/// The next version adds a table, columns and values, and records its migration.
const NEXT_SCHEMA: &str = "
    create table next_things (id bigint primary key);
    alter table sessions add column next_note text default 'next';
    alter table session_events add column next_note text default 'next';
    alter table session_templates add column next_note text default 'next';
    do $$ declare table_name text; name text; begin
      for table_name, name in select conrelid::regclass, conname from pg_constraint
        where contype = 'c' and connamespace = 'public'::regnamespace loop
        execute format('alter table %s drop constraint %I', table_name, name);
      end loop;
    end $$;
    insert into __diesel_schema_migrations (version) values ('20990101000001')";

async fn ids(greenroom: &Greenroom, caller: &Caller, limit: PageLimit) -> Vec<SessionId> {
    let (mut ids, mut page) = (Vec::new(), PageRequest::first(limit));
    loop {
        let found = greenroom.sessions(caller, SessionFilter::default(), page).await.unwrap();
        ids.extend(found.items.iter().map(|session| session.id));
        let Some(cursor) = found.next_cursor else { return ids };
        page = PageRequest::new(limit, greenroom_core::PageStart::After(cursor));
    }
}

#[tokio::test]
async fn session_with_invalid_values_can_be_ended_and_not_joined() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let on_join = on_join_template(&greenroom, &caller).await;
    let started = greenroom.start(&caller, StartRequest::new(on_join)).await.unwrap();
    let id = started.session.id;
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let edit = format!("update sessions set room_name = '', user_id = '' where id = '{id}'");
    db.batch_execute(&edit).await.unwrap();

    // A token for the room '' would admit its user to every room.
    let refused = greenroom.refresh_token(&caller, id).await.unwrap_err();
    assert!(format!("{refused:?}").contains("room_name"), "{refused:?}");
    let ended = greenroom.end(&caller, id).await.unwrap().unwrap();
    assert_eq!(ended.status, SessionStatus::Ended);
    assert_eq!(greenroom.session(&caller, id).await.unwrap(), Some(ended));
}

#[tokio::test]
async fn template_of_next_version_is_shown_and_starts_no_session() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(NEXT_SCHEMA).await.unwrap();
    for (column, value) in [
        ("room_creation", "on_demand"),
        ("on_agent_hangup", "redial"),
        ("modality_profile", "audio+smell"),
    ] {
        let id = greenroom.create_template(&caller, template(column)).await.unwrap().id;
        let edit =
            format!("update session_templates set {column} = '{value}' where id::text = '{id}'");
        db.batch_execute(&edit).await.unwrap();
        let shown = greenroom.template(&caller, id).await.unwrap().unwrap();
        let settings = &shown.settings;
        let values = [
            settings.room_creation.to_string(),
            settings.on_agent_hangup.to_string(),
            settings.modality_profile.map(|profile| profile.to_string()).unwrap_or_default(),
        ];
        assert_eq!(values.iter().filter(|value| *value == "unknown").count(), 1, "{values:?}");
        let page = PageRequest::default();
        let listed = greenroom.templates(&caller, TemplateFilter::default(), page).await.unwrap();
        assert_eq!(listed.items[0], shown);

        let refused = greenroom.start(&caller, StartRequest::new(id)).await.unwrap_err();
        assert!(matches!(refused, Error::TemplateUnusable(template) if template == id));
        assert_eq!(ids(&greenroom, &caller, PageLimit::constant::<9>()).await, []);
        let copy = greenroom.create_template(&caller, settings.clone()).await.unwrap_err();
        let Error::TemplateContradicts(fields) = copy else { panic!("{copy:?}") };
        assert_eq!(fields.iter().map(|(field, _)| *field).collect::<Vec<_>>(), [column]);
        greenroom.archive_template(&caller, id).await.unwrap();
    }
}

#[tokio::test]
async fn template_with_wider_limits_of_next_version_starts_no_session() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let id = greenroom.create_template(&caller, template("Long")).await.unwrap().id;
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    for column in [
        "agent_deadline_seconds",
        "join_window_seconds",
        "reconnect_window_seconds",
        "max_duration_seconds",
        "token_ttl_seconds",
    ] {
        let edit = format!(
            "update session_templates set agent_deadline_seconds = null, join_window_seconds = 60,
               reconnect_window_seconds = 60, max_duration_seconds = 60, token_ttl_seconds = null;
             update session_templates set {column} = 86401"
        );
        db.batch_execute(&edit).await.unwrap();
        let refused = greenroom.start(&caller, StartRequest::new(id)).await;
        let sessions = ids(&greenroom, &caller, PageLimit::constant::<9>()).await;
        assert!(
            matches!(refused, Err(Error::TemplateUnusable(_))) && sessions.is_empty(),
            "{column}: {refused:?} {sessions:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undecodable_rows_of_next_version_affect_no_other_row() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(NEXT_SCHEMA).await.unwrap();
    let on_join = on_join_template(&greenroom, &caller).await;
    let mut sessions = Vec::new();
    for _ in 0..9 {
        let started = greenroom.start(&caller, StartRequest::new(on_join)).await.unwrap();
        sessions.push(started.session.id);
    }
    let [healthy, dreaming, reason, agent, event, creation, profile, broken, unreadable] =
        sessions[..]
    else {
        panic!()
    };
    db.batch_execute(&format!(
        "update sessions set status = 'dreaming' where id = '{dreaming}';
         update sessions set status = 'ended', ended_at = now(), end_reason = 'bored' where id = '{reason}';
         update sessions set agent_status = 'asleep' where id = '{agent}';
         update sessions set room_creation = 'on_demand' where id = '{creation}';
         update sessions set modality_profile = 'audio+smell' where id = '{profile}';
         update sessions set room_name = '', user_id = 'a	b', participant_identity = ''
           where id = '{broken}';
         update sessions set metadata = '[7]' where id = '{unreadable}';
         insert into session_events (organization_id, session_id, at, event)
           select organization_id, id, now(), 'woke_up' from sessions where id = '{event}';
         insert into session_events (organization_id, session_id, at, event, detail)
           select organization_id, id, now(), 'user_left', '[]' from sessions where id = '{event}';
         update sessions set next_check_at = now(), join_by = case id when '{healthy}' then now() else join_by end"
    ))
    .await
    .unwrap();

    let shown = async |id: SessionId| greenroom.session(&caller, id).await.unwrap().unwrap();
    assert_eq!(shown(dreaming).await.status.as_str(), "unknown");
    assert_eq!(shown(reason).await.end_reason.unwrap().as_str(), "unknown");
    assert_eq!(shown(agent).await.agent_status.as_str(), "unknown");
    assert_eq!(shown(creation).await.room_creation.as_str(), "unknown");
    assert_eq!(shown(profile).await.modality_profile.unwrap().to_string(), "unknown");
    let stored = shown(broken).await;
    assert_eq!(
        (&*stored.room_name.to_string(), &*stored.user_id.unwrap().to_string()),
        ("", "a\tb")
    );
    let error = greenroom.session(&caller, unreadable).await.unwrap_err();
    assert!(format!("{error:?}").contains("metadata"), "{error:?}");
    let timeline = greenroom.timeline(&caller, event).await.unwrap().unwrap();
    let events: Vec<_> = timeline.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["created", "unknown"]);
    let mut listed: Vec<_> = sessions.iter().copied().filter(|id| *id != unreadable).collect();
    listed.sort_unstable_by(|one, other| other.cmp(one));
    for limit in [PageLimit::constant::<1>(), PageLimit::constant::<3>()] {
        assert_eq!(ids(&greenroom, &caller, limit).await, listed, "{limit:?}");
    }

    let readiness = greenroom.readiness().await;
    assert_eq!((readiness.database, readiness.migrations), (Ok(()), Ok(())));
    let stop = Notify::new();
    let check = async {
        let expired = wait_until("the healthy session to expire", TIMEOUT, async || {
            let session = greenroom.session(&caller, healthy).await?;
            Ok(session.filter(|session| session.status == SessionStatus::Expired))
        });
        expired.await.unwrap();
        let started = greenroom.start(&caller, StartRequest::new(on_join)).await.unwrap();
        let ended = greenroom.end(&caller, started.session.id).await.unwrap().unwrap();
        assert_eq!(ended.status, SessionStatus::Ended);
        stop.notify_one();
    };
    tokio::join!(check, greenroom.run_keeper(stop.notified()));
}
