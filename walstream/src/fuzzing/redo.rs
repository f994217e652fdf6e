//! Fuzz target of redo: one record of any resource manager, on any page.

use std::fmt;

use crate::dialect::{Dialect, PgMajor};
use crate::lsn::Lsn;
use crate::read::Reader;
use crate::redo::{
    Effect, RedoAction, RedoContext, RedoRecord, consistency, describe, effects, free_space,
    redo_block, stop_point,
};
use crate::storage::page::Page;
use crate::types::RmgrId;
use crate::wal::RecordBody;
use crate::wal::record::RecordHeader;

const PAGE: usize = 8192;
const END: Lsn = Lsn(0x0123_4567_89AB_CDE8);

/// Bits of the byte of options: hints are logged; the page's LSN is set back, so that redo has something to do; the page's
/// header is made one that a page can have.
const LOGS_HINTS: u8 = 1;
const IS_OLD: u8 = 2;
const HAS_HEADER: u8 = 4;

/// A record on a page. Bytes: version; resource manager; `xl_info`; options; length of the record's body, and of the page's front (each
/// two bytes, low first); the body; the page's front; what is left is its back, and between them it is zeros.
pub fn redo(data: &[u8]) {
    _ = redo_parts(data);
}

fn redo_parts(data: &[u8]) -> Option<()> {
    let mut reader = Reader::new(data);
    let version = reader.u8().ok()?;
    let major = PgMajor::ALL[usize::from(version) % PgMajor::ALL.len()];
    let rmgr = RmgrId(reader.u8().ok()?);
    let info = reader.u8().ok()?;
    let options = reader.u8().ok()?;
    let body_len = usize::from(reader.u16_le().ok()?).min(reader.remaining().saturating_sub(2));
    let front_len = usize::from(reader.u16_le().ok()?);
    let body = reader.take(body_len.min(reader.remaining())).ok()?;
    let front = reader
        .take(front_len.min(reader.remaining()).min(PAGE))
        .ok()?;
    let back = reader.rest();
    let back = &back[..back.len().min(PAGE - front.len())];

    let context = RedoContext {
        dialect: Dialect::with_default_sizes(major),
        logs_hints: options & LOGS_HINTS != 0,
    };
    let mut bytes = vec![0; RecordHeader::LEN];
    bytes.extend(body);
    let record = RedoRecord {
        start_lsn: Lsn(END.0 - 0x1000),
        end_lsn: END,
        header: RecordHeader {
            total_len: u32::try_from(bytes.len()).unwrap(),
            xid: u32::from(version),
            prev: Lsn(8),
            info,
            rmgr,
            crc: 0,
        },
        body: RecordBody::parse(&bytes, &context.dialect).ok()?,
    };
    for block in record.body.block_refs() {
        let mut bytes = vec![0; PAGE];
        bytes[..front.len()].copy_from_slice(front);
        bytes[PAGE - back.len()..].copy_from_slice(back);
        let mut page = Page::new(bytes.as_mut_slice()).unwrap();
        if options & HAS_HEADER != 0 && page.bounds().is_err() {
            page.init(16);
        }
        if options & IS_OLD != 0 {
            page.set_lsn(Lsn(8));
        }
        let before = bytes.clone();
        let Ok(action) = redo_block(&context, &record, &block, &mut bytes) else {
            continue;
        };
        assert_eq!(bytes.len(), PAGE);
        if action == RedoAction::Done {
            assert!(bytes == before, "a page that had the change was changed");
        }
        if let Ok(Some(free)) = free_space(&context, &record, &block, action, &bytes) {
            assert!(free <= PAGE, "{free} bytes are free");
        }
        _ = consistency::mask(rmgr, &mut bytes, block.block, &context.dialect);
    }
    _ = effects(&context, &record, &mut look_at);
    _ = stop_point(&context, &record);
    _ = describe::describe(&record, &context.dialect, &mut Nowhere);
    Some(())
}

/// Reads what an effect only borrows.
fn look_at(effect: Effect<'_>) {
    match effect {
        Effect::TransactionStatus { subxids, .. } | Effect::CommitTimestamp { subxids, .. } => {
            _ = subxids.iter().count();
        }
        Effect::NewMultiXact { members, .. } => _ = members.iter().count(),
        Effect::DropRelations(relations) => _ = relations.iter().count(),
        Effect::DropDatabase { tablespaces, .. } => _ = tablespaces.iter().count(),
        other => _ = fmt::write(&mut Nowhere, format_args!("{other:?}")),
    }
}

/// Takes text, and keeps nothing.
struct Nowhere;

impl fmt::Write for Nowhere {
    fn write_str(&mut self, _text: &str) -> fmt::Result {
        Ok(())
    }
}
