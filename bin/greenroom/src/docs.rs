//! `/docs`: Swagger UI for the OpenAPI document. It loads nothing from other origins.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::http::header::HeaderValue;
use actix_web::web::{Bytes, Path};
use actix_web::{HttpResponse, HttpResponseBuilder};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

use crate::problem::Problem;

/// Permits scripts and calls of this origin only. Swagger UI needs inline styles, and `data:` for
/// its icons.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The page. Its scripts are files, because the policy forbids inline scripts.
const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Greenroom API</title>
  <link rel="stylesheet" href="/docs/swagger-ui.css">
  <link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/initializer.js"></script>
</body>
</html>
"#;

const INITIALIZER: &str = r##"window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"##;

/// The files of Swagger UI that the page loads, with their media types.
const FILES: [(&str, &str); 3] = [
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("favicon-32x32.png", "image/png"),
];

/// The unpacked files. The first request unpacks them, so that a process without such requests
/// needs no memory for them.
static UNPACKED: LazyLock<HashMap<&'static str, Bytes>> =
    LazyLock::new(|| FILES.iter().filter_map(|(name, _)| Some((*name, unpack(name)?))).collect());

fn unpack(name: &str) -> Option<Bytes> {
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).ok()?;
    let wanted = format!("/dist/{name}");
    let path = archive.file_names().flatten().find(|path| path.ends_with(&wanted))?.into_owned();
    let mut bytes = Vec::new();
    archive.by_name(&path).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes.into())
}

/// `GET /docs`
pub async fn page() -> HttpResponse {
    response("text/html; charset=utf-8").body(PAGE)
}

/// `GET /docs/{file}`
pub async fn file(name: Path<String>) -> Result<HttpResponse, Problem> {
    if *name == "initializer.js" {
        return Ok(response("text/javascript; charset=utf-8").body(INITIALIZER));
    }
    let known = FILES.iter().find(|(known, _)| *known == name.as_str());
    let (file, media_type) = known.ok_or_else(Problem::route_not_found)?;
    let bytes = UNPACKED.get(file).ok_or_else(Problem::route_not_found)?;
    let mut response = response(media_type);
    response.insert_header((header::CACHE_CONTROL, "public, max-age=3600"));
    Ok(response.body(bytes.clone()))
}

fn response(media_type: &str) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .content_type(media_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_contains_every_file_of_the_page() {
        for (name, _) in FILES {
            assert!(UNPACKED[name].len() > 500, "{name}");
            assert!(PAGE.contains(&format!("/docs/{name}")), "the page does not load {name}");
        }
    }
}
