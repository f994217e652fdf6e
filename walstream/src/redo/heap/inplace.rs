//! Overwriting a tuple where it is, whoever may see it: statistics in catalogs.
//!
//! Since 18 the record has messages to the caches of sessions. A server removes the relation cache's files by them as it replays;
//! we need not, as every server removes them when it starts (`StartupXLOG`).

use std::fmt;

use super::insert::offset_number;
use super::{RedoFault, RedoPage, RedoRecord, tuple};
use crate::read::Reader;
use crate::storage::page::{OffsetNumber, PageFault};
use crate::types::Oid;
use crate::wal::record::BlockRef;

/// The block's data takes the place of the row's.
///
/// # Source
/// `heap_xlog_inplace` in `heapam.c`.
pub(super) fn redo(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let number = offset_number(record)?;
    let data_offset = tuple(page, number)?.data_offset();
    let data = page.item_mut(number)?.get_mut(data_offset..);
    match data {
        Some(data) if data.len() == block.data.len() => data.copy_from_slice(block.data),
        _ => {
            return Err(PageFault::Unexpected {
                what: "has a tuple of another length than what is to overwrite it",
            }
            .into());
        }
    }
    Ok(())
}

/// Bytes of a message (`SharedInvalidationMessage` in `src/include/storage/sinval.h`).
const MESSAGE_LEN: usize = 16;

/// # Source
/// `xl_heap_inplace` in `heapam_xlog.h`, since 18.
pub(super) struct Inplace<'a> {
    pub(super) offset_number: OffsetNumber,
    database: Oid,
    tablespace: Oid,
    invalidates_init_file: bool,
    messages: &'a [u8],
}

impl<'a> Inplace<'a> {
    pub(super) fn parse(record: &RedoRecord<'a>) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        let [n0, n1, _, _] = data.array()?;
        let (database, tablespace) = (data.u32_le()?, data.u32_le()?);
        let [invalidates, _, _, _] = data.array()?;
        let count = usize::try_from(data.i32_le()?).map_err(|_| RedoFault::Record {
            what: "its list of messages has a negative length",
        })?;
        Ok(Self {
            offset_number: u16::from_le_bytes([n0, n1]),
            database,
            tablespace,
            invalidates_init_file: invalidates != 0,
            messages: data.take(count.saturating_mul(MESSAGE_LEN))?,
        })
    }

    /// # Source
    /// `standby_desc_invalidations` in `src/backend/access/rmgrdesc/standbydesc.c`.
    pub(super) fn describe_messages(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.messages.is_empty() {
            return Ok(());
        }
        if self.invalidates_init_file {
            let (database, tablespace) = (self.database, self.tablespace);
            write!(
                out,
                "; relcache init file inval dbid {database} tsid {tablespace}"
            )?;
        }
        out.write_str("; inval msgs:")?;
        let (messages, _) = self.messages.as_chunks::<{ MESSAGE_LEN }>();
        for [id, _, _, _, d0, d1, d2, d3, o0, o1, o2, o3, ..] in messages {
            let id = id.cast_signed();
            let database = u32::from_le_bytes([*d0, *d1, *d2, *d3]);
            let object = u32::from_le_bytes([*o0, *o1, *o2, *o3]);
            match id {
                0.. => write!(out, " catcache {id}"),
                -1 => write!(out, " catalog {object}"),
                -2 => write!(out, " relcache {object}"),
                -3 => out.write_str(" smgr"),
                -4 => write!(out, " relmap db {database}"),
                -5 => write!(out, " snapshot {object}"),
                -6 => write!(out, " relsync {object}"),
                _ => write!(out, " unrecognized id {id}"),
            }?;
        }
        Ok(())
    }
}
