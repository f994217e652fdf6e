//! The metapage, which records that change it hold whole.

use super::opaque::{META, Opaque};
use crate::dialect::{Dialect, PgMajor};
use crate::read::{OutOfBytes, Reader};
use crate::redo::{RedoFault, RedoPage};
use crate::storage::page::HEADER_LEN;
use crate::types::BlockNumber;

/// `BTREE_MAGIC`.
const MAGIC: u32 = 0x0005_3162;

/// What a record says of the metapage.
///
/// # Source
/// `xl_btree_metadata` in `src/include/access/nbtxlog.h`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MetaData {
    /// Of the tree's format.
    version: u32,
    root: BlockNumber,
    level: u32,
    fast_root: BlockNumber,
    fast_level: u32,
    /// Since 14 the pages that the last vacuum deleted and could not free; before, the oldest transaction of a deleted
    /// page.
    pub(super) cleanup: u32,
    /// Rows of the table at the last vacuum; since 14 not used.
    pub(super) cleanup_tuples: f64,
    /// Whether equal keys have equal bytes, since 13 (`allequalimage`).
    all_equal_image: Option<u8>,
}

impl MetaData {
    pub(super) fn parse(data: &[u8], dialect: &Dialect) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let mut meta = Self {
            version: data.u32_le()?,
            root: data.u32_le()?,
            level: data.u32_le()?,
            fast_root: data.u32_le()?,
            fast_level: data.u32_le()?,
            cleanup: data.u32_le()?,
            cleanup_tuples: -1.0,
            all_equal_image: None,
        };
        if dialect.major < PgMajor::V14 {
            meta.cleanup_tuples = f64::from_le_bytes(data.array()?);
        }
        if dialect.major >= PgMajor::V13 {
            meta.all_equal_image = Some(data.u8()?);
        }
        Ok(meta)
    }

    /// Makes the metapage.
    ///
    /// # Source
    /// `_bt_restore_meta` in `src/backend/access/nbtree/nbtxlog.c`, `BTMetaPageData` in `src/include/access/nbtree.h`.
    fn init(&self, page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
        let opaque = Opaque {
            flags: META,
            ..Opaque::default()
        };
        opaque.init(page)?;
        let numbers = [
            MAGIC,
            self.version,
            self.root,
            self.level,
            self.fast_root,
            self.fast_level,
            self.cleanup,
        ];
        for (place, number) in (HEADER_LEN..).step_by(4).zip(numbers) {
            page.put(place, &number.to_le_bytes())?;
        }
        page.put(HEADER_LEN + 32, &self.cleanup_tuples.to_le_bytes())?;
        let len = match self.all_equal_image {
            Some(equal) => {
                page.put(HEADER_LEN + 40, &[equal])?;
                48
            }
            None => 40,
        };
        page.set_lower(HEADER_LEN + len);
        Ok(())
    }
}

/// Makes the metapage from the block's data.
pub(super) fn restore(
    data: &[u8],
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    MetaData::parse(data, dialect)?.init(page)
}
