//! [`RecordSummary`]: what a record's small headers say, without its data.
//!
//! Most bytes of WAL are page images, and most images cross a page. To count them or to name the blocks, the bytes of
//! such a record need not be joined: its headers come first and nearly always lie within its first page.

use super::{BlockHeader, BlockScan, Content, Record, RecordBody, RecordHeader};
use crate::dialect::Dialect;
use crate::read::Reader;
use crate::types::{BlockNumber, ForkNumber, RelFileLocator, TransactionId};
use crate::wal::decode::DecodeError;
use crate::wal::fault::RecordFault;
use crate::wal::image::ImageCompression;

/// What a record's small headers say. Made once and filled for record after record, it allocates only while it grows.
#[derive(Clone, Debug, Default)]
pub struct RecordSummary {
    /// Replication origin that the change came from.
    pub origin: Option<u16>,
    /// The top-level transaction, in the first record of a subtransaction.
    pub toplevel_xid: Option<TransactionId>,
    /// How many bytes its parts take.
    pub lengths: RecordLengths,
    blocks: Vec<BlockSummary>,
}

/// How many bytes a record's parts take, which is all that counting needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordLengths {
    /// Bytes of all page images, as stored.
    pub image_len: u32,
    /// Bytes of the data that belongs to no block.
    pub main_data_len: u32,
}

/// One block that a record changes, without image and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSummary {
    /// Its number in the record, 0 to 32.
    pub id: u8,
    /// The relation's files.
    pub locator: RelFileLocator,
    /// The fork.
    pub fork: ForkNumber,
    /// The block.
    pub block: BlockNumber,
    /// Whether redo builds the page anew (`BKPBLOCK_WILL_INIT`).
    pub will_init: bool,
    /// The page image, if there is one.
    pub image: Option<ImageSummary>,
    /// Bytes of the change to this block.
    pub data_len: u16,
}

/// A page image, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// Where the hole begins, in bytes from the page's start; 0 when there is none.
    pub hole_offset: u16,
    /// Length of the hole in bytes.
    pub hole_length: u16,
    /// How it is compressed.
    pub compression: Option<ImageCompression>,
    /// Whether redo restores the page from it; otherwise it is only there to check redo against.
    pub apply: bool,
    /// Bytes that it takes in the record.
    pub len: u16,
}

impl RecordSummary {
    /// The blocks, in the order of their ids.
    #[must_use]
    pub fn blocks(&self) -> &[BlockSummary] {
        &self.blocks
    }

    /// Fills this from a record. The rules that [`Record::body`] checks are checked here too, and fail alike; then the
    /// content of this is of no use.
    ///
    /// # Errors
    /// As [`Record::body`].
    ///
    /// # Source
    /// `DecodeXLogRecord` in `src/backend/access/transam/xlogreader.c`.
    #[inline]
    pub fn fill(&mut self, record: &Record<'_>) -> Result<(), DecodeError> {
        self.lengths = scan(record, |front, total_len| {
            self.origin = None;
            self.toplevel_xid = None;
            self.blocks.clear();
            scan_headers(front, total_len, record.dialect, self)
        })?;
        Ok(())
    }
}

impl RecordLengths {
    /// Those of a record. The rules that [`Record::body`] checks are checked here too, and fail alike.
    ///
    /// # Errors
    /// As [`Record::body`].
    #[inline]
    pub fn of(record: &Record<'_>) -> Result<Self, DecodeError> {
        scan(record, |front, total_len| {
            scan_headers(front, total_len, record.dialect, &mut NoBlocks)
        })
    }
}

/// Takes what stands in a record's headers.
trait HeaderSink {
    fn origin(&mut self, origin: u16);
    fn toplevel_xid(&mut self, xid: TransactionId);
    fn block(&mut self, id: u8, block: &BlockHeader);
}

struct NoBlocks;

impl HeaderSink for NoBlocks {
    fn origin(&mut self, _: u16) {}
    fn toplevel_xid(&mut self, _: TransactionId) {}
    fn block(&mut self, _: u8, _: &BlockHeader) {}
}

impl HeaderSink for RecordSummary {
    fn origin(&mut self, origin: u16) {
        self.origin = Some(origin);
    }

    fn toplevel_xid(&mut self, xid: TransactionId) {
        self.toplevel_xid = Some(xid);
    }

    #[inline]
    fn block(&mut self, id: u8, block: &BlockHeader) {
        self.blocks.push(BlockSummary {
            id,
            locator: block.locator,
            fork: block.fork,
            block: block.block,
            will_init: block.will_init,
            image: block.image.map(|image| ImageSummary {
                hole_offset: image.hole_offset,
                hole_length: image.hole_length,
                compression: image.compression,
                apply: image.apply,
                len: u16::try_from(image.len()).unwrap_or(u16::MAX),
            }),
            data_len: block.data_len,
        });
    }
}

/// Runs `parse` over the front of a record, and over the whole of it when the front does not do.
// This and what follows are inlined so that the lengths stay in registers: a result that is written to memory in parts and
// read as a whole stalls for each record.
#[inline(always)]
fn scan(
    record: &Record<'_>,
    mut parse: impl FnMut(&[u8], usize) -> Result<RecordLengths, RecordFault>,
) -> Result<RecordLengths, DecodeError> {
    let (front, is_whole) = match record.content {
        Content::Whole(bytes) => (bytes, true),
        Content::Split(split) => {
            let size = record.dialect.wal_page_size;
            let left = size.bytes() - record.start_lsn.page_offset(size);
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            (split.raw.get(..left).unwrap_or(split.raw), false)
        }
    };
    let total_len = usize::try_from(record.header.total_len).unwrap_or(usize::MAX);
    parse(front, total_len).or_else(|fault| {
        // The headers cross the page, or are wrong: only the whole record tells.
        let result = if is_whole {
            Err(fault)
        } else {
            parse(record.bytes(), total_len)
        };
        result.map_err(|fault| DecodeError::Record {
            lsn: record.start_lsn,
            offset: fault.offset(),
            fault,
        })
    })
}

