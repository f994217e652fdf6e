//! What the records of hash indexes say.

use crate::dialect::{Dialect, PgMajor};
use crate::read::{OutOfBytes, Reader};
use crate::types::{BlockNumber, Oid, TransactionId};

/// # Source
/// `xl_hash_init_meta_page` in `src/include/access/hash_xlog.h`.
pub(super) struct InitMetaPage {
    /// Tuples to be expected.
    pub(super) tuples: f64,
    /// The hash function.
    pub(super) function: Oid,
    /// Tuples of a bucket.
    pub(super) fill_factor: u16,
}

impl InitMetaPage {
    pub(super) fn parse(data: &[u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        Ok(Self {
            tuples: f64::from_le_bytes(data.array()?),
            function: data.u32_le()?,
            fill_factor: data.u16_le()?,
        })
    }
}

/// # Source
/// `xl_hash_add_ovfl_page` in `src/include/access/hash_xlog.h`.
pub(super) struct AddOverflowPage {
    /// Bytes of a bitmap.
    pub(super) bitmap_size: u16,
    /// Whether the page was free before, and not a new one.
    pub(super) was_free: bool,
}

impl AddOverflowPage {
    pub(super) fn parse(data: &[u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        Ok(Self {
            bitmap_size: data.u16_le()?,
            was_free: data.u8()? != 0,
        })
    }
}

/// # Source
/// `xl_hash_split_allocate_page` in `src/include/access/hash_xlog.h`.
pub(super) struct SplitAllocatePage {
    pub(super) new_bucket: u32,
    /// Flags of the page that is split.
    pub(super) old_flags: u16,
    /// Flags of the new page.
    pub(super) new_flags: u16,
    /// Whether the metapage gets new masks (`XLH_SPLIT_META_UPDATE_MASKS`).
    pub(super) sets_masks: bool,
    /// Whether the metapage gets a new split point (`XLH_SPLIT_META_UPDATE_SPLITPOINT`).
    pub(super) sets_split_point: bool,
}

impl SplitAllocatePage {
    pub(super) fn parse(data: &[u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let (new_bucket, old_flags, new_flags) = (data.u32_le()?, data.u16_le()?, data.u16_le()?);
        let flags = data.u8()?;
        Ok(Self {
            new_bucket,
            old_flags,
            new_flags,
            sets_masks: flags & 1 != 0,
            sets_split_point: flags & 2 != 0,
        })
    }
}

/// Flags of the page that was split and of the new one.
///
/// # Source
/// `xl_hash_split_complete` in `src/include/access/hash_xlog.h`.
pub(super) fn split_complete(data: &[u8]) -> Result<(u16, u16), OutOfBytes> {
    let mut data = Reader::new(data);
    Ok((data.u16_le()?, data.u16_le()?))
}

/// Tuples that go from one page to another of the same bucket, and whether the other is the bucket's first. Without a
/// link to change the record is one of `MOVE_PAGE_CONTENTS`.
///
/// # Source
/// `xl_hash_move_page_contents` and `xl_hash_squeeze_page` in `src/include/access/hash_xlog.h`.
pub(super) struct Move {
    /// Page before the one that is freed, and the one behind it.
    pub(super) around: Option<(BlockNumber, BlockNumber)>,
    /// How many.
    pub(super) tuples: u16,
    /// Whether they go to the bucket's first page.
    pub(super) to_first: bool,
    /// Whether they go to the page before the one that is freed.
    pub(super) to_previous: bool,
}

impl Move {
    pub(super) fn parse(data: &[u8], frees_page: bool) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let around = if frees_page {
            Some((data.u32_le()?, data.u32_le()?))
        } else {
            None
        };
        Ok(Self {
            around,
            tuples: data.u16_le()?,
            to_first: data.u8()? != 0,
            to_previous: frees_page && data.u8()? != 0,
        })
    }
}

/// # Source
/// `xl_hash_delete` in `src/include/access/hash_xlog.h`.
pub(super) struct Delete {
    /// Whether the page has no dead tuples after it.
    pub(super) clears_dead: bool,
    /// Whether it is the bucket's first page.
    pub(super) is_first: bool,
}

impl Delete {
    pub(super) fn parse(data: &[u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        Ok(Self {
            clears_dead: data.u8()? != 0,
            is_first: data.u8()? != 0,
        })
    }
}

/// # Source
/// `xl_hash_vacuum_one_page` in `src/include/access/hash_xlog.h`.
pub(super) struct VacuumOnePage<'a> {
    /// The newest transaction that may still see what goes.
    pub(super) horizon: TransactionId,
    /// How many tuples go.
    pub(super) tuples: i32,
    /// Whether the index is one of a catalog, since 16.
    pub(super) is_catalog: bool,
    /// Their numbers, 2 bytes each.
    pub(super) list: &'a [u8],
}

impl<'a> VacuumOnePage<'a> {
    pub(super) fn parse(data: &'a [u8], dialect: &Dialect) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let horizon = data.u32_le()?;
        let (tuples, is_catalog) = if dialect.major >= PgMajor::V16 {
            let fields = (data.u16_le()?.into(), data.u8()? != 0);
            data.u8()?;
            fields
        } else {
            (i32::from_le_bytes(data.array()?), false)
        };
        Ok(Self {
            horizon,
            tuples,
            is_catalog,
            list: data.rest(),
        })
    }
}
