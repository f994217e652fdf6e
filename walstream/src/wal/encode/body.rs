//! The body of a new record: the small headers first, then the data in the same order.

use crate::dialect::Dialect;
use crate::read::Reader;
use crate::types::{RmgrId, TransactionId};
use crate::wal::encode::error::EncodeError;
use crate::wal::image::Image;
use crate::wal::record::{BlockRef, BlockScan, RecordBody, RecordHeader};

/// A record to be appended to a log.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// `xl_rmid`.
    pub rmgr: RmgrId,
    /// `xl_info`: the resource manager's operation in the high four bits, flags in the low four.
    pub info: u8,
    /// `xl_xid`: the transaction, 0 for none.
    pub xid: TransactionId,
    /// What follows the header.
    pub body: NewBody<'a>,
}

/// What follows a new record's header.
#[derive(Clone, Copy, Debug)]
pub enum NewBody<'a> {
    /// Put together from its parts.
    Parts(BodyParts<'a>),
    /// These bytes, whatever they are, such as those of another record after its header.
    Raw(&'a [u8]),
}

impl Default for NewBody<'_> {
    /// No body at all.
    fn default() -> Self {
        Self::Raw(&[])
    }
}

impl<'a> From<BodyParts<'a>> for NewBody<'a> {
    fn from(parts: BodyParts<'a>) -> Self {
        Self::Parts(parts)
    }
}

/// The parts of a new record's body.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyParts<'a> {
    /// The blocks that it changes, in the order of their ids, with their images and data. Those of the same relation as
    /// the one before are written in the short form, as a server does.
    pub blocks: &'a [BlockRef<'a>],
    /// Replication origin that the change came from.
    pub origin: Option<u16>,
    /// The top-level transaction, in the first record of a subtransaction (since PostgreSQL 14).
    pub toplevel_xid: Option<TransactionId>,
    /// The data that belongs to no block.
    pub main_data: &'a [u8],
}

impl NewRecord<'_> {
    pub(super) const fn is_switch(&self) -> bool {
        self.rmgr.0 == RmgrId::XLOG.0 && self.info & 0xF0 == RecordHeader::SWITCH
    }

    /// Checks the record, appends the headers of its body to `headers`, and gives the length of the whole record.
    pub(super) fn put_headers(
        &self,
        dialect: &Dialect,
        headers: &mut Vec<u8>,
    ) -> Result<u32, EncodeError> {
        if !self.rmgr.is_valid(dialect) {
            return Err(EncodeError::Rmgr { found: self.rmgr });
        }
        let data_len = match self.body {
            NewBody::Raw(body) => to_u64(body.len()),
            NewBody::Parts(parts) => parts.put_headers(dialect, headers)?,
        };
        let len = to_u64(RecordHeader::LEN) + to_u64(headers.len()) + data_len;
        match u32::try_from(len) {
            Ok(total_len) if total_len <= RecordHeader::MAX_TOTAL_LEN => Ok(total_len),
            _ => Err(EncodeError::TooLong { len }),
        }
    }

    /// Hands out the pieces of the body in their order; `headers` is what [`NewRecord::put_headers`] wrote.
    pub(super) fn pieces(&self, headers: &[u8], piece: &mut impl FnMut(&[u8])) {
        match self.body {
            NewBody::Raw(body) => piece(body),
            NewBody::Parts(parts) => {
                piece(headers);
                for block in parts.blocks {
                    if let Some(image) = block.image {
                        piece(image.bytes());
                    }
                    piece(block.data);
                }
                piece(parts.main_data);
            }
        }
    }
}

impl BodyParts<'_> {
    /// Appends the headers; gives the number of bytes of data that follow them.
    fn put_headers(&self, dialect: &Dialect, headers: &mut Vec<u8>) -> Result<u64, EncodeError> {
        let mut data_len = 0;
        let mut last: Option<&BlockRef<'_>> = None;
        for block in self.blocks {
            put_block(block, last, dialect, headers)?;
            data_len += to_u64(block.data.len() + block.image.map_or(0, |image| image.len()));
            last = Some(block);
        }
        if let Some(origin) = self.origin {
            headers.push(RecordBody::ID_ORIGIN);
            headers.extend_from_slice(&origin.to_le_bytes());
        }
        if let Some(xid) = self.toplevel_xid {
            if !dialect.has_toplevel_xid() {
                return Err(EncodeError::ToplevelXid);
            }
            headers.push(RecordBody::ID_TOPLEVEL_XID);
            headers.extend_from_slice(&xid.to_le_bytes());
        }
        let main_len = self.main_data.len();
        if let Ok(short) = u8::try_from(main_len) {
            // No data has no header either.
            if short > 0 {
                headers.extend_from_slice(&[RecordBody::ID_DATA_SHORT, short]);
            }
        } else {
            let long = u32::try_from(main_len).map_err(|_| EncodeError::TooLong {
                len: to_u64(main_len),
            })?;
            headers.push(RecordBody::ID_DATA_LONG);
            headers.extend_from_slice(&long.to_le_bytes());
        }
        Ok(data_len + to_u64(main_len))
    }
}

/// Appends the header of one block reference; `last` is the block before it.
///
/// # Source
/// `XLogRecordAssemble` in `src/backend/access/transam/xloginsert.c`.
fn put_block(
    block: &BlockRef<'_>,
    last: Option<&BlockRef<'_>>,
    dialect: &Dialect,
    headers: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let id = block.id;
    if id > RecordBody::MAX_BLOCK_ID {
        return Err(EncodeError::BlockId { found: id });
    }
    if let Some(last) = last.filter(|last| id <= last.id) {
        return Err(EncodeError::BlockOrder {
            found: id,
            last: last.id,
        });
    }
    let data_len = u16::try_from(block.data.len()).map_err(|_| EncodeError::BlockData {
        id,
        len: block.data.len(),
    })?;
    let same_rel = last.is_some_and(|last| last.locator == block.locator);
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags = block.fork.number()
        | flag(block.image.is_some(), BlockScan::HAS_IMAGE)
        | flag(data_len > 0, BlockScan::HAS_DATA)
        | flag(block.will_init, BlockScan::WILL_INIT)
        | flag(same_rel, BlockScan::SAME_REL);
    headers.extend_from_slice(&[id, flags]);
    headers.extend_from_slice(&data_len.to_le_bytes());
    if let Some(image) = &block.image {
        put_image(id, image, dialect, headers)?;
    }
    if !same_rel {
        let locator = block.locator;
        for part in [locator.tablespace, locator.database, locator.relation] {
            headers.extend_from_slice(&part.to_le_bytes());
        }
    }
    headers.extend_from_slice(&block.block.to_le_bytes());
    Ok(())
}

/// Appends the header of an image. What its reader would refuse, or read as another image, is an error.
fn put_image(
    id: u8,
    image: &Image<'_>,
    dialect: &Dialect,
    headers: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = headers.len();
    image.put_header(dialect, headers);
    let written = headers.get(start..).unwrap_or_default();
    let read = Image::parse_header(&mut Reader::new(written), dialect)
        .map_err(|fault| EncodeError::Image { id, fault })?;
    if read.with_bytes(image.bytes()) != *image {
        return Err(EncodeError::ImageDialect { id });
    }
    Ok(())
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
