//! What cannot be encoded.

use thiserror::Error;

use crate::lsn::Lsn;
use crate::types::{RmgrId, TimelineId};
use crate::wal::fault::RecordFault;

/// Why a record cannot be appended to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// Nothing can be written there.
    #[error("no record can start at {lsn}: start at a multiple of 8 that is outside a page header")]
    Start {
        /// The position.
        lsn: Lsn,
    },
    /// The record before the first would not be before it.
    #[error("the record before {lsn} cannot start at {prev}: give a position before it")]
    Prev {
        /// Where the first record would start.
        lsn: Lsn,
        /// The position given.
        prev: Lsn,
    },
    /// The log reaches the end of what LSNs can number.
    #[error("the log at {lsn} has no room for the record below the greatest LSN")]
    EndOfRange {
        /// Where the record would start.
        lsn: Lsn,
    },
    /// The timeline does not advance.
    #[error("timeline {found} is not later than timeline {latest}, of which the log is")]
    Timeline {
        /// The timeline given.
        found: TimelineId,
        /// That of the log.
        latest: TimelineId,
    },
    /// The record before was cut.
    #[error("the record at {record} was cut: only the record that overwrites its rest can follow")]
    Unfinished {
        /// Where the record starts.
        record: Lsn,
    },
    /// There is nothing to overwrite.
    #[error(
        "the record before {lsn} is whole: only the rest of a record that was cut can be overwritten"
    )]
    NothingTorn {
        /// Where the log ends.
        lsn: Lsn,
    },
    /// The record does not cross that place.
    #[error(
        "the record at {record} cannot be cut at {cut}: give the start of a page on which it continues"
    )]
    Cut {
        /// Where the record would start.
        record: Lsn,
        /// The position given.
        cut: Lsn,
    },
    /// The record is longer than any can be.
    #[error("a record of {len} bytes is longer than the greatest length, {max}", max = crate::wal::RecordHeader::MAX_TOTAL_LEN)]
    TooLong {
        /// Bytes of the whole record.
        len: u64,
    },
    /// A resource manager that the dialect does not have.
    #[error("resource manager number {} does not exist in this version", found.0)]
    Rmgr {
        /// The number.
        found: RmgrId,
    },
    /// A block id that is too great.
    #[error("block id {found} is above the greatest, 32")]
    BlockId {
        /// The id.
        found: u8,
    },
    /// Block ids do not ascend.
    #[error("block id {found} follows block id {last}: blocks must be in the order of their ids")]
    BlockOrder {
        /// The id.
        found: u8,
        /// The id before it.
        last: u8,
    },
    /// Too much data for one block.
    #[error("block {id} has {len} bytes of data, but its length has 16 bits")]
    BlockData {
        /// The block's id.
        id: u8,
        /// Bytes of data.
        len: usize,
    },
    /// An image that the dialect's readers would refuse.
    #[error("the image of block {id} cannot be read back: {fault}")]
    Image {
        /// The block's id.
        id: u8,
        /// What its reader would find.
        fault: RecordFault,
    },
    /// An image that the dialect cannot express.
    #[error(
        "the image of block {id} is of another block size or compression than this version's WAL can have"
    )]
    ImageDialect {
        /// The block's id.
        id: u8,
    },
    /// Versions before 14 have no such field.
    #[error("this version's records cannot carry their top-level transaction")]
    ToplevelXid,
    /// A page that gives no image.
    #[error(
        "a page of {len} bytes with a hole from {hole_start} to {hole_end} gives no image of {block_size} bytes"
    )]
    Page {
        /// Bytes of the page.
        len: usize,
        /// Where the hole starts, in bytes from the page's start.
        hole_start: usize,
        /// Where it ends, exclusive.
        hole_end: usize,
        /// The dialect's block size in bytes.
        block_size: u32,
    },
}
