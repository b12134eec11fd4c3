//! Pages of a list, and the cursors that lead from one page to the next.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use greenroom_domain::{PageLimit, PageOffset};
use greenroom_store::{ListedRow, PageStart as RowStart};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Error;

/// Which page of a list to read. The default is the first 50 items.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageRequest {
    /// Maximum number of items.
    pub limit: PageLimit,
    /// Where the page starts.
    pub start: PageStart,
}

/// Where a page of a list starts. Lists are ordered newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageStart {
    /// After this number of items, which PostgreSQL reads and discards.
    Offset(PageOffset),
    /// After the page that returned this cursor. As fast as the first page, however far into the
    /// list.
    After(Cursor),
}

impl PageRequest {
    /// Maximum number of items of the default page.
    pub const DEFAULT_LIMIT: PageLimit = PageLimit::constant::<50>();

    /// Requests the first `limit` items.
    #[must_use]
    pub fn first(limit: PageLimit) -> Self {
        Self::new(limit, PageStart::Offset(PageOffset::constant::<0>()))
    }

    /// Requests up to `limit` items from `start`.
    #[must_use]
    pub fn new(limit: PageLimit, start: PageStart) -> Self {
        Self { limit, start }
    }

    /// Returns the number of items to query: one more than the page has, which shows whether there
    /// is a next page.
    pub(crate) fn query_limit(&self) -> i64 {
        i64::from(self.limit.get()) + 1
    }
}

impl Default for PageRequest {
    fn default() -> Self {
        Self::first(Self::DEFAULT_LIMIT)
    }
}

/// An opaque cursor, taken from [`Page::next_cursor`] of the previous page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items of the page, newest first. Items that cannot be decoded are left out.
    pub items: Vec<T>,
    /// Where the next page starts. `None` means that this is the last page. The cursor is only
    /// valid for the same caller and the same filter.
    pub next_cursor: Option<Cursor>,
}

impl<T> Page<T> {
    /// Creates a page from up to `limit + 1` items. The extra item only shows that there is a next
    /// page.
    pub(crate) fn new(
        mut items: Vec<T>,
        limit: PageLimit,
        scope: &CursorScope,
        id: impl Fn(&T) -> Uuid,
    ) -> Self {
        let limit = usize::from(limit.get());
        let has_next = items.len() > limit;
        items.truncate(limit);
        let next_cursor =
            items.last().filter(|_| has_next).map(|last| scope.cursor_after(id(last)));
        Self { items, next_cursor }
    }

    pub(crate) fn map<U>(self, map: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(map).collect(), next_cursor: self.next_cursor }
    }
}

impl<T> Page<ListedRow<T>> {
    /// Skips and logs the rows that cannot be decoded. The page then has fewer items than its limit,
    /// and the cursor still follows its last row.
    pub(crate) fn without_undecodable(self) -> Page<T> {
        let decoded = |ListedRow { id, row, .. }: ListedRow<T>| {
            row.inspect_err(|error| {
                tracing::error!(%id, error, "skipped row of a list that cannot be decoded");
            })
            .ok()
        };
        let items = self.items.into_iter().filter_map(decoded).collect();
        Page { items, next_cursor: self.next_cursor }
    }
}

/// The list that a cursor belongs to: a hash of its caller and its filter.
pub(crate) struct CursorScope([u8; 16]);

impl CursorScope {
    /// Creates the scope of a list from its kind and its filter values. The text of a value must
    /// not change between versions, because replicas of different versions read each other's
    /// cursors.
    pub(crate) fn new(kind: &str, filter: &[Option<String>]) -> Self {
        let mut hash = Sha256::new();
        for part in [Some(kind)].into_iter().chain(filter.iter().map(Option::as_deref)) {
            // The length makes the input of the hash unambiguous. An absent value has the length
            // `u64::MAX` and so differs from an empty value.
            hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
            hash.update(part.unwrap_or_default());
        }
        let mut scope = [0; 16];
        scope.copy_from_slice(&hash.finalize()[..16]);
        Self(scope)
    }

    /// Resolves the start of a requested page in this list.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidCursor`] if the cursor is malformed or belongs to another list.
    pub(crate) fn resolve<Id>(
        &self,
        start: PageStart,
        id: impl FnOnce(Uuid) -> Id,
    ) -> Result<RowStart<Id>, Error> {
        Ok(match start {
            PageStart::Offset(items) => RowStart::Offset(items.get().into()),
            PageStart::After(cursor) => RowStart::After(id(self.read(&cursor)?)),
        })
    }

    /// Creates the cursor of the page after the item `id`.
    ///
    /// A cursor is opaque but unsigned, so every replica can read it. A forged cursor only moves
    /// the caller within a list that they may read anyway, because the request determines the list.
    fn cursor_after(&self, id: Uuid) -> Cursor {
        Cursor(BASE64_URL_SAFE_NO_PAD.encode([*id.as_bytes(), self.0].concat()))
    }

    /// Returns the id of the item before the page.
    fn read(&self, Cursor(cursor): &Cursor) -> Result<Uuid, Error> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).unwrap_or_default();
        match bytes.split_first_chunk::<16>() {
            Some((id, scope)) if scope == self.0 => Ok(Uuid::from_bytes(*id)),
            _ => Err(Error::InvalidCursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_is_accepted_only_by_its_own_list() {
        let (scope, id) = (CursorScope::new("sessions", &[Some("1".into())]), Uuid::from_u128(7));
        let cursor = scope.cursor_after(id);
        assert_eq!(scope.read(&cursor).unwrap(), id);
        assert!(matches!(
            CursorScope::new("sessions", &[Some("2".into())]).read(&cursor),
            Err(Error::InvalidCursor)
        ));
    }

    #[test]
    fn different_lists_have_different_scopes() {
        let text = |text: &str| Some(text.to_owned());
        let scopes = [
            CursorScope::new("a", &[]),
            CursorScope::new("a", &[None]),
            CursorScope::new("a", &[text("")]),
            CursorScope::new("a", &[text("b"), text("c")]),
            CursorScope::new("a", &[text("bc"), text("")]),
            CursorScope::new("a", &[text("b"), None, text("c")]),
            CursorScope::new("ab", &[text("c")]),
        ];
        for (index, scope) in scopes.iter().enumerate() {
            assert!(scopes[index + 1..].iter().all(|other| other.0 != scope.0), "{index}");
        }
    }

    #[test]
    fn malformed_cursor_is_refused() {
        let scope = CursorScope::new("", &[]);
        let Cursor(valid) = scope.cursor_after(Uuid::nil());
        for text in ["", "x", "====", &valid[1..], &format!("{valid}AAAA"), &"A".repeat(43), "%00"]
        {
            assert!(
                matches!(scope.read(&Cursor(text.to_owned())), Err(Error::InvalidCursor)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn next_cursor_is_present_only_before_another_page() {
        let scope = CursorScope::new("", &[]);
        let page = |items: u128| {
            let (items, limit) = ((0..items).collect::<Vec<_>>(), PageLimit::constant::<2>());
            Page::new(items, limit, &scope, |item| Uuid::from_u128(*item))
        };
        assert_eq!((page(2).items, page(2).next_cursor), (vec![0, 1], None));
        assert_eq!(page(3).items, [0, 1]);
        assert_eq!(scope.read(&page(3).next_cursor.unwrap()).unwrap(), Uuid::from_u128(1));
        assert_eq!(page(0).next_cursor, None);
    }
}
