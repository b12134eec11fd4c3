//! `/api/v1/session-templates`, and the same templates in a file.

pub mod command;
mod difference;
pub mod file;
mod settings;

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use greenroom_core::domain::{Invalid, SessionTemplateId};
use greenroom_core::{Error, Greenroom, SessionTemplate, TemplateFilter, TemplateSettings};
use paperclip::actix::{Apiv2Schema, CreatedJson, NoContent, OperationModifier, api_v2_operation};
use paperclip::v2::models::DefaultSchemaRaw;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::auth::Backend;
use crate::auth::scope::{TemplatesRead, TemplatesWrite};
use crate::extract::{Body, FieldErrors, Params, PathId, from_value};
use crate::page::{PageOf, PageParams};
use crate::problem::Problem;
use settings::{NewTemplateBody, SettingsBody, patched};

/// A session template.
#[derive(Serialize, Apiv2Schema)]
#[openapi(rename = "SessionTemplate")]
pub struct TemplateBody {
    id: Uuid,
    version: i32,
    #[serde(flatten)]
    settings: SettingsBody,
    /// When its first version was made.
    created_at: DateTime<Utc>,
    /// When this version was made.
    updated_at: DateTime<Utc>,
    archived_at: Option<DateTime<Utc>>,
}

/// Which templates, and which part of the list.
#[derive(Deserialize, Apiv2Schema)]
pub struct ListParams {
    /// How many at the most.
    limit: Option<String>,
    /// Where to go on, as the Link header of the page before says.
    cursor: Option<String>,
    /// true shows archived ones, too.
    include_archived: Option<String>,
}

/// A change of a template, after RFC 7396: what is absent stays, null restores the default.
pub struct TemplatePatch(Map<String, Value>);

/// Create a template. The organization comes into being with its first.
#[api_v2_operation(
    tags(Templates),
    operation_id = "create_session_template",
    summary = "Create a template"
)]
pub async fn create(
    caller: Backend<TemplatesWrite>,
    body: Body<NewTemplateBody>,
    greenroom: Data<Greenroom>,
) -> Result<CreatedJson<TemplateBody>, Problem> {
    let settings = settings::read(body.0).map_err(Problem::invalid)?;
    let template = greenroom.create_template(caller.0, settings).await?;
    Ok(CreatedJson(template.into()))
}

/// A template by its id, archived or not.
#[api_v2_operation(
    tags(Templates),
    operation_id = "get_session_template",
    summary = "Get a template"
)]
pub async fn get(
    caller: Backend<TemplatesRead>,
    id: PathId<SessionTemplateId>,
    greenroom: Data<Greenroom>,
) -> Result<Json<TemplateBody>, Problem> {
    let template = greenroom.template(caller.0, id.0).await?;
    let template = template.ok_or(Error::TemplateNotFound(id.0))?;
    Ok(Json(template.into()))
}

/// The organization's templates, newest first.
#[api_v2_operation(
    tags(Templates),
    operation_id = "list_session_templates",
    summary = "List templates"
)]
pub async fn list(
    caller: Backend<TemplatesRead>,
    params: Params<ListParams>,
    greenroom: Data<Greenroom>,
) -> Result<PageOf<TemplateBody>, Problem> {
    let mut errors = FieldErrors::default();
    let ListParams { limit, cursor, include_archived } = params.0;
    let page = PageParams { limit, cursor, ..PageParams::default() }.page(&mut errors);
    let include_archived = errors.take("include_archived", flag(include_archived.as_deref()));
    let filter = include_archived.map(|include_archived| TemplateFilter { include_archived });
    let (filter, page) = errors.finish(filter.zip(page))?;
    Ok(PageOf::of(greenroom.templates(caller.0, filter, page).await?))
}

/// Change a template: its next version. Sessions that run keep theirs. What is absent stays, null
/// restores the default.
#[api_v2_operation(
    tags(Templates),
    operation_id = "update_session_template",
    summary = "Change a template"
)]
pub async fn update(
    caller: Backend<TemplatesWrite>,
    id: PathId<SessionTemplateId>,
    patch: Body<TemplatePatch>,
    greenroom: Data<Greenroom>,
) -> Result<Json<TemplateBody>, Problem> {
    let TemplatePatch(patch) = patch.0;
    // By itself it must be a template's part, too: merged away, a misspelt null would be dropped.
    from_value::<NewTemplateBody>(Value::Object(patch.clone()))?;
    let change = |current: &TemplateSettings| {
        settings::read(patched(current, &patch)?).map_err(Problem::invalid)
    };
    Ok(Json(greenroom.update_template(caller.0, id.0, change).await?.into()))
}

/// Archive a template: it can still be read, and starts nothing any more.
#[api_v2_operation(
    tags(Templates),
    operation_id = "archive_session_template",
    summary = "Archive a template"
)]
pub async fn archive(
    caller: Backend<TemplatesWrite>,
    id: PathId<SessionTemplateId>,
    greenroom: Data<Greenroom>,
) -> Result<NoContent, Problem> {
    greenroom.archive_template(caller.0, id.0).await?;
    Ok(NoContent)
}

fn flag(text: Option<&str>) -> Result<bool, Invalid> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Invalid::new("must be true or false")),
    }
}

impl From<SessionTemplate> for TemplateBody {
    fn from(template: SessionTemplate) -> Self {
        Self {
            id: template.id.0,
            version: template.version,
            settings: template.settings.into(),
            created_at: template.created_at,
            updated_at: template.updated_at,
            archived_at: template.archived_at,
        }
    }
}

impl<'de> Deserialize<'de> for TemplatePatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self)
    }
}

impl paperclip::v2::schema::Apiv2Schema for TemplatePatch {
    fn name() -> Option<String> {
        <NewTemplateBody as paperclip::v2::schema::Apiv2Schema>::name()
    }

    fn raw_schema() -> DefaultSchemaRaw {
        <NewTemplateBody as paperclip::v2::schema::Apiv2Schema>::raw_schema()
    }
}

impl OperationModifier for TemplatePatch {}
