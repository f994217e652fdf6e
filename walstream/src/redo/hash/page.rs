//! Pages of a hash index: the special space, the metapage, bitmaps of overflow pages.

use crate::redo::index_page::INVALID_BLOCK;
use crate::redo::{RedoFault, RedoPage};
use crate::storage::page::{HEADER_LEN, Page, PageFault, max_align};
use crate::types::BlockNumber;

/// `LH_UNUSED_PAGE`.
pub(super) const UNUSED: u16 = 0;
/// `LH_OVERFLOW_PAGE`.
pub(super) const OVERFLOW: u16 = 1 << 0;
/// `LH_BUCKET_PAGE`.
pub(super) const BUCKET: u16 = 1 << 1;
/// `LH_BITMAP_PAGE`.
const BITMAP: u16 = 1 << 2;
/// `LH_META_PAGE`.
const META: u16 = 1 << 3;
/// `LH_BUCKET_NEEDS_SPLIT_CLEANUP`: items that a split copied away are still here.
pub(super) const NEEDS_SPLIT_CLEANUP: u16 = 1 << 6;
/// `LH_PAGE_HAS_DEAD_TUPLES`: a hint.
pub(super) const HAS_DEAD_TUPLES: u16 = 1 << 7;
/// `LH_PAGE_TYPE`.
pub(super) const TYPE: u16 = OVERFLOW | BUCKET | BITMAP | META;

/// `HASHO_PAGE_ID`, at the end of the special space.
const PAGE_ID: u16 = 0xFF80;
/// `InvalidBucket`.
const INVALID_BUCKET: u32 = u32::MAX;

/// The special space: 16 bytes in this order, the last two the same on every page.
///
/// # Source
/// `HashPageOpaqueData` in `src/include/access/hash.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opaque {
    /// `hasho_prevblkno`: the page before in the bucket; on a bucket's first page the highest bucket when it was last
    /// split.
    pub(super) prev: BlockNumber,
    /// `hasho_nextblkno`: the page behind in the bucket.
    pub(super) next: BlockNumber,
    /// `hasho_bucket`.
    pub(super) bucket: u32,
    /// `hasho_flag`: type, and flags.
    pub(super) flags: u16,
    page_id: u16,
}

impl Opaque {
    const LEN: usize = 16;

    /// Of a page that belongs to no bucket.
    pub(super) const fn outside_buckets(flags: u16) -> Self {
        Self::in_bucket(INVALID_BLOCK, INVALID_BUCKET, flags)
    }

    /// Of a page that is the last of its bucket.
    pub(super) const fn in_bucket(prev: BlockNumber, bucket: u32, flags: u16) -> Self {
        Self {
            prev,
            next: INVALID_BLOCK,
            bucket,
            flags,
            page_id: PAGE_ID,
        }
    }

    /// Reads it.
    pub(super) fn of(page: &Page<impl AsRef<[u8]>>) -> Result<Self, PageFault> {
        let start = page.special();
        if start < HEADER_LEN {
            return Err(PageFault::Unexpected {
                what: "was never initialised as one of a hash index",
            });
        }
        let last = page.u32_at(start + 12)?;
        let [f0, f1, i0, i1] = last.to_le_bytes();
        Ok(Self {
            prev: page.u32_at(start)?,
            next: page.u32_at(start + 4)?,
            bucket: page.u32_at(start + 8)?,
            flags: u16::from_le_bytes([f0, f1]),
            page_id: u16::from_le_bytes([i0, i1]),
        })
    }

    /// Writes it.
    fn store(&self, page: &mut RedoPage<'_>) -> Result<(), PageFault> {
        let start = page.special();
        page.put(start, &self.prev.to_le_bytes())?;
        page.put(start + 4, &self.next.to_le_bytes())?;
        page.put(start + 8, &self.bucket.to_le_bytes())?;
        page.put(start + 12, &self.flags.to_le_bytes())?;
        page.put(start + 14, &self.page_id.to_le_bytes())
    }

