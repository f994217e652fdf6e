//! WAL records: the header, and the body with its block references, images and main data.
//!
//! A record starts at a multiple of 8 bytes with a header of 24, little-endian:
//!
//! | offset | bytes | field | |
//! |---|---|---|---|
//! | 0 | 4 | `xl_tot_len` | length of the whole record |
//! | 4 | 4 | `xl_xid` | transaction |
//! | 8 | 8 | `xl_prev` | LSN of the record before it |
//! | 16 | 1 | `xl_info` | the resource manager's operation, and flags |
//! | 17 | 1 | `xl_rmid` | resource manager |
//! | 18 | 2 | | padding |
//! | 20 | 4 | `xl_crc` | CRC-32C of the body, then of the 20 bytes before this field |
//!
//! The body has first all the small headers (of block references, origin, top-level transaction, main data), then all
//! the data in the same order, main data last.

mod summary;

pub use summary::{BlockSummary, ImageSummary, RecordLengths, RecordSummary};

use crate::dialect::Dialect;
use crate::lsn::Lsn;
use crate::read::{OutOfBytes, Reader};
use crate::types::{BlockNumber, ForkNumber, RelFileLocator, RmgrId, TransactionId};
use crate::wal::decode::DecodeError;
use crate::wal::fault::RecordFault;
use crate::wal::image::Image;
use crate::wal::join::SplitRecord;

/// The first 24 bytes of a record.
///
/// # Source
/// `XLogRecord` in `src/include/access/xlogrecord.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// `xl_tot_len`: length of the whole record in bytes, this header included, page headers not.
    pub total_len: u32,
    /// `xl_xid`: the transaction, 0 for none.
    pub xid: TransactionId,
    /// `xl_prev`: where the record before it starts.
    pub prev: Lsn,
    /// `xl_info`: the resource manager's operation in the high four bits, flags in the low four.
    pub info: u8,
    /// `xl_rmid`.
    pub rmgr: RmgrId,
    /// `xl_crc`.
    pub crc: u32,
}

impl RecordHeader {
    /// Length in bytes (`SizeOfXLogRecord`).
    pub const LEN: usize = 24;
    /// The longest record in bytes: what PostgreSQL can hold in memory at once.
    ///
    /// # Source
    /// `MaxAllocSize` in `src/include/utils/memutils.h`; writers since 16 stay below it by `XLogRecordMaxSize`.
    pub const MAX_TOTAL_LEN: u32 = 0x3FFF_FFFF;
    /// `XLOG_CHECKPOINT_SHUTDOWN`: a checkpoint with nothing running beside it.
    pub(crate) const CHECKPOINT_SHUTDOWN: u8 = 0x00;
    /// The operation of [`RecordHeader::is_switch`].
    pub(crate) const SWITCH: u8 = 0x40;
    /// The operation of [`RecordHeader::is_overwrite_contrecord`].
    pub(crate) const OVERWRITE_CONTRECORD: u8 = 0xD0;

