//! Cumulative statistics that go with dropped objects, as commits and aborts list them.

use super::RedoFault;
use crate::dialect::{Dialect, PgMajor};
use crate::read::{OutOfBytes, Reader};
use crate::types::Oid;

/// Statistics of an object that was dropped.
///
/// # Source
/// `xl_xact_stats_item` in `src/include/access/xact.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedStatistics {
    /// Kind of statistics.
    pub kind: i32,
    /// Database, 0 for shared objects.
    pub database: Oid,
    /// The object: an OID, since PostgreSQL 18 any 64 bits.
    pub object: u64,
}

/// A list of them in a record's data, whose length was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DroppedStatisticsList<'a> {
    bytes: &'a [u8],
    has_wide_objects: bool,
}

impl<'a> DroppedStatisticsList<'a> {
    /// Takes a list of `count` items from what a reader has left.
    ///
    /// # Errors
    /// [`RedoFault`] when `count` is negative, or fewer are left.
    pub fn take(reader: &mut Reader<'a>, count: i32, dialect: &Dialect) -> Result<Self, RedoFault> {
        let count = usize::try_from(count).map_err(|_| RedoFault::Record {
            what: "a list has a negative length",
        })?;
        let list = Self {
            bytes: &[],
            has_wide_objects: dialect.major >= PgMajor::V18,
        };
        Ok(Self {
            bytes: reader.take(count.saturating_mul(list.item_len()))?,
            ..list
        })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() / self.item_len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The items, in the record's order.
    pub fn iter(&self) -> impl Iterator<Item = DroppedStatistics> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        let has_wide_objects = self.has_wide_objects;
        std::iter::from_fn(move || read(&mut reader, has_wide_objects).ok())
    }

    const fn item_len(&self) -> usize {
        if self.has_wide_objects { 16 } else { 12 }
    }
}

fn read(reader: &mut Reader<'_>, has_wide_object: bool) -> Result<DroppedStatistics, OutOfBytes> {
    Ok(DroppedStatistics {
        kind: reader.i32_le()?,
        database: reader.u32_le()?,
        object: if has_wide_object {
            reader.u64_le()?
        } else {
            reader.u32_le()?.into()
        },
    })
}
