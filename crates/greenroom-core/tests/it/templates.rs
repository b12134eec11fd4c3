//! Template versions: concurrent changes, archiving, and the version that a session keeps.

use std::sync::Arc;

use greenroom_core::domain::template::MaxDuration;
use greenroom_core::domain::{AgentName, ModalityProfile, PageLimit, TemplateName};
use greenroom_core::{
    Caller, Error, MemoryRooms, PageRequest, PageStart, StartRequest, TemplateFilter,
    TemplateSettings,
};
use greenroom_testkit::pg::Database;

use crate::{organization, service, template};

fn renamed(name: &str) -> impl FnOnce(&TemplateSettings) -> Result<TemplateSettings, Error> + Send {
    let name = TemplateName::try_from(name.to_owned()).unwrap();
    move |settings| {
        let mut settings = settings.clone();
        settings.name = name;
        Ok(settings)
    }
}

#[tokio::test]
async fn concurrent_changes_are_all_kept() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let id = greenroom.create_template(&caller, template("T")).await.unwrap().id;
    let changes = (0..16).map(|_| {
        let (greenroom, caller) = (greenroom.clone(), caller.clone());
        tokio::spawn(async move {
            // Each change adds one second, so a change that misses another change loses a second.
            let add_second = |settings: &TemplateSettings| {
                let seconds = i64::from(settings.max_duration_seconds.get()) + 1;
                let max_duration_seconds = MaxDuration::try_from(seconds).unwrap();
                let mut settings = settings.clone();
                settings.max_duration_seconds = max_duration_seconds;
                Ok::<_, Error>(settings)
            };
            greenroom.update_template(&caller, id, add_second).await.unwrap().version
        })
    });
    let mut versions = Vec::new();
    for change in changes.collect::<Vec<_>>() {
        versions.push(change.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (2..=17).collect::<Vec<_>>());
    let current = greenroom.template(&caller, id).await.unwrap().unwrap();
    assert_eq!((current.version, current.settings.max_duration_seconds.get()), (17, 7216));
}

#[tokio::test]
async fn templates_that_swap_names_do_not_deadlock() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let first = greenroom.create_template(&caller, template("First")).await.unwrap().id;
    let second = greenroom.create_template(&caller, template("Second")).await.unwrap().id;
    for _ in 0..20 {
        let results = tokio::join!(
            greenroom.update_template(&caller, first, renamed("Second")),
            greenroom.update_template(&caller, second, renamed("First")),
        );
        for result in [results.0, results.1] {
            assert!(matches!(result, Err(Error::TemplateNameTaken(_))), "{result:?}");
        }
    }
}

#[tokio::test]
async fn empty_and_refused_changes_add_no_version() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let created = greenroom.create_template(&caller, template("T")).await.unwrap();
    greenroom.create_template(&caller, template("Taken")).await.unwrap();
    let update = async |change| greenroom.update_template(&caller, created.id, change).await;
    assert_eq!(update(Box::new(renamed("T")) as Change).await.unwrap(), created);
    let refused = update(Box::new(renamed("TAKEN"))).await.unwrap_err();
    assert!(matches!(refused, Error::TemplateNameTaken(name) if name.as_str() == "TAKEN"));
    let contradicts: Change = Box::new(|settings| {
        let mut settings = settings.clone();
        settings.agent_required = true;
        Ok(settings)
    });
    assert!(matches!(update(contradicts).await, Err(Error::TemplateContradicts(_))));
    let failing: Change = Box::new(|_| Err(Error::InvalidCursor));
    assert!(matches!(update(failing).await, Err(Error::InvalidCursor)), "the error of the change");
    assert_eq!(greenroom.template(&caller, created.id).await.unwrap(), Some(created));
}

type Change = Box<dyn FnOnce(&TemplateSettings) -> Result<TemplateSettings, Error> + Send>;

#[tokio::test]
async fn running_session_keeps_its_version() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let id = greenroom.create_template(&caller, template("T")).await.unwrap().id;
    let before = greenroom.start(&caller, StartRequest::new(id)).await.unwrap().session;
    let with_agent = |settings: &TemplateSettings| {
        let mut settings = settings.clone();
        settings.agent_name = Some(AgentName::try_from("greeter".to_owned()).unwrap());
        settings.modality_profile = Some("audio".parse::<ModalityProfile>().unwrap().into());
        Ok::<_, Error>(settings)
    };
    greenroom.update_template(&caller, id, with_agent).await.unwrap();
    let after = greenroom.start(&caller, StartRequest::new(id)).await.unwrap().session;

    let kept = greenroom.session(&caller, before.id).await.unwrap().unwrap();
    assert_eq!((kept.modality_profile, kept.session_template_version), (None, 1));
    assert_eq!(
        (after.modality_profile, after.session_template_version),
        (Some("audio".parse::<ModalityProfile>().unwrap().into()), 2)
    );
    assert_eq!(
        rooms.get(after.room_name.valid().unwrap()).unwrap().dispatch.agent_name(),
        "greeter"
    );
}

#[tokio::test]
async fn archived_template_is_read_only() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let id = greenroom.create_template(&caller, template("T")).await.unwrap().id;
    greenroom.archive_template(&caller, id).await.unwrap();
    let archived = greenroom.template(&caller, id).await.unwrap().unwrap();
    assert!(archived.archived_at.is_some());
    greenroom.archive_template(&caller, id).await.unwrap();
    let again = greenroom.template(&caller, id).await.unwrap().unwrap();
    assert_eq!(again.archived_at, archived.archived_at, "the time of the first archiving stays");

    let refused = greenroom.start(&caller, StartRequest::new(id)).await;
    assert!(matches!(refused, Err(Error::TemplateNotFound(_))));
    let refused = greenroom.update_template(&caller, id, renamed("U")).await;
    assert!(matches!(refused, Err(Error::TemplateNotFound(_))));
    greenroom.create_template(&caller, template("t")).await.expect("the name is free");
    let list = async |include_archived| {
        let filter = TemplateFilter::default().archived(include_archived);
        greenroom.templates(&caller, filter, PageRequest::default()).await.unwrap().items.len()
    };
    assert_eq!((list(false).await, list(true).await), (1, 2));
}

#[tokio::test]
async fn templates_are_listed_newest_first() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let mut created = Vec::new();
    for number in 0..5 {
        let settings = template(&format!("T{number}"));
        created.insert(0, greenroom.create_template(&caller, settings).await.unwrap().id);
    }
    let (mut listed, mut page) = (Vec::new(), PageRequest::first(PageLimit::constant::<2>()));
    loop {
        let read = greenroom.templates(&caller, TemplateFilter::default(), page).await.unwrap();
        listed.extend(read.items.iter().map(|template| template.id));
        let Some(cursor) = read.next_cursor else { break };
        page = PageRequest::new(PageLimit::constant::<2>(), PageStart::After(cursor));
    }
    created.sort_unstable_by(|left, right| right.cmp(left));
    assert_eq!(listed, created);
}
