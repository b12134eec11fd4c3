//! Pages of a list, and the cursor from one to the next.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use greenroom_store::PageStart;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Error;

/// Which page of a list to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Maximum number of items, 1 to 200.
    pub limit: i64,
    /// Where the page starts.
    pub start: PageStart<Cursor>,
}

impl Default for PageRequest {
    /// The first 50 items.
    fn default() -> Self {
        Self { limit: 50, start: PageStart::Offset(0) }
    }
}

/// The cursor of an earlier page: its [`Page::next_cursor`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it, newest first.
    pub items: Vec<T>,
    /// Where the next page begins, when there is one. It is good for the same caller and the same
    /// filter only.
    pub next_cursor: Option<Cursor>,
}

impl<T> Page<T> {
    /// The page of what was read, which is one item more than was wanted when there is a next page.
    pub(crate) fn of(
        mut items: Vec<T>,
        limit: i64,
        scope: &CursorScope,
        id: impl Fn(&T) -> Uuid,
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or_default();
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| scope.cursor_after(id(last)));
        Self { items, next_cursor }
    }
}

/// What a cursor is bound to: whose list it is, and of what.
pub(crate) struct CursorScope([u8; 16]);

impl CursorScope {
    /// The list of this kind that these values choose, each in a form that never changes: replicas
    /// of two versions read one another's cursors.
    pub(crate) fn of(kind: &str, chosen_by: &[Option<String>]) -> Self {
        let mut hash = Sha256::new();
        for part in [Some(kind)].into_iter().chain(chosen_by.iter().map(Option::as_deref)) {
            // The length of each keeps any two lists apart, and absent is not empty.
            hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
            hash.update(part.unwrap_or_default());
        }
        let mut bound = [0; 16];
        bound.copy_from_slice(&hash.finalize()[..16]);
        Self(bound)
    }

    /// Resolves the start of a requested page in this list.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`] if the cursor belongs to another list.
    pub(crate) fn resolve<Id>(
        &self,
        start: PageStart<Cursor>,
        id: impl FnOnce(Uuid) -> Id,
    ) -> Result<PageStart<Id>, Error> {
        Ok(match start {
            PageStart::Offset(items) => PageStart::Offset(items),
            PageStart::After(cursor) => PageStart::After(id(self.read(&cursor)?)),
        })
    }

    /// Opaque, and not secret: who makes one of their own gets another place in their own list, for
    /// the list itself is always that of the request. So it is signed with nothing, and every
    /// replica reads it.
    fn cursor_after(&self, id: Uuid) -> Cursor {
        Cursor(BASE64_URL_SAFE_NO_PAD.encode([*id.as_bytes(), self.0].concat()))
    }

    /// The item the page comes after.
    fn read(&self, Cursor(cursor): &Cursor) -> Result<Uuid, Error> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).unwrap_or_default();
        match bytes.split_first_chunk::<16>() {
            Some((id, bound)) if bound == self.0 => Ok(Uuid::from_bytes(*id)),
            _ => Err(Error::InvalidCursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_on_in_its_own_list_alone() {
        let (scope, id) = (CursorScope::of("sessions", &[Some("1".into())]), Uuid::from_u128(7));
        let cursor = scope.cursor_after(id);
        assert_eq!(scope.read(&cursor).unwrap(), id);
        assert!(matches!(
            CursorScope::of("sessions", &[Some("2".into())]).read(&cursor),
            Err(Error::InvalidCursor)
        ));
    }

    #[test]
    fn any_two_lists_are_apart() {
        let text = |text: &str| Some(text.to_owned());
        let scopes = [
            CursorScope::of("a", &[]),
            CursorScope::of("a", &[None]),
            CursorScope::of("a", &[text("")]),
            CursorScope::of("a", &[text("b"), text("c")]),
            CursorScope::of("a", &[text("bc"), text("")]),
            CursorScope::of("a", &[text("b"), None, text("c")]),
            CursorScope::of("ab", &[text("c")]),
        ];
        for (place, scope) in scopes.iter().enumerate() {
            assert!(scopes[place + 1..].iter().all(|other| other.0 != scope.0), "{place}");
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let scope = CursorScope::of("", &[]);
        let Cursor(good) = scope.cursor_after(Uuid::nil());
        for text in ["", "x", "====", &good[1..], &format!("{good}AAAA"), &"A".repeat(43), "%00"] {
            assert!(
                matches!(scope.read(&Cursor(text.to_owned())), Err(Error::InvalidCursor)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_further_page_is_announced_when_there_is_one() {
        let scope = CursorScope::of("", &[]);
        let page = |read: u128| {
            Page::of((0..read).collect::<Vec<_>>(), 2, &scope, |item| Uuid::from_u128(*item))
        };
        assert_eq!((page(2).items, page(2).next_cursor), (vec![0, 1], None));
        assert_eq!(page(3).items, [0, 1]);
        assert_eq!(scope.read(&page(3).next_cursor.unwrap()).unwrap(), Uuid::from_u128(1));
        assert_eq!(page(0).next_cursor, None);
    }
}
