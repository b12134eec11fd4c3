//! Ownership checks: organizations and end users reach only their own data.

use std::sync::Arc;

use greenroom_core::domain::{JsonObject, PageLimit, SessionStatus, Stored, UserId};
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
async fn data_of_another_organization_is_not_accessible() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let (caller, owner) = (Caller::backend(organization()), Caller::backend(organization()));
    let template = greenroom.create_template(&owner, template("T")).await.unwrap().id;
    let session = greenroom.start(&owner, StartRequest::new(template)).await.unwrap().session.id;

    let refused = greenroom.start(&caller, StartRequest::new(template)).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateForbidden(id) if id == template), "{refused:?}");
    assert!(greenroom.session(&caller, session).await.unwrap().is_none());
    assert_eq!((count(&greenroom, &caller).await, count(&greenroom, &owner).await), (0, 1));
    assert!(greenroom.session(&owner, session).await.unwrap().is_some(), "the owner sees it");

    assert!(greenroom.template(&caller, template).await.unwrap().is_none());
    let filter = TemplateFilter::default().archived(true);
    let page = greenroom.templates(&caller, filter, PageRequest::default()).await.unwrap();
    assert_eq!(page.items, []);
    let unchanged = |settings: &TemplateSettings| Ok::<_, Error>(settings.clone());
    let refused = greenroom.update_template(&caller, template, unchanged).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateNotFound(_)), "{refused:?}");
    let refused = greenroom.archive_template(&caller, template).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateNotFound(_)), "{refused:?}");
    assert!(greenroom.template(&owner, template).await.unwrap().unwrap().archived_at.is_none());
}

#[tokio::test]
async fn end_user_reaches_only_own_sessions() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let organization = organization();
    let user = |name: &str| UserId::try_from(name.to_owned()).unwrap();
    let backend = Caller::backend(organization);
    let (ann, ben) = (user("ann"), user("ben"));
    let (as_ann, as_ben) =
        (Caller::end_user(organization, ann.clone()), Caller::end_user(organization, ben.clone()));
    let template = greenroom.create_template(&backend, template("T")).await.unwrap().id;
    let metadata = JsonObject::try_from(json!({"a": 1}).as_object().unwrap().clone()).unwrap();
    let mut request = StartRequest::new(template);
    request.user_id = Some(ann.clone());
    request.metadata = Some(metadata.clone());

    let session = greenroom.start(&backend, request.clone()).await.unwrap().session.id;
    greenroom.start(&backend, StartRequest::new(template)).await.unwrap();
    let read = greenroom.session(&as_ann, session).await.unwrap().unwrap();
    assert_eq!(read.metadata, None, "an end user does not see metadata");
    let read = greenroom.session(&backend, session).await.unwrap().unwrap();
    assert_eq!(read.metadata, Some(metadata), "a backend sees metadata");
    assert!(greenroom.session(&as_ben, session).await.unwrap().is_none());
    assert_eq!((count(&greenroom, &as_ann).await, count(&greenroom, &as_ben).await), (1, 0));
    assert_eq!(count(&greenroom, &backend).await, 2, "including the session of the guest");

    let own = greenroom.start(&as_ann, StartRequest::new(template)).await.unwrap().session;
    assert_eq!(own.user_id, Some(Stored::Valid(ann.clone())), "the caller is the default user");
    let refused = greenroom.start(&as_ben, request.clone()).await.unwrap_err();
    assert!(matches!(refused, Error::UserMismatch), "{refused:?}");
    let refused = greenroom.start(&as_ann, request).await.unwrap_err();
    assert!(matches!(refused, Error::MetadataForbidden), "{refused:?}");
    let mut anns = SessionFilter::default();
    anns.user_id = Some(ann);
    let refused = greenroom.sessions(&as_ben, anns, PageRequest::default()).await.unwrap_err();
    assert!(matches!(refused, Error::UserMismatch), "{refused:?}");
}

#[tokio::test]
async fn cursor_is_refused_by_other_lists() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let organization = organization();
    let backend = Caller::backend(organization);
    let ann = UserId::try_from("ann".to_owned()).unwrap();
    let template = greenroom.create_template(&backend, template("T")).await.unwrap().id;
    for _ in 0..2 {
        let mut request = StartRequest::new(template);
        request.user_id = Some(ann.clone());
        greenroom.start(&backend, request).await.unwrap();
    }
    let first = PageRequest::first(PageLimit::constant::<1>());
    let page = greenroom.sessions(&backend, SessionFilter::default(), first).await.unwrap();
    let cursor = page.next_cursor.unwrap();
    let next = PageRequest::new(PageLimit::constant::<7>(), PageStart::After(cursor));
    let read =
        async |caller: &Caller, filter| greenroom.sessions(caller, filter, next.clone()).await;
    let all = SessionFilter::default;
    assert_eq!(read(&backend, all()).await.unwrap().items.len(), 1);
    let (mut pending, mut anns) = (all(), all());
    pending.status = vec![SessionStatus::Pending];
    anns.user_id = Some(ann.clone());
    for (caller, filter) in [
        (&backend, pending),
        (&backend, anns),
        (&Caller::backend(crate::organization()), all()),
        (&Caller::end_user(organization, ann.clone()), all()),
    ] {
        let refused = read(caller, filter).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidCursor), "{refused:?}");
    }
    let templates = greenroom.templates(&backend, TemplateFilter::default(), next).await;
    assert!(matches!(templates, Err(Error::InvalidCursor)), "a cursor of another kind of list");
}

#[tokio::test]
async fn template_name_is_unique_per_organization() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    greenroom.create_template(&caller, template("Support")).await.unwrap();
    greenroom.create_template(&Caller::backend(organization()), template("Support")).await.unwrap();
    let refused = greenroom.create_template(&caller, template("SUPPORT")).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateNameTaken(_)), "{refused:?}");
}

#[tokio::test]
async fn contradictory_template_is_refused() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let mut settings = template("T");
    settings.agent_required = true;
    settings.agent_metadata =
        JsonObject::try_from(json!({"a": 1}).as_object().unwrap().clone()).unwrap();
    let refused =
        greenroom.create_template(&Caller::backend(organization()), settings).await.unwrap_err();
    let Error::TemplateContradicts(found) = refused else { panic!("{refused:?}") };
    assert_eq!(found[0].0, "agent_required");
}