    /// Reads a header, checking nothing.
    ///
    /// # Errors
    /// [`OutOfBytes`] when fewer than 24 bytes are left.
    #[inline]
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        reader
            .array::<{ Self::LEN }>()
            .map(|bytes| Self::from_bytes(&bytes))
    }

    /// The header in these bytes, checking nothing.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let [
            l0,
            l1,
            l2,
            l3,
            x0,
            x1,
            x2,
            x3,
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            p6,
            p7,
            info,
            rmgr,
            _,
            _,
            c0,
            c1,
            c2,
            c3,
        ] = *bytes;
        Self {
            total_len: u32::from_le_bytes([l0, l1, l2, l3]),
            xid: u32::from_le_bytes([x0, x1, x2, x3]),
            prev: Lsn(u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7])),
            info,
            rmgr: RmgrId(rmgr),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }

    /// The operation: the part of `xl_info` that belongs to the resource manager (`XLR_RMGR_INFO_MASK`).
    #[must_use]
    pub const fn operation(&self) -> u8 {
        self.info & 0xF0
    }

    /// Whether this ends its segment early.
    ///
    /// # Source
    /// `XLOG_SWITCH` in `src/include/catalog/pg_control.h`.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        self.rmgr == RmgrId::XLOG && self.operation() == Self::SWITCH
    }

    /// Whether this is a checkpoint's record, of a server that runs on or is shut down.
    ///
    /// # Source
    /// `XLOG_CHECKPOINT_SHUTDOWN`, `XLOG_CHECKPOINT_ONLINE` in `src/include/catalog/pg_control.h`.
    #[must_use]
    pub fn is_checkpoint(&self) -> bool {
        self.rmgr == RmgrId::XLOG && matches!(self.operation(), 0x00 | 0x10)
    }

    /// Whether this stands where the rest of a lost record would have been.
    ///
    /// # Source
    /// `XLOG_OVERWRITE_CONTRECORD` in `src/include/catalog/pg_control.h`.
    #[must_use]
    pub fn is_overwrite_contrecord(&self) -> bool {
        self.rmgr == RmgrId::XLOG && self.operation() == Self::OVERWRITE_CONTRECORD
    }

    /// The checks that PostgreSQL makes before it reads on: length, resource manager, link to the record before.
    /// `lsn` is where this record starts; `prev` where the one before it does, `None` when that is not known.
    ///
    /// # Errors
    /// The first [`RecordFault`] found.
    ///
    /// # Source
    /// `ValidXLogRecordHeader` in `src/backend/access/transam/xlogreader.c`.
    #[inline]
    pub fn check(&self, lsn: Lsn, prev: Option<Lsn>, dialect: &Dialect) -> Result<(), RecordFault> {
        Self::check_total_len(self.total_len)?;
        if !self.rmgr.is_valid(dialect) {
            return Err(RecordFault::Rmgr { found: self.rmgr });
        }
        match prev {
            Some(expected) if self.prev != expected => Err(RecordFault::Prev {
                found: self.prev,
                expected: Some(expected),
            }),
            None if self.prev >= lsn => Err(RecordFault::Prev {
                found: self.prev,
                expected: None,
            }),
            _ => Ok(()),
        }
    }

    /// Checks the length field alone, before anything else of the record is at hand.
    ///
    /// # Errors
    /// [`RecordFault::TotalLen`] when no record has this length.
    #[inline]
    pub fn check_total_len(total_len: u32) -> Result<(), RecordFault> {
        if !(24..=Self::MAX_TOTAL_LEN).contains(&total_len) {
            return Err(RecordFault::TotalLen { found: total_len });
        }
        Ok(())
    }
}

/// Where a record's bytes are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'a> {
    /// In one piece.
    Whole(&'a [u8]),
    /// Over several pages of the bytes that were fed.
    Split(SplitRecord<'a>),
}

/// One whole record whose checksum was verified. Borrows from the bytes that were fed, or from the decoder.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// LSN of its first byte.
    pub start_lsn: Lsn,
    /// Where the next record may start (exclusive end, rounded up to 8 bytes): the next segment's start after a switch,
    /// possibly a page's start, and then the next record follows that page's header.
    pub end_lsn: Lsn,
    /// Its header.
    pub header: RecordHeader,
    pub(crate) content: Content<'a>,
    pub(crate) dialect: &'a Dialect,
}

impl<'a> Record<'a> {
    /// All its bytes without page headers, [`RecordHeader::total_len`] of them. A record that crosses pages within the
    /// bytes fed is joined here, at the first call, in a buffer that the decoder reuses.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        match self.content {
            Content::Whole(bytes) => bytes,
            Content::Split(split) => split.join(),
        }
    }

    /// Whether [`Record::bytes`] borrows from what was fed or carried over, without a copy to be made.
    #[must_use]
    pub const fn is_contiguous(&self) -> bool {
        matches!(self.content, Content::Whole(_))
    }

    /// Parses the body. Nothing is copied or allocated.
    ///
    /// # Errors
    /// [`DecodeError::Record`] when it breaks a rule. As its checksum was right, the server wrote it so (or this crate
    /// does not know its format); it is never the end of WAL.
    #[inline]
    pub fn body(&self) -> Result<RecordBody<'a>, DecodeError> {
        RecordBody::parse(self.bytes(), self.dialect).map_err(|fault| DecodeError::Record {
            lsn: self.start_lsn,
            offset: fault.offset(),
            fault,
        })
    }

    /// The blocks that the record changes; short for [`Record::body`].
    ///
    /// # Errors
    /// As [`Record::body`].
    pub fn block_refs(&self) -> Result<BlockRefs<'a>, DecodeError> {
        Ok(self.body()?.block_refs())
    }

    /// The data that belongs to no block; short for [`Record::body`].
    ///
    /// # Errors
    /// As [`Record::body`].
    pub fn main_data(&self) -> Result<&'a [u8], DecodeError> {
        Ok(self.body()?.main_data)
    }
}

