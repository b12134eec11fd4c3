//! Core checks ownership itself, whoever calls it.

use std::sync::Arc;

use greenroom_core::domain::{JsonObject, SessionStatus, UserId};
use greenroom_core::{
    Caller, Error, Greenroom, MemoryRooms, PageRequest, PageStart, SessionFilter, StartRequest,
    TemplateFilter, TemplateSettings,
};
use greenroom_testkit::pg::Database;
use serde_json::json;

use crate::{organization, service, template};

async fn count(greenroom: &Greenroom, caller: &Caller) -> usize {
    let sessions = greenroom.sessions(caller, SessionFilter::default(), PageRequest::default());
    sessions.await.unwrap().items.len()
}

#[tokio::test]
async fn nothing_of_another_organization_is_reached() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let (mine, theirs) = (organization(), organization());
    let (me, them) = (Caller::backend(mine), Caller::backend(theirs));
    let template = greenroom.create_template(theirs, template("T")).await.unwrap().id;
    let session = greenroom.start(&them, StartRequest::new(template)).await.unwrap().session.id;

    let refused = greenroom.start(&me, StartRequest::new(template)).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateForbidden(id) if id == template), "{refused:?}");
    assert!(greenroom.session(&me, session).await.unwrap().is_none());
    assert_eq!((count(&greenroom, &me).await, count(&greenroom, &them).await), (0, 1));
    assert!(greenroom.session(&them, session).await.unwrap().is_some(), "the control");

    assert!(greenroom.template(mine, template).await.unwrap().is_none());
    let filter = TemplateFilter { include_archived: true };
    let seen = greenroom.templates(mine, filter, PageRequest::default()).await.unwrap();
    assert_eq!(seen.items, []);
    let kept = |settings: &TemplateSettings| Ok::<_, Error>(settings.clone());
    let refused = greenroom.update_template(mine, template, kept).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateNotFound(_)), "{refused:?}");
    let refused = greenroom.archive_template(mine, template).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateNotFound(_)), "{refused:?}");
    assert!(greenroom.template(theirs, template).await.unwrap().unwrap().archived_at.is_none());
}

#[tokio::test]
async fn an_end_user_reaches_its_own_sessions_alone() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let organization = organization();
    let user = |name: &str| UserId::try_from(name.to_owned()).unwrap();
    let backend = Caller::backend(organization);
    let (ann, ben) = (user("ann"), user("ben"));
    let (as_ann, as_ben) =
        (Caller::end_user(organization, ann.clone()), Caller::end_user(organization, ben.clone()));
    let template = greenroom.create_template(organization, template("T")).await.unwrap().id;
    let metadata = JsonObject::try_from(json!({"a": 1}).as_object().unwrap().clone()).unwrap();
    let request = StartRequest {
        user_id: Some(ann.clone()),
        metadata: Some(metadata.clone()),
        ..StartRequest::new(template)
    };

    let session = greenroom.start(&backend, request.clone()).await.unwrap().session.id;
    greenroom.start(&backend, StartRequest::new(template)).await.unwrap();
    let seen = greenroom.session(&as_ann, session).await.unwrap().unwrap();
    assert_eq!(seen.metadata, None, "metadata is between the backend and the agent");
    let seen = greenroom.session(&backend, session).await.unwrap().unwrap();
    assert_eq!(seen.metadata, Some(metadata), "the control");
    assert!(greenroom.session(&as_ben, session).await.unwrap().is_none());
    assert_eq!((count(&greenroom, &as_ann).await, count(&greenroom, &as_ben).await), (1, 0));
    assert_eq!(count(&greenroom, &backend).await, 2, "with the guest's");

    let own = greenroom.start(&as_ann, StartRequest::new(template)).await.unwrap().session;
    assert_eq!(own.user_id, Some(ann.clone()), "without being named");
    let refused = greenroom.start(&as_ben, request.clone()).await.unwrap_err();
    assert!(matches!(refused, Error::UserMismatch), "{refused:?}");
    let refused = greenroom.start(&as_ann, request).await.unwrap_err();
    assert!(matches!(refused, Error::MetadataForbidden), "{refused:?}");
    let anns = SessionFilter { user_id: Some(ann), ..SessionFilter::default() };
    let refused = greenroom.sessions(&as_ben, anns, PageRequest::default()).await.unwrap_err();
    assert!(matches!(refused, Error::UserMismatch), "{refused:?}");
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_list_alone() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let organization = organization();
    let backend = Caller::backend(organization);
    let ann = UserId::try_from("ann".to_owned()).unwrap();
    let template = greenroom.create_template(organization, template("T")).await.unwrap().id;
    for _ in 0..2 {
        let request = StartRequest { user_id: Some(ann.clone()), ..StartRequest::new(template) };
        greenroom.start(&backend, request).await.unwrap();
    }
    let first = PageRequest { limit: 1, ..PageRequest::default() };
    let page = greenroom.sessions(&backend, SessionFilter::default(), first).await.unwrap();
    let cursor = page.next_cursor.unwrap();
    let next = PageRequest { limit: 7, start: PageStart::After(cursor) };
    let read =
        async |caller: &Caller, filter| greenroom.sessions(caller, filter, next.clone()).await;
    let all = SessionFilter::default;
    assert_eq!(read(&backend, all()).await.unwrap().items.len(), 1);
    let pending = SessionFilter { status: vec![SessionStatus::Pending], ..all() };
    for (caller, filter) in [
        (&backend, pending),
        (&backend, SessionFilter { user_id: Some(ann.clone()), ..all() }),
        (&Caller::backend(crate::organization()), all()),
        (&Caller::end_user(organization, ann.clone()), all()),
    ] {
        let refused = read(caller, filter).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidCursor), "{refused:?}");
    }
    let templates = greenroom.templates(organization, TemplateFilter::default(), next).await;
    assert!(matches!(templates, Err(Error::InvalidCursor)), "a cursor of another kind of list");
}

#[tokio::test]
async fn two_organizations_may_use_one_name() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let mine = organization();
    greenroom.create_template(mine, template("Support")).await.unwrap();
    greenroom.create_template(organization(), template("Support")).await.unwrap();
    let refused = greenroom.create_template(mine, template("SUPPORT")).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateNameTaken(_)), "{refused:?}");
}

#[tokio::test]
async fn a_template_that_contradicts_itself_is_refused_here_too() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let mut settings = template("T");
    settings.agent_required = true;
    settings.agent_metadata =
        JsonObject::try_from(json!({"a": 1}).as_object().unwrap().clone()).unwrap();
    let refused = greenroom.create_template(organization(), settings).await.unwrap_err();
    let Error::TemplateContradicts(found) = refused else { panic!("{refused:?}") };
    assert_eq!(found[0].0, "agent_required");
}