/// Parses the front of a record of `total_len` bytes.
#[inline(always)]
fn scan_headers(
    front: &[u8],
    total_len: usize,
    dialect: &Dialect,
    sink: &mut impl HeaderSink,
) -> Result<RecordLengths, RecordFault> {
    let mut reader = Reader::new(front);
    reader.take(RecordHeader::LEN)?;
    let (mut main_len, mut data_len, mut image_len) = (0, 0, 0);
    let mut blocks = BlockScan::default();
    while total_len.saturating_sub(reader.offset()) > data_len {
        let offset = reader.offset();
        match reader.u8()? {
            id if id <= RecordBody::MAX_BLOCK_ID => {
                let block = blocks.next(id, offset, &mut reader, dialect)?;
                let len = block.image.map_or(0, |image| image.len());
                image_len += len;
                data_len += len + usize::from(block.data_len);
                sink.block(id, &block);
            }
            RecordBody::ID_DATA_SHORT => {
                main_len = usize::from(reader.u8()?);
                break;
            }
            RecordBody::ID_DATA_LONG => {
                main_len = usize::try_from(reader.u32_le()?).unwrap_or(usize::MAX);
                break;
            }
            RecordBody::ID_ORIGIN => sink.origin(reader.u16_le()?),
            RecordBody::ID_TOPLEVEL_XID if dialect.has_toplevel_xid() => {
                sink.toplevel_xid(reader.u32_le()?);
            }
            found => return Err(RecordFault::BlockId { offset, found }),
        }
    }
    let stated = data_len.saturating_add(main_len);
    let found = total_len.saturating_sub(reader.offset());
    if found != stated {
        return Err(RecordFault::DataLen {
            offset: reader.offset(),
            found,
            stated,
        });
    }
    Ok(RecordLengths {
        image_len: u32::try_from(image_len).unwrap_or(u32::MAX),
        main_data_len: u32::try_from(main_len).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::PgMajor;
    use crate::fuzzing::WalBuilder;
    use crate::lsn::Lsn;
    use crate::wal::decode::WalDecoder;
    use proptest::prelude::*;

    /// A body with one block reference, an image with a hole, and main data.
    fn body(image_len: u16, main: u8) -> Vec<u8> {
        let mut body = vec![0, 0x10 | 0x20, 3, 0];
        body.extend(image_len.to_le_bytes());
        body.extend(100u16.to_le_bytes());
        body.push(0x01 | 0x02);
        for oid in [1663u32, 5, 1259, 7] {
            body.extend(oid.to_le_bytes());
        }
        body.extend([253, 9, 0]);
        body.extend([255, main]);
        body.extend(std::iter::repeat_n(0xAB, usize::from(image_len) + 3));
        body.extend(std::iter::repeat_n(0xCD, usize::from(main)));
        body
    }

    /// What the whole body says, in the summary's form.
    fn from_body(record: &Record<'_>) -> Result<RecordSummary, DecodeError> {
        let body = record.body()?;
        let blocks: Vec<_> = body
            .block_refs()
            .map(|block| BlockSummary {
                id: block.id,
                locator: block.locator,
                fork: block.fork,
                block: block.block,
                will_init: block.will_init,
                image: block.image.map(|image| ImageSummary {
                    hole_offset: image.hole_offset,
                    hole_length: image.hole_length,
                    compression: image.compression,
                    apply: image.apply,
                    len: u16::try_from(image.len()).unwrap(),
                }),
                data_len: u16::try_from(block.data.len()).unwrap(),
            })
            .collect();
        Ok(RecordSummary {
            origin: body.origin,
            toplevel_xid: body.toplevel_xid,
            lengths: RecordLengths {
                image_len: blocks
                    .iter()
                    .filter_map(|b| Some(u32::from(b.image?.len)))
                    .sum(),
                main_data_len: u32::try_from(body.main_data.len()).unwrap(),
            },
            blocks,
        })
    }

    proptest! {
        /// Wherever pages and pieces cut a record, and whatever its bytes are.
        #[test]
        fn summary_and_body_agree(
            records in prop::collection::vec((20u16..8000, any::<u8>(), prop::option::weighted(0.2, (0usize..32, any::<u8>()))), 1..20),
            chunk in 1usize..40_000,
        ) {
            let dialect = Dialect::with_default_sizes(PgMajor::V15);
            let start = Lsn(0x0200_0000);
            let mut wal = WalBuilder::new(dialect, start);
            for (image_len, main, damage) in records {
                let mut body = body(image_len, main);
                if let Some((at, byte)) = damage {
                    body[at] = byte;
                }
                wal.record(10, 0, &body);
            }
            let mut decoder = WalDecoder::new(dialect, start);
            let mut summary = RecordSummary::default();
            for piece in wal.bytes().chunks(chunk) {
                let mut feed = decoder.feed(piece);
                while let Some(record) = feed.next_record().unwrap() {
                    match from_body(&record) {
                        Ok(expected) => {
                            summary.fill(&record).unwrap();
                            prop_assert_eq!(format!("{summary:?}"), format!("{expected:?}"));
                            prop_assert_eq!(RecordLengths::of(&record), Ok(expected.lengths));
                        }
                        Err(expected) => {
                            prop_assert_eq!(summary.fill(&record), Err(expected));
                            prop_assert_eq!(RecordLengths::of(&record), Err(expected));
                        }
                    }
                }
            }
        }
    }
}
