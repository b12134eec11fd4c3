//! Authorization: a table of every use case and of what each kind of caller reaches with it.

use std::path::Path;
use std::sync::Arc;
use std::{fs, iter};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::{
    JsonObject, SessionId, SessionTemplateId, UserId, WaitCondition, WaitSeconds,
};
use greenroom_core::{
    Caller, Error, Greenroom, MemoryRooms, PageRequest, SessionFilter, StartRequest,
    TemplateChange, TemplateFilter, TemplateSet, TemplateSettings,
};
use greenroom_testkit::pg::Database;
use serde_json::json;

use self::Outcome::{NotReached, Reached, Refused};
use crate::{organization, service, template};

/// What a caller gets from a use case on the data of an organization.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The use case reads or changes this organization's data.
    Reached,
    /// The use case succeeds without this organization's data: it returns `None` or an empty list,
    /// or works in the caller's own organization.
    NotReached,
    /// The use case fails with the variant of [`Error`] of this name.
    Refused(&'static str),
}

const BACKEND_ONLY: Outcome = Refused("BackendOnly");

/// The name of each use case with a caller, and its outcome for: a backend of the organization, the
/// end user of the session, another end user of the organization, a backend of another organization.
const USE_CASES: [(&str, [Outcome; 4]); 16] = [
    ("start", [Reached, Reached, Refused("UserMismatch"), Refused("TemplateForbidden")]),
    ("session", [Reached, Reached, NotReached, NotReached]),
    ("wait_for_session", [Reached, Reached, NotReached, NotReached]),
    ("sessions", [Reached, Reached, NotReached, NotReached]),
    ("timeline", [Reached, Reached, NotReached, NotReached]),
    ("refresh_token", [Reached, Reached, NotReached, NotReached]),
    ("end", [Reached, Reached, NotReached, NotReached]),
    ("limits", [Reached, BACKEND_ONLY, BACKEND_ONLY, NotReached]),
    ("create_template", [Reached, BACKEND_ONLY, BACKEND_ONLY, NotReached]),
    ("template", [Reached, BACKEND_ONLY, BACKEND_ONLY, NotReached]),
    ("templates", [Reached, BACKEND_ONLY, BACKEND_ONLY, NotReached]),
    ("update_template", [Reached, BACKEND_ONLY, BACKEND_ONLY, Refused("TemplateNotFound")]),
    ("archive_template", [Reached, BACKEND_ONLY, BACKEND_ONLY, Refused("TemplateNotFound")]),
    ("apply_templates", [Reached, BACKEND_ONLY, BACKEND_ONLY, NotReached]),
    ("compare_templates", [Reached, BACKEND_ONLY, BACKEND_ONLY, NotReached]),
    ("current_templates", [Reached, BACKEND_ONLY, BACKEND_ONLY, NotReached]),
];

/// The methods without a caller: LiveKit and probes call them, or the program and its operator.
const WITHOUT_CALLER: [&str; 9] = [
    "migrate",
    "plan_revert",
    "readiness",
    "receive_webhook",
    "revert_migrations",
    "run_keeper",
    "set_session_limit",
    "settle_abandoned_work",
    "translated_messages",
];

/// An organization with one template and one session.
struct Data {
    owner: Caller,
    user: UserId,
    template: SessionTemplateId,
    session: SessionId,
}

impl Data {
    async fn create(greenroom: &Greenroom) -> Self {
        let owner = Caller::backend(organization());
        let user = user("ann");
        let template = greenroom.create_template(&owner, template("T")).await.unwrap().id;
        let mut request = StartRequest::new(template);
        request.user_id = Some(user.clone());
        let session = greenroom.start(&owner, request).await.unwrap().session.id;
        Self { owner, user, template, session }
    }

    /// Returns the callers in the order of the table's columns.
    fn callers(&self) -> [Caller; 4] {
        let own = self.owner.organization_id;
        [
            self.owner.clone(),
            Caller::end_user(own, self.user.clone()),
            Caller::end_user(own, user("ben")),
            Caller::backend(organization()),
        ]
    }

    /// Calls a use case, and returns whether it reached this organization's data.
    async fn call(
        &self,
        greenroom: &Greenroom,
        use_case: &str,
        caller: &Caller,
    ) -> Result<bool, Error> {
        let own = self.owner.organization_id;
        let page = PageRequest::default();
        let set = || TemplateSet::new(vec![template("T")], false);
        let is_kept = |change: &TemplateChange| matches!(change, TemplateChange::Keep(_));
        Ok(match use_case {
            "start" => {
                let mut request = StartRequest::new(self.template);
                request.user_id = Some(self.user.clone());
                greenroom.start(caller, request).await?.session.organization_id == own
            }
            "session" => greenroom.session(caller, self.session).await?.is_some(),
            "wait_for_session" => {
                let (condition, limit) = (WaitCondition::AgentReady, WaitSeconds::constant::<1>());
                let waited = greenroom.wait_for_session(caller, self.session, condition, limit);
                waited.await?.is_some()
            }
            "sessions" => {
                let sessions = greenroom.sessions(caller, SessionFilter::default(), page);
                !sessions.await?.items.is_empty()
            }
            "timeline" => greenroom.timeline(caller, self.session).await?.is_some(),
            "refresh_token" => greenroom.refresh_token(caller, self.session).await?.is_some(),
            "end" => greenroom.end(caller, self.session).await?.is_some(),
            "limits" => greenroom.limits(caller).await?.active_sessions > 0,
            "create_template" => {
                greenroom.create_template(caller, template("New")).await?.organization_id == own
            }
            "template" => greenroom.template(caller, self.template).await?.is_some(),
            "templates" => {
                let templates = greenroom.templates(caller, TemplateFilter::default(), page);
                !templates.await?.items.is_empty()
            }
            "update_template" => {
                let rename = |_: &TemplateSettings| Ok::<_, Error>(template("Renamed"));
                let updated = greenroom.update_template(caller, self.template, rename).await?;
                updated.organization_id == own
            }
            "archive_template" => {
                greenroom.archive_template(caller, self.template).await?;
                true
            }
            "apply_templates" => {
                greenroom.admin().apply_templates(caller, set()).await?.iter().any(is_kept)
            }
            "compare_templates" => {
                greenroom.admin().compare_templates(caller, set()).await?.iter().any(is_kept)
            }
            "current_templates" => !greenroom.admin().current_templates(caller).await?.is_empty(),
            other => panic!("the use case {other} has no call"),
        })
    }
}