    /// Makes the page an empty one with this special space.
    pub(super) fn init(&self, page: &mut RedoPage<'_>) -> Result<(), PageFault> {
        page.init(Self::LEN);
        self.store(page)
    }

    /// Changes it in its page.
    pub(super) fn change(
        page: &mut RedoPage<'_>,
        change: impl FnOnce(&mut Self),
    ) -> Result<(), PageFault> {
        let mut opaque = Self::of(page)?;
        change(&mut opaque);
        opaque.store(page)
    }
}

/// Makes a bitmap of so many bytes that knows no free overflow page.
///
/// # Source
/// `_hash_initbitmapbuffer` in `src/backend/access/hash/hashovfl.c`.
pub(super) fn init_bitmap(page: &mut RedoPage<'_>, len: u16) -> Result<(), RedoFault> {
    Opaque::outside_buckets(BITMAP).init(page)?;
    let len = usize::from(len);
    if len > page.exact_free_space() {
        return Err(RedoFault::Record {
            what: "a bitmap is longer than a page",
        });
    }
    page.slice_mut(HEADER_LEN, len)?.fill(0xFF);
    page.set_lower(HEADER_LEN + len);
    Ok(())
}

/// Sets or clears the bit of an overflow page: set when it is in use.
pub(super) fn set_bit(page: &mut RedoPage<'_>, bit: u32, is_set: bool) -> Result<(), RedoFault> {
    let place = usize::try_from(bit / 8).unwrap_or(usize::MAX);
    let special = page.special();
    let bitmap = page.slice_mut(HEADER_LEN, special.saturating_sub(HEADER_LEN))?;
    let byte = bitmap.get_mut(place).ok_or(RedoFault::Record {
        what: "a bit is outside its bitmap",
    })?;
    if is_set {
        *byte |= 1 << (bit % 8);
    } else {
        *byte &= !(1 << (bit % 8));
    }
    Ok(())
}

/// Fields of the metapage, by their offset in it.
///
/// # Source
/// `HashMetaPageData` in `src/include/access/hash.h`.
pub(super) mod field {
    use crate::storage::page::HEADER_LEN;

    /// `hashm_magic`.
    pub(super) const MAGIC: usize = HEADER_LEN;
    /// `hashm_version`.
    pub(super) const VERSION: usize = HEADER_LEN + 4;
    /// `hashm_ntuples`.
    pub(in super::super) const TUPLES: usize = HEADER_LEN + 8;
    /// `hashm_ffactor`.
    pub(super) const FILL_FACTOR: usize = HEADER_LEN + 16;
    /// `hashm_bsize`.
    pub(super) const PAGE_ROOM: usize = HEADER_LEN + 18;
    /// `hashm_bmsize`.
    pub(super) const BITMAP_SIZE: usize = HEADER_LEN + 20;
    /// `hashm_bmshift`.
    pub(super) const BITMAP_SHIFT: usize = HEADER_LEN + 22;
    /// `hashm_maxbucket`.
    pub(in super::super) const MAX_BUCKET: usize = HEADER_LEN + 24;
    /// `hashm_highmask`.
    pub(in super::super) const HIGH_MASK: usize = HEADER_LEN + 28;
    /// `hashm_lowmask`.
    pub(in super::super) const LOW_MASK: usize = HEADER_LEN + 32;
    /// `hashm_ovflpoint`.
    pub(in super::super) const OVERFLOW_POINT: usize = HEADER_LEN + 36;
    /// `hashm_firstfree`.
    pub(in super::super) const FIRST_FREE: usize = HEADER_LEN + 40;
    /// `hashm_nmaps`.
    pub(super) const BITMAP_COUNT: usize = HEADER_LEN + 44;
    /// `hashm_procid`.
    pub(super) const FUNCTION: usize = HEADER_LEN + 48;
    /// `hashm_spares`.
    pub(super) const SPARES: usize = HEADER_LEN + 52;
    /// `hashm_mapp`.
    pub(super) const BITMAPS: usize = SPARES + 4 * super::SPLIT_POINTS;
}

