//! Descriptions of the records of hash indexes.

use std::fmt::{self, Write};

use super::records::{
    self, AddOverflowPage, Delete, InitMetaPage, Move, SplitAllocatePage, VacuumOnePage,
};
use super::{
    ADD_OVERFLOW_PAGE, DELETE, INIT_BITMAP_PAGE, INIT_META_PAGE, INSERT, MOVE_PAGE_CONTENTS,
    SPLIT_ALLOCATE_PAGE, SPLIT_COMPLETE, SQUEEZE_PAGE, UPDATE_META_PAGE, VACUUM_ONE_PAGE,
};
use crate::dialect::{Dialect, PgMajor};
use crate::read::Reader;
use crate::redo::c_float::CFloat;
use crate::redo::{RedoFault, RedoRecord};

/// # Source
/// `hash_desc` in `src/backend/access/rmgrdesc/hashdesc.c`.
pub(in crate::redo) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    let data = record.main_data();
    let letter = |is_true| if is_true { 'T' } else { 'F' };
    // An error of the writer ends the description in silence.
    let _: fmt::Result = match record.operation() {
        INIT_META_PAGE => {
            let meta = InitMetaPage::parse(data)?;
            let (tuples, fill_factor) = (CFloat(meta.tuples), meta.fill_factor);
            write!(out, "num_tuples {tuples}, fillfactor {fill_factor}")
        }
        INIT_BITMAP_PAGE => write!(out, "bmsize {}", Reader::new(data).u16_le()?),
        INSERT => write!(out, "off {}", Reader::new(data).u16_le()?),
        ADD_OVERFLOW_PAGE => {
            let added = AddOverflowPage::parse(data)?;
            let (size, found) = (added.bitmap_size, letter(added.was_free));
            write!(out, "bmsize {size}, bmpage_found {found}")
        }
        SPLIT_ALLOCATE_PAGE => {
            let split = SplitAllocatePage::parse(data)?;
            write!(
                out,
                "new_bucket {}, meta_page_masks_updated {}, issplitpoint_changed {}",
                split.new_bucket,
                letter(split.sets_masks),
                letter(split.sets_split_point)
            )
        }
        SPLIT_COMPLETE => {
            let (old, new) = records::split_complete(data)?;
            write!(out, "old_bucket_flag {old}, new_bucket_flag {new}")
        }
        operation @ (MOVE_PAGE_CONTENTS | SQUEEZE_PAGE) => {
            let moved = Move::parse(data, operation == SQUEEZE_PAGE)?;
            if let Some((prev, next)) = moved.around {
                let _ = write!(out, "prevblkno {prev}, nextblkno {next}, ");
            }
            let (tuples, is_primary) = (moved.tuples, letter(moved.to_first));
            write!(out, "ntups {tuples}, is_primary {is_primary}")
        }
        DELETE => {
            let delete = Delete::parse(data)?;
            let (clears, is_first) = (letter(delete.clears_dead), letter(delete.is_first));
            write!(out, "clear_dead_marking {clears}, is_primary {is_first}")
        }
        UPDATE_META_PAGE => {
            let tuples = f64::from_le_bytes(Reader::new(data).array()?);
            write!(out, "ntuples {}", CFloat(tuples))
        }
        VACUUM_ONE_PAGE => {
            let VacuumOnePage {
                horizon,
                tuples,
                is_catalog,
                ..
            } = VacuumOnePage::parse(data, dialect)?;
            let name = match dialect.major {
                PgMajor::V12 | PgMajor::V13 => "latest removed xid",
                PgMajor::V14 | PgMajor::V15 => "latestRemovedXid",
                _ => "snapshotConflictHorizon",
            };
            let _ = write!(out, "ntuples {tuples}, {name} {horizon}");
            if dialect.major >= PgMajor::V17 {
                write!(out, ", isCatalogRel {}", letter(is_catalog))
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    };
    Ok(())
}
