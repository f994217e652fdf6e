//! A record as a line of text, as `pg_waldump` of PostgreSQL 15 prints it.

use walstream::Dialect;
use walstream::types::ForkNumber;
use walstream::wal::record::{BlockSummary, ImageSummary, Record, RecordSummary};

use super::number::{decimal, padded, padded_lsn};

/// Appends the line of a record, with its description. With `details`, each block reference has a line of its own.
///
/// # Source
/// `XLogDumpDisplayRecord` in `src/bin/pg_waldump/pg_waldump.c`, `XLogRecGetBlockRefInfo` in
/// `src/backend/access/rmgrdesc/xlogdesc.c`.
pub(super) fn append(
    out: &mut Vec<u8>,
    record: &Record<'_>,
    summary: &RecordSummary,
    description: &str,
    dialect: &Dialect,
    details: bool,
) {
    let header = &record.header;
    out.extend_from_slice(b"rmgr: ");
    rmgr(out, record);
    out.extend_from_slice(b" len (rec/tot): ");
    padded(
        out,
        header
            .total_len
            .saturating_sub(summary.lengths.image_len)
            .into(),
        6,
    );
    out.push(b'/');
    padded(out, header.total_len.into(), 6);
    out.extend_from_slice(b", tx: ");
    padded(out, header.xid.into(), 10);
    out.extend_from_slice(b", lsn: ");
    padded_lsn(out, record.start_lsn);
    out.extend_from_slice(b", prev ");
    padded_lsn(out, header.prev);
    out.extend_from_slice(b", desc: ");
    out.extend_from_slice(header.type_name(dialect).as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(description.as_bytes());
    if details {
        out.push(b'\n');
        for block in summary.blocks() {
            out.push(b'\t');
            reference(out, block, true);
            if let Some(image) = &block.image {
                image_details(out, image, dialect);
            }
            out.push(b'\n');
        }
    } else {
        for block in summary.blocks() {
            out.extend_from_slice(b", ");
            reference(out, block, block.fork != ForkNumber::Main);
            match &block.image {
                Some(image) if image.apply => out.extend_from_slice(b" FPW"),
                Some(_) => out.extend_from_slice(b" FPW for WAL verification"),
                None => {}
            }
        }
        out.push(b'\n');
    }
}

/// The name, with blanks behind it up to 11 places.
fn rmgr(out: &mut Vec<u8>, record: &Record<'_>) {
    const BLANKS: &[u8] = b"           ";
    let name = record.header.rmgr.name();
    match name.built_in() {
        Some(name) => {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(BLANKS.get(name.len()..).unwrap_or_default());
        }
        None => out.extend_from_slice(format!("{name:<11}").as_bytes()),
    }
}

fn reference(out: &mut Vec<u8>, block: &BlockSummary, with_fork: bool) {
    out.extend_from_slice(b"blkref #");
    decimal(out, block.id.into());
    out.extend_from_slice(b": rel ");
    decimal(out, block.locator.tablespace.into());
    out.push(b'/');
    decimal(out, block.locator.database.into());
    out.push(b'/');
    decimal(out, block.locator.relation.into());
    if with_fork {
        out.extend_from_slice(b" fork ");
        out.extend_from_slice(block.fork.name().as_bytes());
    }
    out.extend_from_slice(b" blk ");
    decimal(out, block.block.into());
}

fn image_details(out: &mut Vec<u8>, image: &ImageSummary, dialect: &Dialect) {
    out.extend_from_slice(if image.apply {
        b" (FPW); hole: offset: ".as_slice()
    } else {
        b" (FPW for WAL verification); hole: offset: "
    });
    decimal(out, image.hole_offset.into());
    out.extend_from_slice(b", length: ");
    decimal(out, image.hole_length.into());
    if let Some(compression) = image.compression {
        let saved = u64::from(dialect.block_size.bytes_u32())
            .saturating_sub(image.hole_length.into())
            .saturating_sub(image.len.into());
        out.extend_from_slice(b", compression saved: ");
        decimal(out, saved);
        out.extend_from_slice(b", method: ");
        out.extend_from_slice(compression.name().as_bytes());
    }
}
