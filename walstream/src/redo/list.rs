//! [`List`]: items of one size as a record has them, read one by one where they lie.

use std::fmt;
use std::marker::PhantomData;

use super::RedoFault;
use crate::read::{OutOfBytes, Reader};
use crate::types::{RelFileLocator, TransactionId};

/// Something that a record holds a list of.
pub trait ListItem: Sized {
    /// Bytes that one takes.
    const LEN: usize;

    /// Reads one.
    ///
    /// # Errors
    /// [`OutOfBytes`] when fewer than [`ListItem::LEN`] bytes are left.
    fn read(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes>;
}

/// A list of items in a record's data, whose length was checked. Copying it copies no item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct List<'a, T> {
    bytes: &'a [u8],
    items: PhantomData<T>,
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self {
            bytes: &[],
            items: PhantomData,
        }
    }
}

impl<'a, T: ListItem> List<'a, T> {
    /// Takes a list of `count` items from what a reader has left.
    ///
    /// # Errors
    /// [`RedoFault`] when `count` is negative, or fewer are left.
    pub fn take(reader: &mut Reader<'a>, count: i32) -> Result<Self, RedoFault> {
        let count = usize::try_from(count).map_err(|_| RedoFault::Record {
            what: "a list has a negative length",
        })?;
        Ok(Self {
            bytes: reader.take(count.saturating_mul(T::LEN))?,
            items: PhantomData,
        })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() / T::LEN
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The items, in the record's order.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || T::read(&mut reader).ok())
    }
}

impl<T: ListItem + fmt::Debug> fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Transactions, and what else has such numbers (OIDs).
impl ListItem for TransactionId {
    const LEN: usize = 4;

    fn read(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        reader.u32_le()
    }
}

impl ListItem for RelFileLocator {
    const LEN: usize = 12;

    fn read(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        Ok(Self {
            tablespace: reader.u32_le()?,
            database: reader.u32_le()?,
            relation: reader.u32_le()?,
        })
    }
}
