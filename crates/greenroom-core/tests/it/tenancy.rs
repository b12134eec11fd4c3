//! Core checks ownership itself, whoever calls it.

use std::sync::Arc;

use greenroom_core::domain::JsonObject;
use greenroom_core::{Error, MemoryRooms, Page, SessionFilter, StartRequest};
use greenroom_testkit::pg::Database;
use serde_json::json;

use crate::{organization, service, template};

#[tokio::test]
async fn nothing_of_another_organization_is_reached() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let (mine, theirs) = (organization(), organization());
    let template = greenroom.create_template(theirs, template("T")).await.unwrap().id;
    let session = greenroom.start(theirs, StartRequest::new(template)).await.unwrap().session.id;

    let refused = greenroom.start(mine, StartRequest::new(template)).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateForbidden(id) if id == template), "{refused:?}");
    assert!(greenroom.session(mine, session).await.unwrap().is_none());
    assert!(greenroom.template(mine, template).await.unwrap().is_none());
    assert!(greenroom.templates(mine, 10).await.unwrap().is_empty());
    let page = Page { limit: 10, offset: 0 };
    assert!(greenroom.sessions(mine, &SessionFilter::default(), page).await.unwrap().is_empty());
    assert!(greenroom.session(theirs, session).await.unwrap().is_some(), "the control");
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