/// `HASH_MAGIC`.
const MAGIC: u32 = 0x0644_0640;
/// `HASH_VERSION`, since 10.
const VERSION: u32 = 4;
/// `HASH_MAX_SPLITPOINTS`.
const SPLIT_POINTS: usize = 98;
/// `HASH_SPLITPOINT_GROUPS_WITH_ONE_PHASE`: the doublings that come in one step; later ones in 4.
const SINGLE_STEP_GROUPS: u32 = 10;
/// `HASH_SPLITPOINT_PHASE_BITS`.
const PHASE_BITS: u32 = 2;

/// The most bitmaps of an index (`HASH_MAX_BITMAPS`).
fn max_bitmaps(page: &RedoPage<'_>) -> usize {
    (page.size() / 8).min(1024)
}

/// Makes the metapage of an index for so many tuples.
///
/// # Source
/// `_hash_init_metabuffer` in `src/backend/access/hash/hashpage.c`.
pub(super) fn init_meta(
    page: &mut RedoPage<'_>,
    tuples: f64,
    function: u32,
    fill_factor: u16,
) -> Result<(), RedoFault> {
    if fill_factor == 0 {
        return Err(RedoFault::Record {
            what: "the fill factor of a hash index is 0",
        });
    }
    let buckets = match whole_part(tuples / f64::from(fill_factor)) {
        Buckets::Few => 2,
        Buckets::Many => MOST_BUCKETS,
        Buckets::Some(buckets) => total_buckets(spare_index(buckets)),
    };
    let spare = spare_index(buckets);
    Opaque::outside_buckets(META).init(page)?;
    let room = page.exact_free_space();
    let shift = room.ilog2();
    let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
    page.put(field::MAGIC, &MAGIC.to_le_bytes())?;
    page.put(field::VERSION, &VERSION.to_le_bytes())?;
    page.put(field::FILL_FACTOR, &fill_factor.to_le_bytes())?;
    page.put(field::PAGE_ROOM, &short(room))?;
    page.put(field::BITMAP_SIZE, &short(1 << shift))?;
    page.put(
        field::BITMAP_SHIFT,
        &short(usize::try_from(shift + 3).unwrap_or(0)),
    )?;
    page.put(field::MAX_BUCKET, &(buckets - 1).to_le_bytes())?;
    let high_mask = (buckets + 1).next_power_of_two() - 1;
    page.put(field::HIGH_MASK, &high_mask.to_le_bytes())?;
    page.put(field::LOW_MASK, &(high_mask >> 1).to_le_bytes())?;
    page.put(field::OVERFLOW_POINT, &spare.to_le_bytes())?;
    page.put(field::FUNCTION, &function.to_le_bytes())?;
    page.put(spares_place(spare)?, &1_u32.to_le_bytes())?;
    let end = max_align(field::BITMAPS - HEADER_LEN + 4 * max_bitmaps(page));
    page.set_lower(HEADER_LEN + end);
    Ok(())
}

/// `_hash_init_metabuffer` makes no more.
const MOST_BUCKETS: u32 = 0x4000_0000;

/// How many buckets are wanted.
enum Buckets {
    Few,
    Some(u32),
    Many,
}

/// The whole part of a number of buckets.
fn whole_part(buckets: f64) -> Buckets {
    if buckets <= 2.0 {
        return Buckets::Few;
    }
    if buckets < f64::from(MOST_BUCKETS) {
        // From its bits: 52 of fraction with an unwritten 1 before them, then 11 of exponent.
        let bits = buckets.to_bits();
        let fraction = (bits & ((1 << 52) - 1)) | (1 << 52);
        let exponent = (bits >> 52 & 0x7FF).saturating_sub(1023);
        let whole = fraction >> 52_u64.saturating_sub(exponent);
        return u32::try_from(whole).map_or(Buckets::Many, Buckets::Some);
    }
    Buckets::Many
}

