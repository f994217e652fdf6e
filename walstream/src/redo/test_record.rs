//! Records for tests, put together without a server.

use super::{RedoContext, RedoError, RedoRecord, redo_block};
use crate::dialect::{Dialect, PgMajor};
use crate::lsn::Lsn;
use crate::types::RmgrId;
use crate::wal::record::{BlockRef, RecordBody, RecordHeader};

/// Where test records end.
pub(crate) const END_LSN: Lsn = Lsn(0x0123_4567_89AB_CDE8);

/// A page of one byte over and over.
pub(crate) fn page_of(byte: u8) -> Vec<u8> {
    vec![byte; 8192]
}

/// A record of any content.
#[derive(Clone, Debug)]
pub(crate) struct TestRecord {
    pub(crate) major: PgMajor,
    rmgr: RmgrId,
    info: u8,
    main_data: Vec<u8>,
}

impl TestRecord {
    pub(crate) fn new(rmgr: RmgrId, info: u8) -> Self {
        Self {
            major: PgMajor::V15,
            rmgr,
            info,
            main_data: Vec::new(),
        }
    }

    pub(crate) fn with_main_data(mut self, data: &[u8]) -> Self {
        self.main_data = data.to_vec();
        self
    }

    pub(crate) fn context(&self) -> RedoContext {
        RedoContext {
            dialect: Dialect::with_default_sizes(self.major),
            logs_hints: true,
        }
    }

    /// Gives the record and its block of this number, which is block 0 of its relation. Block 0 of the record is there too.
    pub(crate) fn with<T>(
        &self,
        id: u8,
        block_data: &[u8],
        work: impl FnOnce(&RedoRecord<'_>, &BlockRef<'_>) -> T,
    ) -> T {
        let mut bytes = vec![0; RecordHeader::LEN];
        let lengths = [(0, 0), (id, block_data.len())];
        for (id, len) in lengths.into_iter().skip(usize::from(id == 0)) {
            // With data, of the main fork; then its length, the relation and the block.
            bytes.extend([id, 0x20]);
            bytes.extend(u16::try_from(len).unwrap().to_le_bytes());
            bytes.extend([0; 16]);
            if len == 0 {
                let flags = bytes.len() - 19;
                bytes[flags] = 0;
            }
        }
        bytes.push(254);
        bytes.extend(u32::try_from(self.main_data.len()).unwrap().to_le_bytes());
        bytes.extend(block_data);
        bytes.extend(&self.main_data);
        let context = self.context();
        let record = RedoRecord {
            start_lsn: Lsn(8),
            end_lsn: END_LSN,
            header: RecordHeader {
                total_len: u32::try_from(bytes.len()).unwrap(),
                xid: 3,
                prev: Lsn(0),
                info: self.info,
                rmgr: self.rmgr,
                crc: 0,
            },
            body: RecordBody::parse(&bytes, &context.dialect).unwrap(),
        };
        let block = record.block(id).unwrap();
        work(&record, &block)
    }

    /// Does to a page what the record does to its block of this number.
    pub(crate) fn redo(
        &self,
        id: u8,
        block_data: &[u8],
        page: &mut [u8],
    ) -> Result<(), Box<RedoError>> {
        self.with(id, block_data, |record, block| {
            redo_block(&self.context(), record, block, page)
        })
        .map(|_| ())
        .map_err(Box::new)
    }
}