/// A record's body, checked.
#[derive(Clone, Copy, Debug)]
pub struct RecordBody<'a> {
    /// Replication origin that the change came from.
    pub origin: Option<u16>,
    /// The top-level transaction, in the first record of a subtransaction (since PostgreSQL 14, with logical decoding).
    pub toplevel_xid: Option<TransactionId>,
    /// The data that belongs to no block.
    pub main_data: &'a [u8],
    headers: Reader<'a>,
    data: Reader<'a>,
    dialect: Dialect,
}

impl RecordBody<'_> {
    pub(crate) const ID_DATA_SHORT: u8 = 255;
    pub(crate) const ID_DATA_LONG: u8 = 254;
    pub(crate) const ID_ORIGIN: u8 = 253;
    pub(crate) const ID_TOPLEVEL_XID: u8 = 252;
    /// `XLR_MAX_BLOCK_ID`.
    pub(crate) const MAX_BLOCK_ID: u8 = 32;
}

impl<'a> RecordBody<'a> {
    /// Parses a whole record, of which `record` is all the bytes, header included.
    ///
    /// # Errors
    /// The first [`RecordFault`] found; its offset is from the record's start.
    ///
    /// # Source
    /// `DecodeXLogRecord` in `src/backend/access/transam/xlogreader.c`.
    #[inline]
    pub fn parse(record: &'a [u8], dialect: &Dialect) -> Result<Self, RecordFault> {
        let mut reader = Reader::new(record);
        reader.take(RecordHeader::LEN)?;
        let mut body = Self {
            origin: None,
            toplevel_xid: None,
            main_data: &[],
            headers: reader,
            data: reader,
            dialect: *dialect,
        };
        let mut main_len = 0;
        let mut data_len = 0;
        let mut scan = BlockScan::default();
        while reader.remaining() > data_len {
            let offset = reader.offset();
            match reader.u8()? {
                Self::ID_DATA_SHORT => {
                    main_len = usize::from(reader.u8()?);
                    break;
                }
                Self::ID_DATA_LONG => {
                    main_len = usize::try_from(reader.u32_le()?).unwrap_or(usize::MAX);
                    break;
                }
                Self::ID_ORIGIN => body.origin = Some(reader.u16_le()?),
                Self::ID_TOPLEVEL_XID if dialect.has_toplevel_xid() => {
                    body.toplevel_xid = Some(reader.u32_le()?);
                }
                id if id <= Self::MAX_BLOCK_ID => {
                    let block = scan.next(id, offset, &mut reader, dialect)?;
                    data_len +=
                        block.image.map_or(0, |image| image.len()) + usize::from(block.data_len);
                }
                found => return Err(RecordFault::BlockId { offset, found }),
            }
        }
        let stated = data_len.saturating_add(main_len);
        if reader.remaining() != stated {
            return Err(RecordFault::DataLen {
                offset: reader.offset(),
                found: reader.remaining(),
                stated,
            });
        }
        body.data = reader;
        reader.take(data_len)?;
        body.main_data = reader.rest();
        Ok(body)
    }

    /// The blocks that the record changes, in the order of their ids.
    #[must_use]
    pub fn block_refs(&self) -> BlockRefs<'a> {
        BlockRefs {
            headers: self.headers,
            data: self.data,
            headers_end: self.data.offset(),
            scan: BlockScan::default(),
            dialect: self.dialect,
        }
    }
}

/// One block that a record changes.
///
/// # Source
/// `DecodedBkpBlock` in `src/include/access/xlogreader.h`.
#[derive(Clone, Copy, Debug)]
pub struct BlockRef<'a> {
    /// Its number in the record, 0 to 32; resource managers give each number a meaning.
    pub id: u8,
    /// The relation's files.
    pub locator: RelFileLocator,
    /// The fork.
    pub fork: ForkNumber,
    /// The block.
    pub block: BlockNumber,
    /// Whether redo builds the page anew (`BKPBLOCK_WILL_INIT`).
    pub will_init: bool,
    /// The page as it was (or is, for checks of consistency).
    pub image: Option<Image<'a>>,
    /// The change to this block; empty when there is only an image.
    pub data: &'a [u8],
}

