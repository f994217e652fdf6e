//! What can be wrong with a record.

use thiserror::Error;

use crate::lsn::Lsn;
use crate::read::OutOfBytes;
use crate::types::RmgrId;

/// What is wrong with a record. Offsets are in bytes from the record's start, page headers not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// No record can start where decoding was told to begin.
    #[error("no record can start here: not a multiple of 8, or inside a page header")]
    Start,
    /// A length that no record has.
    #[error("length is {found}, but a record has 24 to 1073741823 bytes")]
    TotalLen {
        /// `xl_tot_len`.
        found: u32,
    },
    /// A resource manager that this dialect does not have.
    #[error("resource manager number {} does not exist", found.0)]
    Rmgr {
        /// `xl_rmid`.
        found: RmgrId,
    },
    /// The link to the record before is wrong.
    #[error("its link says that the record before starts at {found}, expected {}", DisplayPrev(*expected))]
    Prev {
        /// `xl_prev`.
        found: Lsn,
        /// Where the record before starts; `None` when that is unknown, then it must be before this record.
        expected: Option<Lsn>,
    },
    /// The checksum is wrong.
    #[error("checksum is {found:08X}, but its bytes give {computed:08X}")]
    Crc {
        /// `xl_crc`.
        found: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The record that stands for a lost one names another than the one that was lost.
    #[error("it overwrites the record at {found}, but the unfinished record is at {expected}")]
    Overwritten {
        /// The LSN in the record.
        found: Lsn,
        /// Where the unfinished record started.
        expected: Lsn,
    },
    /// The body ends inside a header.
    #[error("the body ends early: {0}")]
    OutOfBytes(#[from] OutOfBytes),
    /// The lengths in the headers do not add up to the data.
    #[error("the headers announce {stated} bytes of data, but there are {found}")]
    DataLen {
        /// Where the headers end.
        offset: usize,
        /// Bytes of data.
        found: usize,
        /// Bytes announced.
        stated: usize,
    },
    /// An id without a meaning.
    #[error("block id {found} has no meaning")]
    BlockId {
        /// Where it is.
        offset: usize,
        /// The id.
        found: u8,
    },
    /// Block ids do not ascend.
    #[error("block id {found} follows block id {last}")]
    BlockOrder {
        /// Where it is.
        offset: usize,
        /// The id.
        found: u8,
        /// The id before it.
        last: u8,
    },
    /// The flag for data and the length of the data contradict each other.
    #[error("block flags {flags:02X} contradict its data length of {data_len}")]
    BlockData {
        /// Where the block reference is.
        offset: usize,
        /// `fork_flags`.
        flags: u8,
        /// `data_length`.
        data_len: u16,
    },
    /// The first block reference says that its relation is that of the one before.
    #[error("a block refers to the relation of the block before it, but is the first")]
    SameRelWithoutRel {
        /// Where the block reference is.
        offset: usize,
    },
    /// A fork that does not exist.
    #[error("fork number {found} does not exist")]
    Fork {
        /// Where the block reference is.
        offset: usize,
        /// The number.
        found: u8,
    },
    /// The hole, length and flags of a page image contradict each other or the block size.
    #[error(
        "page image of {len} bytes with hole at {hole_offset} of {hole_length} bytes contradicts its flags \
         {info:02X} or the block size {block_size}"
    )]
    Image {
        /// Where the image's header is.
        offset: usize,
        /// `bimg_info`.
        info: u8,
        /// `bimg_len`: bytes of the image as stored.
        len: u16,
        /// `hole_offset`.
        hole_offset: u16,
        /// `hole_length`, as stored or as it follows from the length.
        hole_length: u32,
        /// The dialect's block size.
        block_size: u32,
    },
}

impl RecordFault {
    /// Offset in bytes of the faulty place from the record's start.
    #[must_use]
    pub fn offset(&self) -> u32 {
        let offset = match self {
            Self::Start | Self::TotalLen { .. } => 0,
            Self::Prev { .. } => 8,
            Self::Rmgr { .. } => 17,
            Self::Crc { .. } => 20,
            Self::Overwritten { .. } => 24,
            Self::OutOfBytes(error) => error.offset,
            Self::DataLen { offset, .. }
            | Self::BlockId { offset, .. }
            | Self::BlockOrder { offset, .. }
            | Self::BlockData { offset, .. }
            | Self::SameRelWithoutRel { offset }
            | Self::Fork { offset, .. }
            | Self::Image { offset, .. } => *offset,
        };
        u32::try_from(offset).unwrap_or(u32::MAX)
    }
}

struct DisplayPrev(Option<Lsn>);

impl std::fmt::Display for DisplayPrev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(lsn) => lsn.fmt(f),
            None => f.write_str("one before this record"),
        }
    }
}