/// # Source
/// `_hash_spareindex` in `src/backend/access/hash/hashutil.c`.
fn spare_index(buckets: u32) -> u32 {
    let group = buckets.max(1).next_power_of_two().ilog2();
    if group < SINGLE_STEP_GROUPS {
        return group;
    }
    let phase = (buckets - 1) >> (group - (PHASE_BITS + 1)) & ((1 << PHASE_BITS) - 1);
    SINGLE_STEP_GROUPS + ((group - SINGLE_STEP_GROUPS) << PHASE_BITS) + phase
}

/// # Source
/// `_hash_get_totalbuckets` in `src/backend/access/hash/hashutil.c`.
fn total_buckets(spare_index: u32) -> u32 {
    let Some(steps) = spare_index.checked_sub(SINGLE_STEP_GROUPS) else {
        return 1 << spare_index;
    };
    let half = 1_u32 << (SINGLE_STEP_GROUPS + (steps >> PHASE_BITS) - 1).min(30);
    let phases = (steps & ((1 << PHASE_BITS) - 1)) + 1;
    half + (half >> PHASE_BITS) * phases
}

/// Where the metapage counts the overflow pages of a split point.
pub(super) fn spares_place(split_point: u32) -> Result<usize, RedoFault> {
    usize::try_from(split_point)
        .ok()
        .filter(|point| *point < SPLIT_POINTS)
        .map(|point| field::SPARES + 4 * point)
        .ok_or(RedoFault::Page(PageFault::Unexpected {
            what: "is a metapage with a split point that no hash index has",
        }))
}

/// Notes one more overflow page in the metapage.
pub(super) fn count_overflow_page(page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    let place = spares_place(page.u32_at(field::OVERFLOW_POINT)?)?;
    let count = page.u32_at(place)?.wrapping_add(1);
    Ok(page.put(place, &count.to_le_bytes())?)
}

/// Notes one more bitmap in the metapage.
pub(super) fn add_bitmap(page: &mut RedoPage<'_>, bitmap: BlockNumber) -> Result<(), RedoFault> {
    let count = page.u32_at(field::BITMAP_COUNT)?;
    let index = usize::try_from(count).ok();
    let index = index
        .filter(|index| *index < max_bitmaps(page))
        .ok_or(RedoFault::Page(PageFault::Unexpected {
            what: "is a metapage with as many bitmaps as a hash index can have",
        }))?;
    page.put(field::BITMAPS + 4 * index, &bitmap.to_le_bytes())?;
    Ok(page.put(field::BITMAP_COUNT, &(count + 1).to_le_bytes())?)
}

/// Changes the number of tuples in the metapage.
pub(super) fn add_tuples(page: &mut RedoPage<'_>, count: f64) -> Result<(), RedoFault> {
    let tuples = f64::from_le_bytes(page.array_at(field::TUPLES)?) + count;
    Ok(page.put(field::TUPLES, &tuples.to_le_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_come_in_whole_steps() {
        // Number of buckets wanted, split point, buckets that there are then.
        let cases = [
            (1, 0, 1),
            (2, 1, 2),
            (3, 2, 4),
            (512, 9, 512),
            (513, 10, 640),
            (640, 10, 640),
            (641, 11, 768),
            (1024, 13, 1024),
            (1025, 14, 1280),
            (1 << 30, 10 + 20 * 4 + 3, 1 << 30),
        ];
        for (wanted, point, buckets) in cases {
            assert_eq!(spare_index(wanted), point, "{wanted}");
            assert_eq!(total_buckets(point), buckets, "{wanted}");
        }
        assert!(matches!(whole_part(3.99), Buckets::Some(3)));
        assert!(matches!(
            whole_part(1_073_741_823.9),
            Buckets::Some(0x3FFF_FFFF)
        ));
        assert!(matches!(whole_part(1_073_741_824.0), Buckets::Many));
        assert!(matches!(whole_part(2.0), Buckets::Few));
        assert!(matches!(whole_part(f64::NAN), Buckets::Many));
    }
}