/// The blocks that a record changes. Was checked when the body was parsed.
#[derive(Clone, Debug)]
pub struct BlockRefs<'a> {
    headers: Reader<'a>,
    data: Reader<'a>,
    headers_end: usize,
    scan: BlockScan,
    dialect: Dialect,
}

impl<'a> Iterator for BlockRefs<'a> {
    type Item = BlockRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<BlockRef<'a>> {
        while self.headers.offset() < self.headers_end {
            match self.headers.u8().ok()? {
                RecordBody::ID_ORIGIN => {
                    self.headers.u16_le().ok()?;
                }
                RecordBody::ID_TOPLEVEL_XID => {
                    self.headers.u32_le().ok()?;
                }
                id if id <= RecordBody::MAX_BLOCK_ID => {
                    let offset = self.headers.offset();
                    let block = self
                        .scan
                        .next(id, offset, &mut self.headers, &self.dialect)
                        .ok()?;
                    let image = match block.image {
                        Some(image) => Some(image.with_bytes(self.data.take(image.len()).ok()?)),
                        None => None,
                    };
                    let data = self.data.take(usize::from(block.data_len)).ok()?;
                    return Some(BlockRef {
                        id,
                        locator: block.locator,
                        fork: block.fork,
                        block: block.block,
                        will_init: block.will_init,
                        image,
                        data,
                    });
                }
                _ => break,
            }
        }
        None
    }
}

/// The headers of block references, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockScan {
    last_id: Option<u8>,
    locator: Option<RelFileLocator>,
}

struct BlockHeader {
    locator: RelFileLocator,
    fork: ForkNumber,
    block: BlockNumber,
    will_init: bool,
    image: Option<Image<'static>>,
    data_len: u16,
}

impl BlockScan {
    const FORK_MASK: u8 = 0x0F;
    pub(crate) const HAS_IMAGE: u8 = 0x10;
    pub(crate) const HAS_DATA: u8 = 0x20;
    pub(crate) const WILL_INIT: u8 = 0x40;
    pub(crate) const SAME_REL: u8 = 0x80;

    /// Reads the header of one block reference after its id, which was at `offset`.
    // Every record has one or two of these: inlined, nothing of it passes through memory. The compiler would not do it by
    // itself, as there are several callers.
    #[inline(always)]
    fn next(
        &mut self,
        id: u8,
        offset: usize,
        reader: &mut Reader<'_>,
        dialect: &Dialect,
    ) -> Result<BlockHeader, RecordFault> {
        if let Some(last) = self.last_id.filter(|last| id <= *last) {
            return Err(RecordFault::BlockOrder {
                offset,
                found: id,
                last,
            });
        }
        self.last_id = Some(id);
        let [flags, low, high] = reader.array()?;
        let data_len = u16::from_le_bytes([low, high]);
        if (flags & Self::HAS_DATA != 0) != (data_len > 0) {
            return Err(RecordFault::BlockData {
                offset,
                flags,
                data_len,
            });
        }
        let image = if flags & Self::HAS_IMAGE == 0 {
            None
        } else {
            Some(Image::parse_header(reader, dialect)?)
        };
        if flags & Self::SAME_REL == 0 {
            let [t0, t1, t2, t3, d0, d1, d2, d3, r0, r1, r2, r3] = reader.array()?;
            self.locator = Some(RelFileLocator {
                tablespace: u32::from_le_bytes([t0, t1, t2, t3]),
                database: u32::from_le_bytes([d0, d1, d2, d3]),
                relation: u32::from_le_bytes([r0, r1, r2, r3]),
            });
        }
        let number = flags & Self::FORK_MASK;
        Ok(BlockHeader {
            locator: self
                .locator
                .ok_or(RecordFault::SameRelWithoutRel { offset })?,
            fork: ForkNumber::from_number(number).ok_or(RecordFault::Fork {
                offset,
                found: number,
            })?,
            block: reader.u32_le()?,
            will_init: flags & Self::WILL_INIT != 0,
            image,
            data_len,
        })
    }
}
