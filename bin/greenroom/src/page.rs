//! Pagination of lists: the parameters of a page, and the link to the next page.

use std::marker::PhantomData;

use actix_web::http::header;
use actix_web::http::header::ContentType;
use actix_web::{HttpRequest, HttpResponse, Responder, web};
use greenroom_core::domain::{Invalid, PageOffset};
use greenroom_core::{Cursor, Page, PageRequest, PageStart};
use paperclip::actix::OperationModifier;
use paperclip::v2::models::DefaultOperationRaw;
use paperclip::v2::schema::Apiv2Schema;
use serde::{Serialize, Serializer};

use crate::extract::{FieldErrors, parse_or};

/// Size of an item for which memory is reserved. A session without metadata is smaller.
const EXPECTED_ITEM_BYTES: usize = 512;

/// The query parameters of a page, not parsed yet. Without parameters, the page is the first 50
/// items.
#[derive(Default)]
pub struct PageParams {
    pub limit: Option<String>,
    pub offset: Option<String>,
    pub cursor: Option<String>,
}

impl PageParams {
    /// Parses the parameters. `None` means that a parameter is invalid and was recorded in
    /// `errors`.
    pub fn page(self, errors: &mut FieldErrors) -> Option<PageRequest> {
        let limit = parse_or(self.limit.as_deref(), PageRequest::DEFAULT_LIMIT);
        let limit = errors.take("limit", limit);
        let first = PageOffset::constant::<0>();
        let offset = errors.take("offset", parse_or(self.offset.as_deref(), first));
        let start = match (self.cursor, &self.offset) {
            (Some(_), Some(_)) => Err(Invalid::new("must not be combined with cursor")),
            (Some(cursor), None) => Ok(PageStart::After(Cursor(cursor))),
            (None, _) => Ok(PageStart::Offset(offset.unwrap_or(first))),
        };
        let start = errors.take("offset", start);
        offset.and(Some(PageRequest::new(limit?, start?)))
    }
}

/// The response for a page: an array, and a `Link` header (RFC 8288) to the next page if there is
/// one.
pub struct PageOf<T> {
    /// The JSON of the items.
    body: serde_json::Result<Vec<u8>>,
    next_cursor: Option<Cursor>,
    item: PhantomData<T>,
}

impl<T: Serialize> PageOf<T> {
    pub fn of<Item: Into<T>>(listing: Page<Item>) -> Self {
        let mut body = Vec::with_capacity(listing.items.len() * EXPECTED_ITEM_BYTES + 2);
        let items = listing.items.into_iter().map(Into::into);
        let written = serde_json::Serializer::new(&mut body).collect_seq(items);
        Self { body: written.map(|()| body), next_cursor: listing.next_cursor, item: PhantomData }
    }
}

impl<T> Responder for PageOf<T> {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        if let Some(Cursor(cursor)) = &self.next_cursor {
            response.insert_header((header::LINK, next_link(request, cursor)));
        }
        match self.body {
            Ok(body) => response.content_type(ContentType::json()).body(body),
            Err(error) => HttpResponse::from_error(error),
        }
    }
}

/// Returns the link to the next page, with the same filters. The cursor replaces an offset, because
/// it contains the end of this page.
fn next_link(request: &HttpRequest, cursor: &str) -> String {
    let parameters: Vec<(String, String)> =
        serde_urlencoded::from_str(request.query_string()).unwrap_or_default();
    let kept = parameters.into_iter().filter(|(name, _)| name != "cursor" && name != "offset");
    let added = [("cursor".to_owned(), cursor.to_owned())];
    let query = serde_urlencoded::to_string(kept.chain(added).collect::<Vec<_>>());
    format!("<{}?{}>; rel=\"next\"", request.path(), query.unwrap_or_default())
}

impl<T: Apiv2Schema> Apiv2Schema for PageOf<T> {}

impl<T: Apiv2Schema + OperationModifier> OperationModifier for PageOf<T> {
    fn update_response(operation: &mut DefaultOperationRaw) {
        web::Json::<Vec<T>>::update_response(operation);
    }

    fn update_definitions(
        map: &mut std::collections::BTreeMap<String, paperclip::v2::models::DefaultSchemaRaw>,
    ) {
        web::Json::<Vec<T>>::update_definitions(map);
    }
}

#[cfg(test)]
mod tests {
    use greenroom_core::domain::PageLimit;

    use super::*;

    fn page(
        limit: Option<&str>,
        offset: Option<&str>,
        cursor: Option<&str>,
    ) -> Option<PageRequest> {
        let [limit, offset, cursor] = [limit, offset, cursor].map(|text| text.map(str::to_owned));
        let params = PageParams { limit, offset, cursor };
        params.page(&mut FieldErrors::default())
    }

    #[test]
    fn default_page_is_the_first_fifty_items() {
        assert_eq!(page(None, None, None), Some(PageRequest::default()));
        let cursor = PageStart::After(Cursor("c".to_owned()));
        assert_eq!(
            page(Some("200"), None, Some("c")),
            Some(PageRequest::new(PageLimit::constant::<200>(), cursor))
        );
        let offset = PageStart::Offset(PageOffset::constant::<10_000>());
        assert_eq!(
            page(Some("1"), Some("10000"), None),
            Some(PageRequest::new(PageLimit::constant::<1>(), offset))
        );
    }

    #[test]
    fn invalid_parameters_give_no_page() {
        for (limit, offset, cursor) in [
            (Some("0"), None, None),
            (Some("201"), None, None),
            (None, Some("10001"), None),
            (None, Some("-1"), None),
            (None, Some("0"), Some("c")),
            (Some("99999999999999999999999"), None, None),
        ] {
            assert_eq!(page(limit, offset, cursor), None, "{limit:?} {offset:?} {cursor:?}");
        }
    }
}
