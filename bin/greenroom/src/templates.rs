//! Session templates over HTTP (`/api/v1/session-templates`) and in TOML files.

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

use self::settings::{NewTemplateBody, SettingsBody, patched};
use crate::auth::Allowed;
use crate::auth::scope::{TemplatesRead, TemplatesWrite};
use crate::extract::{Body, FieldErrors, Params, PathId, from_value};
use crate::page::{PageOf, PageParams};
use crate::problem::Problem;

/// A session template. `NewSessionTemplate` describes the settings.
#[derive(Serialize, Apiv2Schema)]
#[openapi(rename = "SessionTemplate")]
pub struct TemplateBody {
    /// The template's id, the same for all versions.
    id: Uuid,
    /// Begins at 1 and increases with every change of the settings.
    version: i32,
    #[serde(flatten)]
    settings: SettingsBody,
    /// When the template was created.
    created_at: DateTime<Utc>,
    /// When this version was created.
    updated_at: DateTime<Utc>,
    /// When the template was archived. Null if it is not archived.
    archived_at: Option<DateTime<Utc>>,
}

/// The filter of a list, and which page of it to return.
#[derive(Deserialize, Apiv2Schema)]
pub struct ListParams {
    /// Maximum number of templates: 1 to 200, default 50.
    limit: Option<String>,
    /// Where to continue. Use it only as part of the `Link` header of the previous page.
    cursor: Option<String>,
    /// Whether the list includes archived templates.
    include_archived: Option<String>,
}

/// A JSON merge patch (RFC 7396) of a template: absent fields stay, null restores the default.
pub struct TemplatePatch(Map<String, Value>);

/// Create a template
///
/// The first template of an organization also creates the organization.
#[api_v2_operation(tags(Templates), operation_id = "create_session_template")]
pub async fn create(
    caller: Allowed<TemplatesWrite>,
    body: Body<NewTemplateBody>,
    greenroom: Data<Greenroom>,
) -> Result<CreatedJson<TemplateBody>, Problem> {
    let settings = settings::parse_settings(body.0).map_err(Problem::invalid)?;
    let template = greenroom.create_template(&caller.0, settings).await?;
    Ok(CreatedJson(template.into()))
}

/// Get a template
///
/// Returns the current version of a template, even if it is archived.
#[api_v2_operation(tags(Templates), operation_id = "get_session_template")]
pub async fn get(
    caller: Allowed<TemplatesRead>,
    id: PathId<SessionTemplateId>,
    greenroom: Data<Greenroom>,
) -> Result<Json<TemplateBody>, Problem> {
    let template = greenroom.template(&caller.0, id.0).await?;
    let template = template.ok_or(Error::TemplateNotFound(id.0))?;
    Ok(Json(template.into()))
}

/// List templates
///
/// Lists the templates of the organization, newest first. If there are more templates, the response
/// has a `Link` header with the URL of the next page.
#[api_v2_operation(tags(Templates), operation_id = "list_session_templates")]
pub async fn list(
    caller: Allowed<TemplatesRead>,
    params: Params<ListParams>,
    greenroom: Data<Greenroom>,
) -> Result<PageOf<TemplateBody>, Problem> {
    let mut errors = FieldErrors::default();
    let ListParams { limit, cursor, include_archived } = params.0;
    let page = PageParams { limit, cursor, ..PageParams::default() }.page(&mut errors);
    let include_archived = errors.take("include_archived", flag(include_archived.as_deref()));
    let filter = include_archived.map(|archived| TemplateFilter::default().archived(archived));
    let (filter, page) = errors.finish(filter.zip(page))?;
    Ok(PageOf::of(greenroom.templates(&caller.0, filter, page).await?))
}

/// Change a template
///
/// Applies a JSON merge patch (RFC 7396): absent fields stay, null restores the default. The result
/// is a new version of the template; running sessions keep the version that they were started from.
#[api_v2_operation(tags(Templates), operation_id = "update_session_template")]
pub async fn update(
    caller: Allowed<TemplatesWrite>,
    id: PathId<SessionTemplateId>,
    patch: Body<TemplatePatch>,
    greenroom: Data<Greenroom>,
) -> Result<Json<TemplateBody>, Problem> {
    let TemplatePatch(patch) = patch.0;
    // Check the fields before the merge: it removes null members, so a misspelled field with the
    // value null would go unnoticed.
    from_value::<NewTemplateBody>(Value::Object(patch.clone()))?;
    let change = |current: &TemplateSettings| {
        settings::parse_settings(patched(current, &patch)?).map_err(Problem::invalid)
    };
    Ok(Json(greenroom.update_template(&caller.0, id.0, change).await?.into()))
}

/// Archive a template
///
/// An archived template can still be read. It can be neither started nor changed, and its name is
/// free for another template.
#[api_v2_operation(tags(Templates), operation_id = "archive_session_template")]
pub async fn archive(
    caller: Allowed<TemplatesWrite>,
    id: PathId<SessionTemplateId>,
    greenroom: Data<Greenroom>,
) -> Result<NoContent, Problem> {
    greenroom.archive_template(&caller.0, id.0).await?;
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
