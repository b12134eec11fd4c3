//! The position in a list at which a page starts.

/// Where a page of a list starts. Lists are ordered newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStart<Id> {
    /// After this number of items, which PostgreSQL reads and discards.
    Offset(i64),
    /// After the item with this id. As fast as the first page, however far into the list.
    After(Id),
}