fn user(name: &str) -> UserId {
    UserId::try_from(name.to_owned()).unwrap()
}

/// The name of the error's variant.
fn variant(error: &Error) -> String {
    format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[tokio::test]
async fn every_use_case_checks_its_caller() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    for (use_case, outcomes) in &USE_CASES {
        for (column, expected) in outcomes.iter().enumerate() {
            // New data for each call, because some calls change them.
            let data = Data::create(&greenroom).await;
            let caller = &data.callers()[column];
            let found = data.call(&greenroom, use_case, caller).await;
            let is_expected = match (&found, expected) {
                (Ok(is_reached), Reached | NotReached) => *is_reached == (*expected == Reached),
                (Err(error), Refused(name)) => variant(error) == *name,
                _ => false,
            };
            assert!(is_expected, "{use_case}, {caller:?}: {found:?} instead of {expected:?}");
        }
    }
}

/// The use cases that return a session or its timeline. `end` is last, because it changes the session.
const READING_USE_CASES: [&str; 7] =
    ["start", "session", "wait_for_session", "sessions", "timeline", "refresh_token", "end"];

/// Calls a use case on a session with metadata, and returns whether the response contains the
/// metadata, or the details of an event.
async fn returns_metadata(
    greenroom: &Greenroom,
    use_case: &str,
    caller: &Caller,
    request: &StartRequest,
    session: SessionId,
) -> bool {
    let session = match use_case {
        "start" => greenroom.start(caller, request.clone()).await.unwrap().session,
        "session" => greenroom.session(caller, session).await.unwrap().unwrap(),
        "wait_for_session" => {
            let (condition, limit) = (WaitCondition::AgentReady, WaitSeconds::constant::<1>());
            let waited = greenroom.wait_for_session(caller, session, condition, limit);
            waited.await.unwrap().unwrap()
        }
        "sessions" => {
            let filter = SessionFilter::default();
            let sessions = greenroom.sessions(caller, filter, PageRequest::default());
            sessions.await.unwrap().items.remove(0)
        }
        "timeline" => {
            let timeline = greenroom.timeline(caller, session).await.unwrap().unwrap();
            return timeline.iter().any(|entry| entry.detail.is_some());
        }
        "refresh_token" => greenroom.refresh_token(caller, session).await.unwrap().unwrap().session,
        "end" => greenroom.end(caller, session).await.unwrap().unwrap(),
        other => panic!("the use case {other} has no call"),
    };
    session.metadata.is_some()
}

#[tokio::test]
async fn only_backend_reads_metadata() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let data = Data::create(&greenroom).await;
    let [backend, end_user, ..] = data.callers();
    let metadata = JsonObject::try_from(json!({"a": 1}).as_object().unwrap().clone()).unwrap();
    let request = StartRequest::new(data.template);
    let mut with_metadata = request.clone();
    with_metadata.metadata = Some(metadata);
    // The end user's request without a key resumes this session.
    let session = greenroom.start(&end_user, request.clone()).await.unwrap().session.id;
    for use_case in READING_USE_CASES {
        for (caller, request) in [(&end_user, &request), (&backend, &with_metadata)] {
            // An end user's start sets no metadata.
            db.batch_execute(r#"update sessions set metadata = '{"a": 1}'"#).await.unwrap();
            let found = returns_metadata(&greenroom, use_case, caller, request, session).await;
            assert_eq!(found, caller.may_read_metadata(), "{use_case}, {caller:?}");
        }
    }
}

#[test]
fn every_public_method_has_a_row() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut found: Vec<_> = sources.iter().flat_map(|source| methods(source)).collect();
    found.sort_unstable();
    let with_caller = USE_CASES.iter().map(|(name, _)| (*name, true));
    let without_caller = WITHOUT_CALLER.iter().map(|name| (*name, false));
    let mut expected: Vec<_> = with_caller.chain(without_caller).collect();
    expected.sort_unstable();
    assert_eq!(found, expected, "the name of each public async function, and if it has a caller");
}

/// The contents of all source files in a folder and its subfolders.
fn sources(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() { sources(&path) } else { vec![fs::read_to_string(path).unwrap()] }
        })
        .collect()
}

/// The name of each public async function of a source, and whether it takes a caller.
fn methods(source: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = source;
    iter::from_fn(move || {
        let (_, after) = rest.split_once("pub async fn ")?;
        let (signature, body) = after.split_once('{')?;
        rest = body;
        let name = signature.split(['(', '<']).next()?;
        Some((name, signature.contains("caller: &Caller")))
    })
}
