//! Where a part of a list begins.

/// Which part of a list, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStart<Id> {
    /// After so many items, each of which is read and thrown away.
    Offset(i64),
    /// After this one, wherever in the list it is: as fast as the first page.
    After(Id),
}
