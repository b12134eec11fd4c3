//! Pages of a list, and the cursor from one to the next.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use greenroom_store::Position;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Error;

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The most items, 1 to 200.
    pub limit: i64,
    /// Where it begins.
    pub position: PagePosition,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PagePosition {
    /// After so many items, which are read and thrown away: 0 to 10,000.
    Offset(i64),
    /// Where another page of the same list ended, by what its [`Listing::next_cursor`] says.
    Cursor(String),
}

impl Default for Page {
    /// The first fifty.
    fn default() -> Self {
        Self { limit: 50, position: PagePosition::Offset(0) }
    }
}

impl PagePosition {
    /// The position in this list, whose items have such ids.
    pub(crate) fn within<Id>(
        self,
        list: &List,
        id: impl FnOnce(Uuid) -> Id,
    ) -> Result<Position<Id>, Error> {
        Ok(match self {
            Self::Offset(items) => Position::Offset(items),
            Self::Cursor(cursor) => Position::After(id(list.read(&cursor)?)),
        })
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// What is on it, newest first.
    pub items: Vec<T>,
    /// Where the next page begins, when there is one. It is good for the same caller and the same
    /// filter only.
    pub next_cursor: Option<String>,
}

impl<T> Listing<T> {
    /// The page of what was read, which is one item more than was wanted when there is a next page.
    pub(crate) fn of(mut items: Vec<T>, limit: i64, list: &List, id: impl Fn(&T) -> Uuid) -> Self {
        let limit = usize::try_from(limit).unwrap_or_default();
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| list.cursor_after(id(last)));
        Self { items, next_cursor }
    }
}

/// What a cursor is bound to: whose list it is, and of what.
pub(crate) struct List([u8; 16]);

impl List {
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

    /// Opaque, and not secret: who makes one of their own gets another place in their own list, for
    /// the list itself is always that of the request. So it is signed with nothing, and every
    /// replica reads it.
    fn cursor_after(&self, id: Uuid) -> String {
        BASE64_URL_SAFE_NO_PAD.encode([*id.as_bytes(), self.0].concat())
    }

    /// The item the page comes after.
    fn read(&self, cursor: &str) -> Result<Uuid, Error> {
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
        let (list, id) = (List::of("sessions", &[Some("1".into())]), Uuid::from_u128(7));
        let cursor = list.cursor_after(id);
        assert_eq!(list.read(&cursor).unwrap(), id);
        assert!(matches!(
            List::of("sessions", &[Some("2".into())]).read(&cursor),
            Err(Error::InvalidCursor)
        ));
    }

    #[test]
    fn any_two_lists_are_apart() {
        let text = |text: &str| Some(text.to_owned());
        let lists = [
            List::of("a", &[]),
            List::of("a", &[None]),
            List::of("a", &[text("")]),
            List::of("a", &[text("b"), text("c")]),
            List::of("a", &[text("bc"), text("")]),
            List::of("a", &[text("b"), None, text("c")]),
            List::of("ab", &[text("c")]),
        ];
        for (place, list) in lists.iter().enumerate() {
            assert!(lists[place + 1..].iter().all(|other| other.0 != list.0), "{place}");
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let list = List::of("", &[]);
        let good = list.cursor_after(Uuid::nil());
        for text in ["", "x", "====", &good[1..], &format!("{good}AAAA"), &"A".repeat(43), "%00"] {
            assert!(matches!(list.read(text), Err(Error::InvalidCursor)), "{text:?}");
        }
    }

    #[test]
    fn a_further_page_is_announced_when_there_is_one() {
        let list = List::of("", &[]);
        let page = |read: u128| {
            Listing::of((0..read).collect::<Vec<_>>(), 2, &list, |item| Uuid::from_u128(*item))
        };
        assert_eq!((page(2).items, page(2).next_cursor), (vec![0, 1], None));
        assert_eq!(page(3).items, [0, 1]);
        assert_eq!(list.read(&page(3).next_cursor.unwrap()).unwrap(), Uuid::from_u128(1));
        assert_eq!(page(0).next_cursor, None);
    }
}
