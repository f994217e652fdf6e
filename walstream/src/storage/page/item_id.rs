//! [`ItemId`]: a line pointer.

/// A line pointer: 15 bits of offset in the page, 2 of state, 15 of length in bytes.
///
/// # Source
/// `ItemIdData` in `src/include/storage/itemid.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemId(pub u32);

/// What a line pointer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemState {
    /// Free (`LP_UNUSED`).
    Unused,
    /// Leads to an item (`LP_NORMAL`).
    Normal,
    /// Leads to another line pointer (`LP_REDIRECT`): the offset is its number.
    Redirect,
    /// Dead, with or without an item (`LP_DEAD`).
    Dead,
}

impl ItemId {
    /// Bytes.
    pub const LEN: usize = 4;
    /// A free one.
    pub const UNUSED: Self = Self(0);
    /// A dead one without an item.
    pub const DEAD: Self = Self(3 << 15);

    /// One that leads to an item. Both fit as they are within a page.
    #[must_use]
    pub fn normal(offset: usize, len: usize) -> Self {
        Self::of(offset, ItemState::Normal, len)
    }

    /// One that leads to another line pointer.
    #[must_use]
    pub fn redirect(to: super::OffsetNumber) -> Self {
        Self::of(to.into(), ItemState::Redirect, 0)
    }

    fn of(offset: usize, state: ItemState, len: usize) -> Self {
        let bits = |value: usize| u32::try_from(value & 0x7FFF).unwrap_or(0);
        let state = match state {
            ItemState::Unused => 0,
            ItemState::Normal => 1,
            ItemState::Redirect => 2,
            ItemState::Dead => 3,
        };
        Self(bits(offset) | state << 15 | bits(len) << 17)
    }

    /// The same with another offset (`lp_off`).
    #[must_use]
    pub fn with_offset(self, offset: usize) -> Self {
        Self::of(offset, self.state(), self.len())
    }

    /// The same with another state (`lp_flags`), offset and length kept.
    #[must_use]
    pub fn with_state(self, state: ItemState) -> Self {
        Self::of(self.offset(), state, self.len())
    }

    /// Offset of the item in the page, in bytes; the number of the line pointer that a redirect leads to.
    #[must_use]
    pub const fn offset(self) -> usize {
        (self.0 & 0x7FFF) as usize
    }

    /// Length of the item in bytes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "has_storage says what is meant"
    )]
    #[must_use]
    pub const fn len(self) -> usize {
        (self.0 >> 17) as usize
    }

    /// What it is for.
    #[must_use]
    pub const fn state(self) -> ItemState {
        match self.0 >> 15 & 3 {
            0 => ItemState::Unused,
            1 => ItemState::Normal,
            2 => ItemState::Redirect,
            _ => ItemState::Dead,
        }
    }

    /// Whether it is not free (`ItemIdIsUsed`).
    #[must_use]
    pub const fn is_used(self) -> bool {
        !matches!(self.state(), ItemState::Unused)
    }

    /// Whether it leads to an item and is in use (`ItemIdIsNormal`).
    #[must_use]
    pub const fn is_normal(self) -> bool {
        matches!(self.state(), ItemState::Normal)
    }

    /// Whether it is dead, with or without an item (`ItemIdIsDead`).
    #[must_use]
    pub const fn is_dead(self) -> bool {
        matches!(self.state(), ItemState::Dead)
    }

    /// Whether it leads to bytes (`ItemIdHasStorage`).
    #[must_use]
    pub const fn has_storage(self) -> bool {
        self.len() != 0
    }
}
